// Causal attention over pages of binary16. Written once over the 16-lane `Simd` of the including file.
#pragma once

#include "engine/kernels/elementwise.h"
#include "engine/kernels/float_tile.h"

namespace perdure::engine {
namespace {

// rows × n binary16 at stride `n` to f32 at stride `padded`, the padding zero.
void WidenF16(const uint16_t* from, int rows, int n, float* to, int padded) {
  for (int r = 0; r < rows; ++r, from += n, to += padded) {
    int i = 0;
    for (; i + 16 <= n; i += 16) Simd::Store(to + i, Simd::LoadF16(from + i));
    if (i == padded) continue;
    uint16_t tail[16] = {};
    for (int j = 0; j < 16 && i + j < n; ++j) tail[j] = from[i + j];
    Simd::Store(to + i, Simd::LoadF16(tail));
    if (i + 16 < padded) Simd::Store(to + i + 16, Simd::Zero());
  }
}

// One query, one block: scores become weights (zero before `from` and from `valid` on), the running
// maximum and sum move on, what was summed so far is rescaled.
PERDURE_INLINE void SoftmaxStep(float* scores, int from, int valid, float* maximum, float* sum,
                                float* out, int padded) {
  const F minus_infinity = Simd::Set1(-__builtin_inff());
  F s0 = Simd::SelectFirst(Simd::Load(scores), minus_infinity, valid);
  F s1 = Simd::SelectFirst(Simd::Load(scores + 16), minus_infinity, valid - 16);
  if (from > 0) {
    s0 = Simd::SelectFirst(minus_infinity, s0, from);
    s1 = Simd::SelectFirst(minus_infinity, s1, from - 16);
  }
  const float block = Simd::ReduceMax(Simd::Max(s0, s1));
  const float before = *maximum;
  const float now = block > before ? block : before;
  const F pivot = Simd::Set1(now);
  const F p0 = Exp(Simd::Sub(s0, pivot)), p1 = Exp(Simd::Sub(s1, pivot));
  Simd::Store(scores, p0);
  Simd::Store(scores + 16, p1);
  const float added = Simd::ReduceAdd(Simd::Add(p0, p1));
  if (now == before) {  // the factor would be exactly 1
    *sum = *sum + added;
    return;
  }
  float factors[16];
  Simd::Store(factors, Exp(Simd::Set1(before - now)));
  *maximum = now;
  *sum = *sum * factors[0] + added;
  const F factor = Simd::Set1(factors[0]);
  for (int i = 0; i < padded; i += 16) Simd::Store(out + i, Simd::Mul(Simd::Load(out + i), factor));
}

// The first position that a query at `position` sees.
PERDURE_INLINE int SeesFrom(const AttentionTile& t, int position) {
  return t.window > 0 && position >= t.window ? position - t.window + 1 : 0;
}

void Attend(const AttentionTile& t, float* scratch) {
  const int head_dim = t.head_dim;
  const int padded = (head_dim + 31) / 32 * 32;
  const int queries = t.rows * t.group;
  constexpr int kCapacity = kAttentionQueries + kTileRows;
  float* keys = scratch;
  float* values = keys + padded * kPanelWidth;
  float* packed_q = values + padded * kPanelWidth;
  float* out = packed_q + kCapacity * padded;
  float* scores = out + kCapacity * padded;
  float* maximum = scores + kCapacity * kPanelWidth;
  float* sum = maximum + kCapacity;

  for (int first = 0; first < queries; first += kTileRows) {
    float* tile = packed_q + first * padded;
    for (int r = 0; r < kTileRows; ++r) {
      const int query = first + r;
      if (query >= queries) {
        for (int i = 0; i < head_dim; ++i) tile[i * kTileRows + r] = 0.0f;
        continue;
      }
      const float* q = t.q + (query / t.group) * t.q_stride + (query % t.group) * head_dim;
      for (int i = 0; i < head_dim; ++i) tile[i * kTileRows + r] = q[i] * t.scale;
    }
  }
  for (int query = 0; query < queries; ++query) {
    maximum[query] = -__builtin_inff();
    sum[query] = 0.0f;
    for (int i = 0; i < padded; i += 16) Simd::Store(out + query * padded + i, Simd::Zero());
  }

  const int last = t.start + t.rows - 1;
  for (int block = SeesFrom(t, t.start) / kPanelWidth; block <= last / kPanelWidth; ++block) {
    const int base = block * kPanelWidth;
    const int filled = last - base + 1 < kPanelWidth ? last - base + 1 : kPanelWidth;
    const auto* k16 = reinterpret_cast<const uint16_t*>(t.pages[block] + t.head_offset);
    const uint16_t* v16 = k16 + ptrdiff_t(head_dim) * kPanelWidth;
    WidenF16(k16, head_dim, kPanelWidth, keys, kPanelWidth);
    WidenF16(v16, filled, head_dim, values, padded);
    for (int first = 0; first < queries; first += kTileRows) {
      const int rows = queries - first < kTileRows ? queries - first : kTileRows;
      // No query of this tile sees the block: all lie before it, or their windows behind it.
      if (t.start + (first + rows - 1) / t.group < base ||
          SeesFrom(t, t.start + first / t.group) >= base + kPanelWidth)
        continue;
      float* tile_scores = scores + first * kPanelWidth;
      float* tile_out = out + first * padded;
      TileAny<kTileRows, 1>(packed_q + first * padded, keys, kPanelWidth, head_dim, rows,
                            tile_scores, kPanelWidth, false);
      for (int r = 0; r < rows; ++r) {
        const int position = t.start + (first + r) / t.group;
        const int from = SeesFrom(t, position) - base, valid = position - base + 1;
        float* row = tile_scores + r * kPanelWidth;
        if (valid <= 0 || from >= kPanelWidth) {
          Simd::Store(row, Simd::Zero());
          Simd::Store(row + 16, Simd::Zero());
        } else {
          SoftmaxStep(row, from, valid, maximum + first + r, sum + first + r, tile_out + r * padded,
                      padded);
        }
      }
      // Weights of positions that a query does not see are zero; they can change nothing but the
      // sign of a zero, which the last addition below makes positive.
      for (int i = 0; i < padded; i += kPanelWidth)
        TileAny<1, kPanelWidth>(tile_scores, values + i, padded, filled, rows, tile_out + i, padded,
                                true);
    }
  }

  for (int query = 0; query < queries; ++query) {
    const F inverse = Simd::Set1(1.0f / sum[query]);
    float* to = t.out + (query / t.group) * t.out_stride + (query % t.group) * head_dim;
    for (int i = 0; i < head_dim; i += 16) {
      const F o = Simd::Mul(Simd::Load(out + query * padded + i), inverse);
      Simd::StoreFirst(to + i, Simd::Add(o, Simd::Zero()), head_dim - i);
    }
  }
}

}  // namespace
}  // namespace perdure::engine
