// Causal attention over pages. Written once over the 16-lane `Simd` of the including file.
//
// One query's result, whatever goes with it: scores are one chain of multiply-adds over head_dim.
// Blocks of kAttentionBlock absolute positions follow each other; a block's maximum moves the
// running one, what was summed so far is rescaled, weights add to 16 sums (position modulo 16),
// weighted values to one chain over positions.
#pragma once

#include "engine/kernels/attention_scratch.h"
#include "engine/kernels/elementwise.h"
#include "engine/kernels/float_tile.h"
#include "engine/kernels/kv_pages.h"

namespace perdure::engine {
namespace {

constexpr int kBlockPages = kAttentionBlock / kPageTokens;
static_assert(kPageTokens == kPanelWidth);
// Up to so many queries, K and V are widened in registers: less work than widening them once.
constexpr int kDirectQueriesMax = Simd::kSubRows;

PERDURE_INLINE int Larger(int a, int b) { return a > b ? a : b; }
PERDURE_INLINE int Smaller(int a, int b) { return a < b ? a : b; }

// The positions of a block that some query of the tile sees, or lie between those.
struct SeenBlock {
  int base;  // of the block: a multiple of kAttentionBlock
  int begin, end;
};

// Some of a tile's queries, and the positions that one of them sees: [0, keep) and [begin, end).
struct QueryRange {
  int first, count;
  int keep, begin, end;

  // Of [from, to) one is seen.
  bool Sees(int from, int to) const { return from < keep || (to > begin && from < end); }
};

struct AttentionWork {
  const AttentionTile& tile;
  ptrdiff_t padded;
  float *wide, *queries, *out, *scores, *sums, *maxima;

  AttentionWork(const AttentionTile& t, float* scratch) : tile(t) {
    const AttentionScratch s = LayOutAttention(t.head_dim);
    padded = ptrdiff_t(s.padded);
    wide = scratch + s.wide;
    queries = scratch + s.queries;
    out = scratch + s.out;
    scores = scratch + s.scores;
    sums = scratch + s.sums;
    maxima = scratch + s.maxima;
  }
  int Queries() const { return tile.rows * tile.group; }
  int PositionOf(int query) const { return tile.start + query / tile.group; }
  // The first position of its window that a query at `position` sees.
  int SeesFrom(int position) const {
    return tile.window > 0 && position >= tile.window ? position - tile.window + 1 : 0;
  }
  QueryRange Range(int first) const {
    const int left = Queries() - first, count = left < kTileRows ? left : kTileRows;
    const int end = PositionOf(first + count - 1) + 1;
    return {first, count, tile.keep < end ? tile.keep : end, SeesFrom(PositionOf(first)), end};
  }
  KvPrecision PrecisionOf(int page) const {
    return tile.precisions == nullptr ? KvPrecision::kF16 : tile.precisions[page];
  }
  const std::byte* Head(int page) const {
    return tile.pages[page] + tile.head * KvHeadLayout::Of(PrecisionOf(page), tile.head_dim).bytes;
  }
};

void BeginAttention(const AttentionWork& w) {
  const AttentionTile& t = w.tile;
  const F scale = Simd::Set1(t.scale);
  for (int query = 0; query < w.Queries(); ++query) {
    const float* q = t.q + (query / t.group) * t.q_stride + (query % t.group) * t.head_dim;
    float* to = w.queries + ptrdiff_t(query) * kQueryStride;
    for (int i = 0; i < t.head_dim; i += 16)
      Simd::Store(to + i, Simd::Mul(Simd::LoadFirst(q + i, t.head_dim - i), scale));
    for (int i = 0; i < w.padded; i += 16) Simd::Store(w.out + query * w.padded + i, Simd::Zero());
    Simd::Store(w.sums + query * 16, Simd::Zero());
    w.maxima[query] = -__builtin_inff();
  }
}

void EndAttention(const AttentionWork& w) {
  const AttentionTile& t = w.tile;
  for (int query = 0; query < w.Queries(); ++query) {
    const F inverse = Simd::Set1(1.0f / Simd::ReduceAdd(Simd::Load(w.sums + query * 16)));
    float* to = t.out + (query / t.group) * t.out_stride + (query % t.group) * t.head_dim;
    for (int i = 0; i < t.head_dim; i += 16) {
      // Adding zero makes the sign of a zero positive, whatever weights of zero left it.
      const F o = Simd::Mul(Simd::Load(w.out + query * w.padded + i), inverse);
      Simd::StoreFirst(to + i, Simd::Add(o, Simd::Zero()), t.head_dim - i);
    }
  }
}

// A query's scores of a block become weights: zero outside of columns [0, keep) and [from, to).
PERDURE_INLINE void SoftmaxRow(const AttentionWork& w, int query, int keep, int from, int to) {
  constexpr int kVectors = kAttentionBlock / 16;
  float* scores = w.scores + query * kAttentionBlock;
  F s[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) s[v] = Simd::Load(scores + 16 * v);
  if (from > 0 || to < kAttentionBlock) {
    const F minus_infinity = Simd::Set1(-__builtin_inff());
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const F kept = Simd::SelectFirst(s[v], minus_infinity, keep - 16 * v);
      s[v] = Simd::SelectFirst(s[v], minus_infinity, to - 16 * v);
      s[v] = Simd::SelectFirst(kept, s[v], from - 16 * v);
    }
  }
  const float block = Simd::ReduceMax(Simd::Max(Simd::Max(s[0], s[1]), Simd::Max(s[2], s[3])));
  F sum = Simd::Load(w.sums + query * 16);
  if (block > w.maxima[query]) {
    const F factor = ExpUpTo88(Simd::Set1(w.maxima[query] - block));
    w.maxima[query] = block;
    sum = Simd::Mul(sum, factor);
    float* out = w.out + query * w.padded;
    for (int i = 0; i < w.padded; i += 16)
      Simd::Store(out + i, Simd::Mul(Simd::Load(out + i), factor));
  }
  const F pivot = Simd::Set1(w.maxima[query]);
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    s[v] = ExpUpTo88(Simd::Sub(s[v], pivot));
    Simd::Store(scores + 16 * v, s[v]);
  }
  static_assert(kVectors == 4);
  sum = Simd::Add(sum, Simd::Add(Simd::Add(s[0], s[1]), Simd::Add(s[2], s[3])));
  Simd::Store(w.sums + query * 16, sum);
}

