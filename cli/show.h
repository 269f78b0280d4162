// `perdure show` and `perdure list`: what is known of models without loading them.
#pragma once

#include <string>

#include "base/config.h"
#include "base/json.h"

namespace perdure::cli {

// A ModelReport as lines for a terminal.
std::string FormatShow(const Json& report);

// `model`: a configured name, a folder, or org/name in the Hugging Face cache. Prints; returns the
// exit code: kExitBadModel where something keeps the model from being served.
int RunShow(const std::string& model, const ConfigFlags& flags, const GetEnv& env, bool json);

}  // namespace perdure::cli
