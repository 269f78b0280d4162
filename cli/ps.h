// `perdure ps` and its like: the running service as a table or as JSON, and what it is told to do.
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

// The whole service, or one of its models until it is asked for again.
int RunStop(const std::filesystem::path& runtime_dir, const std::string& model);

}  // namespace perdure::cli
