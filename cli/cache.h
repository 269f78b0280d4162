// `perdure cache …`: what a running service's caches hold, and what can be done about it.
#pragma once

#include <filesystem>
#include <string>

#include "base/json.h"
#include "cli/command_line.h"

namespace perdure::cli {

// For people: one block a model of {"models": {…}}.
std::string FormatCache(const std::string& operation, const Json& answer);

// Prints; returns the exit code. Asks the frontend with the token that the supervisor gives.
int RunCache(const std::filesystem::path& runtime_dir, const CacheOptions& options,
             const std::string& model, bool json);

}  // namespace perdure::cli
