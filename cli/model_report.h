// What `perdure show` tells of a model, as JSON with stable keys (docs/api.md). Configs, the
// headers of weight files, the tokenizer and the templates are read; weights are not.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/config.h"
#include "base/json.h"
#include "base/memory.h"

namespace perdure::cli {

struct ModelReportInputs {
  ModelConfig model;
  std::filesystem::path folder;
  MemoryState memory;          // before the model is loaded
  uint64_t claimed_bytes = 0;  // of that, what is not for its KV: see engine/kv_budget.h
};
// What is broken stands in "problems", a sentence each; keys whose value that hides are null.
Json ModelReport(const ModelReportInputs& inputs);

}  // namespace perdure::cli
