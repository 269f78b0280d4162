// Affine quantization as MLX does it (mx.quantize on a CPU): w ≈ scale · q + bias, q in
// [0, 2^bits - 1]. The end of a group's range that lies farther from 0 is the bias, and the scale
// is such that 0 is a whole number of steps from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/kernels/kernels.h"
#include "engine/weights/source_matrix.h"

namespace perdure::engine {

struct GroupScale {
  float scale = 0.0f, bias = 0.0f;
};

// Quantizes a group of finite values with `bits` ≤ 8 bits each to q[i], i < values.size().
GroupScale QuantizeGroup(std::span<const float> values, int bits, uint8_t* q);

// Rows of floats in the form that MLX gives them in a checkpoint.
class QuantizedRows {
 public:
  // Quantizes rows [first, first + lanes), which are floats of layout.scale_type, with 4 or 8 bits.
  // False where a value is not finite.
  bool Quantize(const PanelLayout& layout, int bits, const SourceRows& rows, size_t first,
                size_t lanes);
  // They, from row 0 on, until the next call of Quantize.
  SourceMatrix source() const { return source_; }

 private:
  bool QuantizeRow(const PanelLayout& layout, int bits, const std::byte* row, size_t lane);

  std::vector<std::byte> weight_, scales_, biases_;
  SourceMatrix source_;
};

}  // namespace perdure::engine
