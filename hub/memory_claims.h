// What the configured models will take of the memory that they share, read from the sizes of their
// files: nothing is opened or mapped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "base/config.h"
#include "hub/model_source.h"

namespace perdure::hub {

// Bytes of the model*.safetensors in a folder; 0 where there are none.
uint64_t WeightBytes(const std::filesystem::path& model_dir);

struct MemoryClaims {
  uint64_t bytes = 0;  // weights of all models, KV of the others that configure theirs
  int sharers = 1;     // models whose KV is derived from memory, `model` included
};

// As `model` of `models` sees it. A model whose folder is not found claims nothing.
MemoryClaims ClaimsBeside(const ModelConfig& model, std::span<const ModelConfig> models,
                          const ModelPlaces& places);

}  // namespace perdure::hub
