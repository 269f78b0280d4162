// Matrices as they lie in a checkpoint.
#pragma once

#include <cstddef>

#include "engine/weights/safetensors.h"

namespace perdure::engine {

// Consecutive rows of a tensor, of row_bytes each. No tensor: none.
struct SourceRows {
  const TensorInfo* tensor = nullptr;
  const std::byte* first = nullptr;
  size_t row_bytes = 0;
};

// One matrix as it lies in a checkpoint: scales for every quantized format, biases for the affine
// ones. Without scales it is of floats, and quantized while it is packed where the layout is
// affine: scales are of the type of the floats.
struct SourceMatrix {
  SourceRows weight, scales, biases;
};

}  // namespace perdure::engine
