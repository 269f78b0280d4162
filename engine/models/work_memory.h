// Work buffers: several arrays of floats in one allocation.
#pragma once

#include <span>
#include <string_view>

#include "engine/aligned_buffer.h"

namespace perdure::engine {

struct WorkArray {
  float** to = nullptr;  // where the pointer goes; aligned to 64 bytes
  size_t floats = 0;
};

// What AllocateWork takes.
size_t WorkBytes(std::span<const WorkArray> arrays);

// CHECKs that there is memory: a step has no way back.
AlignedBuffer AllocateWork(std::span<const WorkArray> arrays);

}  // namespace perdure::engine
