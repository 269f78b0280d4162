// A linear layer's weights, repacked into panels of 32 outputs (kernels/kernels.h), and the product
// with rows of activations.
#pragma once

#include <cstdint>
#include <span>

#include "engine/aligned_buffer.h"
#include "engine/kernels/kernels.h"
#include "engine/thread_pool.h"

namespace perdure::engine {

struct PackedMatrix {
  PanelLayout layout;  // layout.k inputs
  int outputs = 0;
  int panels = 0;  // ⌈outputs / 32⌉; what is past the last output is zero
  AlignedBuffer data;

  const std::byte* Panel(int index) const { return data.data() + index * layout.panel_bytes; }
  int padded_outputs() const { return panels * kPanelWidth; }
};

// The k floats of one output (a row of an embedding table).
void ReadRow(const PackedMatrix& matrix, int output, float* to);

// c[row][output] for row < rows; ldc ≥ matrix.padded_outputs().
struct Product {
  const PackedMatrix* matrix = nullptr;
  float* c = nullptr;
  ptrdiff_t ldc = 0;
};

// Floats of packed activations that Multiply needs for `rows` rows of `k`.
size_t PackedRowsFloats(int rows, int k);

// Every product with the same activations a[rows][k] (stride k). Every output is one sum over k in
// order, whatever `rows` and the number of threads. `packed`: PackedRowsFloats(rows, k).
void Multiply(const Kernels& kernels, ThreadPool& pool, const float* a, int rows, float* packed,
              std::span<const Product> products);

}  // namespace perdure::engine
