// Numbers in memory of any alignment, as checkpoints and panels hold them. Little-endian machines
// only, as all that Perdure runs on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/float16.h"
#include "engine/kernels/kernels.h"

namespace perdure::engine {

// The index-th T from `from` on.
template <class T>
T ReadAt(const std::byte* from, size_t index) {
  T value;
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

// The index-th of floats of `type`.
inline float ReadFloatAt(ScaleType type, const std::byte* from, size_t index) {
  switch (type) {
    case ScaleType::kF32:
      return ReadAt<float>(from, index);
    case ScaleType::kF16:
      return F16ToF32(ReadAt<uint16_t>(from, index));
    case ScaleType::kBf16:
      return Bf16ToF32(ReadAt<uint16_t>(from, index));
  }
  return 0.0f;
}

}  // namespace perdure::engine
