// From tensors in mapped files to packed panels. Rows are read straight from the mapping, in
// parallel, and dropped from memory as soon as they are packed: the peak is about the packed size.
#pragma once

#include <functional>
#include <span>

#include "base/result.h"
#include "engine/packed_matrix.h"
#include "engine/thread_pool.h"
#include "engine/weights/safetensors.h"

namespace perdure::engine {

// Consecutive rows of a tensor, of row_bytes each. No tensor: none.
struct SourceRows {
  const TensorInfo* tensor = nullptr;
  const std::byte* first = nullptr;
  size_t row_bytes = 0;
};

// One matrix as it lies in a checkpoint: scales for every quantized format, biases for the affine
// ones.
struct SourceMatrix {
  SourceRows weight, scales, biases;
};

// Packs matrices of one layout, [outputs, layout.k] each, as the parts of one. `bits` is the width
// of a quantized number in the checkpoint. `done` is called with the bytes consumed since the last
// call. out_of_memory names the first tensor; bad_model: an mxfp4 scale that is NaN.
Result<PackedMatrix> Pack(const PanelLayout& layout, int outputs, int bits,
                          std::span<const SourceMatrix> sources, ThreadPool& pool,
                          const std::function<void(uint64_t)>& done);

}  // namespace perdure::engine
