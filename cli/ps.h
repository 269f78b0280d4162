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
// Of the whole config, or only the process of `model` where it is not empty.
int RunReload(const std::filesystem::path& runtime_dir, const std::string& model);

}  // namespace perdure::cli
