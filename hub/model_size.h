// What a model will take of memory, reckoned from its files before anything is loaded: sizes, and
// the shapes in config.json. Once a worker has loaded it, it tells better figures.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "hub/model_source.h"

namespace perdure::hub {

struct ModelSize {
  uint64_t weight_bytes = 0;   // LoadedBytes
  uint64_t work_bytes = 0;     // what computing takes at most, and the tokenizer
  uint64_t kv_page_bytes = 0;  // of 32 tokens in 16 bits; 0: not known
  int context = 0;             // the model's, or the configured one where that is less
  bool operator==(const ModelSize&) const = default;
};

// `sequences` compute at once. Zeros where the folder is not found.
ModelSize SizeOf(const ModelConfig& model, const ModelPlaces& places, int sequences);

}  // namespace perdure::hub
