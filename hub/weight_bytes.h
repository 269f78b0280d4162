// What models will take of memory, read from the sizes of their files: nothing is opened or mapped.
#pragma once

#include <cstdint>
#include <filesystem>

#include "base/config.h"
#include "hub/model_source.h"

namespace perdure::hub {

// Bytes of the model*.safetensors in a folder; 0 where there are none.
uint64_t WeightBytes(const std::filesystem::path& model_dir);

// What the model's weights take of memory once they are loaded, as its config says; 0 where its
// folder is not found.
uint64_t LoadedBytes(const ModelConfig& model, const ModelPlaces& places);

}  // namespace perdure::hub