void SoftmaxBlock(const AttentionWork& w, const QueryRange& range, const SeenBlock& block) {
  for (int query = range.first; query < range.first + range.count; ++query) {
    const int position = w.PositionOf(query);
    const int from = w.SeesFrom(position) - block.base, to = position + 1 - block.base;
    const int keep = Smaller(w.tile.keep - block.base, to);
    if (to > 0 && (from < kAttentionBlock || keep > 0)) {
      SoftmaxRow(w, query, keep, from, to);
    } else {
      for (int i = 0; i < kAttentionBlock; i += 16)
        Simd::Store(w.scores + query * kAttentionBlock + i, Simd::Zero());
    }
  }
}

// Scores of a page for the queries that see some of it; those of others are left as they are.
template <class B>
PERDURE_INLINE void ScorePage(const AttentionWork& w, const QueryRange& range, int page,
                              const B* keys, ptrdiff_t ahead) {
  const int begin = page * kPageTokens;
  if (!range.Sees(begin, begin + kPageTokens)) return;
  const int vectors = range.end <= begin + 16 ? 1 : 2;
  TileAny<1, kQueryStride>(w.queries + ptrdiff_t(range.first) * kQueryStride, keys, kPageTokens,
                           w.tile.head_dim, range.count, vectors,
                           w.scores + range.first * kAttentionBlock + begin % kAttentionBlock,
                           kAttentionBlock, false, ahead);
}

// Adds the weighted values of positions [begin, end) of a block.
template <class B>
PERDURE_INLINE void AddValues(const AttentionWork& w, const QueryRange& range, int begin, int end,
                              const B* values, ptrdiff_t stride, int vectors, int column,
                              ptrdiff_t ahead) {
  TileAny<1, kAttentionBlock>(w.scores + range.first * kAttentionBlock + begin % kAttentionBlock,
                              values, stride, end - begin, range.count, vectors,
                              w.out + range.first * w.padded + column, w.padded, true, ahead);
}

