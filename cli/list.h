// `perdure list`: the models that could be served.
#pragma once

#include <string>

#include "base/config.h"
#include "base/json.h"

namespace perdure::cli {

// {"models": [{"name", "origin": "config" | "cache" | "built-in", "source", "folder", "model_type",
// "disk_bytes", "problem"}]}: the configured ones, then the built-in one and those of the Hugging
// Face cache that no configured one names. "problem" is null where nothing was found; weights are
// not looked at (`perdure show` does).
Json ModelList(const Config& config, const GetEnv& env);
std::string FormatList(const Json& list);

// Prints; returns the exit code.
int RunList(const ConfigFlags& flags, const GetEnv& env, bool json);

}  // namespace perdure::cli
