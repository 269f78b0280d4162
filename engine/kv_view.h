// Where a sequence's keys and values lie. The engine reads and writes through views; who owns the
// memory (a private mapping, a shared arena) is not its business.
//
// A page holds kPageTokens consecutive positions of all layers: [layer][kv_head] blocks, whose
// parts KvHeadLayout places. K is stored transposed (positions are the fast axis), so that scores
// of one query against a block of positions are vectorized over positions and no sum over head_dim
// is ever split. D: head_dim, D32: in whole 32s, G: groups of kKvGroup along it, the last may be
// shorter.
//
//   kF16  K [D][32] binary16, V [32][D] binary16
//   kQ8   K [D][32] bytes, V [32][D32] bytes
//   kQ4   K [D / 2][32] bytes, the even row in the low nibbles; V [32][D32 / 32][16] bytes, of 32
//         numbers the first 16 in the low nibbles
// and for kQ8 and kQ4 the parameters of K, then of V: [G][scale, bias][32] binary16. A number is
// code · scale + bias, in one rounding; both belong to a position and a group.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace perdure::engine {

inline constexpr int kPageTokens = 32;
inline constexpr int kKvGroup = 64;

enum class KvPrecision : uint8_t { kF16, kQ8, kQ4 };

// Bytes from the begin of a block, each a multiple of 64. Inlined everywhere, as it is compiled
// for several instruction sets.
struct KvHeadLayout {
  size_t values = 0;
  size_t key_params = 0, value_params = 0;  // but for kF16
  size_t bytes = 0;                         // of the block

  __attribute__((always_inline)) static constexpr KvHeadLayout Of(KvPrecision precision,
                                                                  int head_dim) {
    const auto dim = static_cast<size_t>(head_dim);
    constexpr size_t kTokens = kPageTokens;
    if (precision == KvPrecision::kF16)
      return {.values = 2 * dim * kTokens, .bytes = 4 * dim * kTokens};
    const size_t in_byte = precision == KvPrecision::kQ8 ? 1 : 2;
    const size_t params = (dim + kKvGroup - 1) / kKvGroup * 4 * kTokens;
    KvHeadLayout layout;
    // K in whole pairs of rows, so that two of them are a line.
    layout.values = (dim + 2 * in_byte - 1) / (2 * in_byte) * 2 * kTokens;
    layout.key_params = layout.values + (dim + 31) / 32 * 32 / in_byte * kTokens;
    layout.value_params = layout.key_params + params;
    layout.bytes = layout.value_params + params;
    return layout;
  }
};

struct KvShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;

  size_t HeadBytes(KvPrecision precision = KvPrecision::kF16) const {
    return KvHeadLayout::Of(precision, head_dim).bytes;
  }
  size_t PageBytes(KvPrecision precision = KvPrecision::kF16) const {
    return HeadBytes(precision) * static_cast<size_t>(kv_heads) * static_cast<size_t>(layers);
  }
  static int PagesFor(int tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }
};

// What of its past a position sees: all of it, or the first `keep` and the last `size - keep`
// positions, its own among these (keep < size).
struct KvRetention {
  int from = 0;  // the first position it holds for, up to the next one's
  int keep = 0;
  int size = 0;  // 0: all
};

// pages[i] holds positions [i·kPageTokens, (i+1)·kPageTokens), aligned to 64 bytes. The view must
// stay valid and unshared with another writer for the duration of a step.
struct KvView {
  std::span<std::byte* const> pages;
  std::span<const KvPrecision> precisions = {};  // of each page; empty: all are kF16
  // By ascending `from`; positions before the first see all. Pages that are not seen any more may
  // be null.
  std::span<const KvRetention> retentions = {};

  KvPrecision PrecisionOf(size_t page) const {
    return precisions.empty() ? KvPrecision::kF16 : precisions[page];
  }
  KvRetention RetentionAt(int position) const {
    KvRetention retention;
    for (const KvRetention& each : retentions)
      if (each.from <= position) retention = each;
    return retention;
  }
};

}  // namespace perdure::engine
