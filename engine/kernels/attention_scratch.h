// How attend() divides its scratch memory. Compiled into every instruction set's file and beside
// them, so nothing here is more than arithmetic on constants.
#pragma once

#include "base/limits.h"
#include "engine/kernels/kernels.h"
#include "engine/kv_view.h"

namespace perdure::engine {

// Positions of a softmax step, from a multiple of it on: part of what a result is.
inline constexpr int kAttentionBlock = 2 * kPageTokens;
// Floats from a query to the next: a constant, so that a tile addresses its rows by displacement,
// and no power of two, so that they lie in different sets of the cache.
inline constexpr int kQueryStride = limits::kHeadDimMax + 16;

// Offsets in floats, each a multiple of 16.
struct AttentionScratch {
  size_t padded;   // head_dim in whole panels
  size_t wide;     // K of a page or V of a block in f32
  size_t queries;  // [query][kQueryStride]
  size_t out;      // [query][padded]
  size_t scores;   // [query][kAttentionBlock]
  size_t sums;     // [query][16]
  size_t maxima;   // [query]
  size_t floats;   // in all
};

constexpr AttentionScratch LayOutAttention(int head_dim) {
  constexpr size_t kQueries = kAttentionQueries;
  AttentionScratch s{};
  s.padded = (size_t(head_dim) + kPanelWidth - 1) / kPanelWidth * kPanelWidth;
  s.queries = s.wide + kAttentionBlock * s.padded;
  s.out = s.queries + kQueries * kQueryStride;
  s.scores = s.out + kQueries * s.padded;
  s.sums = s.scores + kQueries * kAttentionBlock;
  s.maxima = s.sums + kQueries * 16;
  s.floats = s.maxima + kQueries;
  return s;
}
static_assert(kAttentionQueries % 16 == 0 && kQueryStride % 16 == 0);

}  // namespace perdure::engine
