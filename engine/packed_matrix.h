// A linear layer's weights, repacked into panels of 32 outputs (kernels/kernels.h), and the product
// with rows of activations. Experts are the parts of one matrix.
#pragma once

#include <cstdint>
#include <span>

#include "engine/activations.h"
#include "engine/aligned_buffer.h"
#include "engine/kernels/kernels.h"
#include "engine/thread_pool.h"

namespace perdure::engine {

struct PackedMatrix {
  PanelLayout layout;  // layout.k inputs
  int outputs = 0;     // of one part
  int panels = 0;      // of one part: ⌈outputs / 32⌉; what is past the last output is zero
  int parts = 1;       // matrices of this shape, one after the other
  // All panels, aligned to 64 bytes: in `memory`, or in a prepared file that outlives the matrix.
  std::span<const std::byte> data;
  AlignedBuffer memory;

  const std::byte* Panel(int index, int part = 0) const {
    return data.data() + (size_t(part) * size_t(panels) + size_t(index)) * layout.panel_bytes;
  }
  int padded_outputs() const { return panels * kPanelWidth; }
};

// The k floats of one output (a row of an embedding table).
void ReadRow(const PackedMatrix& matrix, int output, float* to, int part = 0);

// c[row][output] for row < rows; ldc ≥ matrix.padded_outputs().
struct Product {
  const PackedMatrix* matrix = nullptr;
  float* c = nullptr;
  ptrdiff_t ldc = 0;
  int part = 0;
};

// Rows of activations and what they are multiplied with. All products have the same k.
struct RowGroup {
  const float* a = nullptr;
  ptrdiff_t lda = 0;
  const int* index = nullptr;  // row r is a[index[r]]; none: a[r]
  int rows = 0;
  std::span<const Product> products;
};

// Floats of packed activations that `groups` groups of `rows` rows in all need at most.
size_t PackedRowsFloats(int rows, int groups, int k);

// All products of all groups, which have the same k: threads share the panels of all of them. Every
// output is one sum over k in order, whatever the groups and the number of threads. `activations`
// is what quantized matrices are multiplied with; a row is rounded once for all products of its
// group.
void Multiply(const Kernels& kernels, ThreadPool& pool, Activations activations,
              std::span<const RowGroup> groups, float* packed);

// One group: a[rows][k], stride k. `packed`: PackedRowsFloats(rows, 1, k).
void Multiply(const Kernels& kernels, ThreadPool& pool, Activations activations, const float* a,
              int rows, float* packed, std::span<const Product> products);

}  // namespace perdure::engine
