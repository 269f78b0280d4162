// Stores keys and values of new positions into the pages of a sequence.
#pragma once

#include <cstddef>

#include "engine/kernels/kernels.h"
#include "engine/kv_view.h"

namespace perdure::engine {

// Rows of consecutive positions of one KV head.
struct KvRows {
  const float* keys = nullptr;
  const float* values = nullptr;
  ptrdiff_t stride = 0;  // floats from a row to the next, of both
  int rows = 0;
  int head_dim = 0;
};

// Into `head`, the block of a layer and KV head, whose page is of `precision`: positions from
// `slot` on, no further than the page's end. What stands there depends on the row alone.
void WriteKv(const Kernels& kernels, KvPrecision precision, std::byte* head, int slot,
             const KvRows& in);

}  // namespace perdure::engine
