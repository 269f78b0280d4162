// What `perdure show` tells of a model, as JSON with stable keys (docs/api.md). Configs, the
// headers of weight files, the tokenizer and the templates are read; weights are not.
#pragma once

#include <filesystem>

#include "base/config.h"
#include "base/json.h"
#include "base/memory.h"
#include "hub/memory_claims.h"

namespace perdure::cli {

struct ModelReportInputs {
  ModelConfig model;
  std::filesystem::path folder;
  hub::MemoryClaims claims;  // beside the models that are served with it
  MemoryState memory;        // before the model is loaded
};
// What is broken stands in "problems", a sentence each; keys whose value that hides are null.
Json ModelReport(const ModelReportInputs& inputs);

}  // namespace perdure::cli
