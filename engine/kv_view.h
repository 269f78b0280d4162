// Where a sequence's keys and values lie. The engine reads and writes through views; who owns the
// memory (a private mapping, a shared arena) is not its business.
//
// A page holds kPageTokens consecutive positions of all layers. Layout of a page in 16-bit floats:
//   [layer][kv_head][ K: head_dim × kPageTokens | V: kPageTokens × head_dim ]
// K is stored transposed (positions are the fast axis), so that scores of one query against a block
// of positions are vectorized over positions and no sum over head_dim is ever split.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace perdure::engine {

inline constexpr int kPageTokens = 32;

struct KvShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;

  size_t HeadBytes() const { return size_t{2} * head_dim * kPageTokens * sizeof(uint16_t); }
  size_t LayerBytes() const { return HeadBytes() * kv_heads; }
  size_t PageBytes() const { return LayerBytes() * layers; }
  static int PagesFor(int tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }
};

// pages[i] holds positions [i·kPageTokens, (i+1)·kPageTokens), aligned to 64 bytes. The view must
// stay valid and unshared with another writer for the duration of a step.
struct KvView {
  std::span<std::byte* const> pages;
};

}  // namespace perdure::engine