// Few queries: straight from the pages, the next one on its way while one is worked on.
void AttendDirectly(const AttentionWork& w, const SeenBlock& block) {
  const QueryRange range = w.Range(0);
  const int head_dim = w.tile.head_dim;
  const int last = (w.PositionOf(w.Queries() - 1)) / kPageTokens;
  const auto ahead = [&](int page) {
    return page < last && w.tile.pages[page + 1] != nullptr ? w.Head(page + 1) - w.Head(page) : 0;
  };
  for (int page = block.begin / kPageTokens; page * kPageTokens < block.end; ++page) {
    const KvPrecision precision = w.PrecisionOf(page);
    if (precision == KvPrecision::kF16) {
      ScorePage(w, range, page, HalvesAt(w.Head(page)), ahead(page));
    } else {
      WidenKeys(precision, head_dim, w.Head(page), ahead(page), w.wide);
      ScorePage(w, range, page, w.wide, 0);
    }
  }
  SoftmaxBlock(w, range, block);
  for (int page = block.begin / kPageTokens; page * kPageTokens < block.end; ++page) {
    const KvPrecision precision = w.PrecisionOf(page);
    const int begin = page * kPageTokens, end = Smaller(begin + kPageTokens, block.end);
    if (precision == KvPrecision::kF16) {
      const KvHeadLayout layout = KvHeadLayout::Of(precision, head_dim);
      AddValues(w, range, begin, end, HalvesAt(w.Head(page) + layout.values), head_dim,
                head_dim / 16, 0, ahead(page));
    } else {
      WidenValues(precision, head_dim, w.Head(page), end - begin, ahead(page),
                  {w.wide, w.padded, kPanelWidth});
      AddValues(w, range, begin, end, w.wide, w.padded, head_dim / 16, 0, 0);
    }
  }
}

// Many queries: K page by page and V block by block are widened once for all of them.
void AttendWidened(const AttentionWork& w, const SeenBlock& block) {
  const int head_dim = w.tile.head_dim;
  for (int page = block.begin / kPageTokens; page * kPageTokens < block.end; ++page) {
    WidenKeys(w.PrecisionOf(page), head_dim, w.Head(page), 0, w.wide);
    for (int first = 0; first < w.Queries(); first += kTileRows)
      ScorePage(w, w.Range(first), page, w.wide, 0);
  }
  for (int first = 0; first < w.Queries(); first += kTileRows)
    SoftmaxBlock(w, w.Range(first), block);
  for (int page = block.begin / kPageTokens; page * kPageTokens < block.end; ++page) {
    const int begin = page * kPageTokens;
    WidenValues(w.PrecisionOf(page), head_dim, w.Head(page),
                Smaller(kPageTokens, block.end - begin), 0,
                {w.wide + begin % kAttentionBlock * kPanelWidth, kPanelWidth,
                 kAttentionBlock * kPanelWidth});
  }
  for (int column = 0; column < w.padded; column += kPanelWidth)
    for (int first = 0; first < w.Queries(); first += kTileRows) {
      const QueryRange range = w.Range(first);
      const int begin = block.begin < range.keep ? block.begin : Larger(range.begin, block.begin);
      const int end = Smaller(range.end, block.end);
      if (begin >= end || !range.Sees(block.begin, block.end)) continue;
      AddValues(w, range, begin, end,
                w.wide + (column * kAttentionBlock + begin % kAttentionBlock * kPanelWidth),
                kPanelWidth, kPanelWidth / 16, column, 0);
    }
}

void Attend(const AttentionTile& t, float* scratch) {
  const AttentionWork w(t, scratch);
  BeginAttention(w);
  const int end = t.start + t.rows, kept = Smaller(t.keep, end);
  // In whole pages; those between may be gone. A block is two pages: one that both reach into has
  // none between.
  static_assert(kBlockPages == 2);
  const int kept_end = Smaller((kept + kPageTokens - 1) / kPageTokens * kPageTokens, end);
  const int first = w.SeesFrom(t.start) / kPageTokens * kPageTokens;
  // Values in binary16 are read in whole vectors.
  const bool direct = w.Queries() <= kDirectQueriesMax && t.head_dim % 16 == 0;
  int base = kept > 0 ? 0 : first / kAttentionBlock * kAttentionBlock;
  while (base < end) {
    const int next = base + kAttentionBlock;
    const SeenBlock block{base, base < kept_end ? base : Larger(base, first),
                          Smaller(next, next > first ? end : kept_end)};
    direct ? AttendDirectly(w, block) : AttendWidened(w, block);
    base = next < kept_end ? next : Larger(next, first / kAttentionBlock * kAttentionBlock);
  }
  EndAttention(w);
}

}  // namespace
}  // namespace perdure::engine
