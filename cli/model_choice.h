// The model that a person named on the command line, beside those it would be served with.
#pragma once

#include <string>

#include "base/config.h"
#include "base/result.h"
#include "hub/model_source.h"

namespace perdure::cli {

struct ModelChoice {
  Config config;
  ModelConfig model;
};

// `name`: a configured name, a folder, or org/name in the Hugging Face cache.
Result<ModelChoice> ChooseModel(const std::string& name, ConfigFlags flags, const GetEnv& env);

}  // namespace perdure::cli
