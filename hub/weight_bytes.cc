#include "hub/weight_bytes.h"

#include <string>
#include <system_error>

namespace perdure::hub {

namespace fs = std::filesystem;

uint64_t WeightBytes(const fs::path& model_dir) {
  uint64_t bytes = 0;
  std::error_code error;
  for (fs::directory_iterator it(model_dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with("model") || !name.ends_with(".safetensors")) continue;
    std::error_code unreadable;
    const uint64_t size = it->file_size(unreadable);  // follows the cache's links
    if (!unreadable) bytes += size;
  }
  return bytes;
}

// Quantized on load, a weight of 16 bits becomes its code and half a bit of its group's scale and
// bias. One of 32 bits claims twice what it takes.
uint64_t LoadedBytes(const ModelConfig& model, const ModelPlaces& places) {
  const auto folder = FindModel(model.source, places);
  if (!folder) return 0;
  const uint64_t bytes = WeightBytes(*folder);
  if (model.quantize_bits == 0) return bytes;
  return bytes / 32 * (2 * static_cast<uint64_t>(model.quantize_bits) + 1);
}

}  // namespace perdure::hub
