// `perdure ps`: the running service as a table or as JSON.
#pragma once

#include <filesystem>
#include <string>

#include "base/json.h"

namespace perdure::cli {

// The supervisor's answer to "ps" as lines for a terminal. Fields that are missing show as "-".
std::string FormatPs(const Json& ps);

// Of the service in `runtime_dir`. Print; return the exit code.
int RunPs(const std::filesystem::path& runtime_dir, bool json);
int RunReload(const std::filesystem::path& runtime_dir);

}  // namespace perdure::cli
