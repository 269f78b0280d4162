#include "engine/models/work_memory.h"

#include "base/check.h"

namespace perdure::engine {
namespace {

size_t Padded(size_t floats) { return (floats + 15) / 16 * 16; }

}  // namespace

size_t WorkBytes(std::span<const WorkArray> arrays) {
  size_t total = 0;
  for (const WorkArray& array : arrays) total += Padded(array.floats);
  return total * sizeof(float);
}

AlignedBuffer AllocateWork(std::span<const WorkArray> arrays) {
  auto memory = AlignedBuffer::Allocate(WorkBytes(arrays), "activations");
  CHECK_MSG(memory.has_value(), "no memory for activations");
  float* at = memory->as<float>();
  for (const WorkArray& array : arrays) {
    *array.to = at;
    at += Padded(array.floats);
  }
  return std::move(*memory);
}

}  // namespace perdure::engine
