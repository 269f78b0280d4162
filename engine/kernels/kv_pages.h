// Keys and values of a page: quantized, and widened to f32. Written once over the 16-lane `Simd` of
// the including file.
#pragma once

#include "engine/kernels/elementwise.h"
#include "engine/kv_view.h"

namespace perdure::engine {
namespace {

// From a group's scales to its biases, and from a group to the next, in numbers.
constexpr ptrdiff_t kKvBias = kPageTokens, kKvParams = 2 * kPageTokens;

// Scale and bias are rounded first, and codes chosen for what they have become.
void QuantizeKv(const float* x, int n, int bits, uint8_t* codes, uint16_t* params) {
  const float levels = bits == 8 ? 255.0f : 15.0f;
  const F infinity = Simd::Set1(__builtin_inff());
  // Adding it leaves the integer nearest to a small number in the low bits, ties to even.
  const F origin = Simd::Set1(0x1.8p23f), last = Simd::Set1(0x1.8p23f + levels);
  for (int begin = 0; begin < n; begin += kKvGroup, params += kKvParams) {
    const int end = n - begin < kKvGroup ? n : begin + kKvGroup;
    F low = infinity, high = Simd::Sub(Simd::Zero(), infinity);
    for (int i = begin; i < end; i += 16) {
      const F v = ClampToF16(Simd::LoadFirst(x + i, end - i));
      low = Simd::Min(low, Simd::SelectFirst(v, low, end - i));
      high = Simd::Max(high, Simd::SelectFirst(v, high, end - i));
    }
    const float least = -Simd::ReduceMax(Simd::Sub(Simd::Zero(), low));
    const float range = Simd::ReduceMax(high) - least;
    // Adding zero makes the sign of a zero positive.
    alignas(64) const float exact[16] = {range / levels, least + 0.0f};
    alignas(64) float stored[16];
    uint16_t halves[16];
    Simd::StoreF16(halves, Simd::Load(exact));
    Simd::Store(stored, Simd::LoadF16(halves));
    params[0] = halves[0];
    params[kKvBias] = halves[1];
    const F bias = Simd::Set1(stored[1]);
    const F inverse = Simd::Set1(stored[0] > 0.0f ? 1.0f / stored[0] : 0.0f);
    for (int i = begin; i < end; i += 16) {
      const F v = Simd::Sub(ClampToF16(Simd::LoadFirst(x + i, end - i)), bias);
      Simd::StoreBytes(codes + i,
                       Simd::Min(Simd::Max(Simd::Fma(v, inverse, origin), origin), last));
    }
  }
}

PERDURE_INLINE const uint16_t* HalvesAt(const std::byte* p) {
  return reinterpret_cast<const uint16_t*>(p);
}
PERDURE_INLINE const uint8_t* BytesAt(const std::byte* p) {
  return reinterpret_cast<const uint8_t*>(p);
}

// K of a block to [head_dim][32]. What lies `ahead` bytes behind is fetched to L2, if not zero.
void WidenKeys(KvPrecision precision, int head_dim, const std::byte* head, ptrdiff_t ahead,
               float* to) {
  if (precision == KvPrecision::kF16) {
    const uint16_t* keys = HalvesAt(head);
    for (int i = 0; i < head_dim * kPageTokens; i += 16)
      Simd::Store(to + i, Simd::LoadF16(keys + i));
    return;
  }
  const uint16_t* params = HalvesAt(head + KvHeadLayout::Of(precision, head_dim).key_params);
  const uint8_t* row = BytesAt(head);
  const int in_byte = precision == KvPrecision::kQ8 ? 1 : 2;
  for (int begin = 0; begin < head_dim; begin += kKvGroup, params += kKvParams) {
    const int end = head_dim - begin < kKvGroup ? head_dim : begin + kKvGroup;
    const F scale0 = Simd::LoadF16(params), scale1 = Simd::LoadF16(params + 16);
    const F bias0 = Simd::LoadF16(params + kKvBias), bias1 = Simd::LoadF16(params + kKvBias + 16);
    for (int d = begin; d < end; d += in_byte, row += kPageTokens) {
      if (ahead != 0 && (d / in_byte) % 2 == 0) Simd::FetchToL2(row + ahead);
      const Simd::W codes0 = Simd::LoadBytes(row), codes1 = Simd::LoadBytes(row + 16);
      float* at = to + ptrdiff_t(d) * kPageTokens;
      if (precision == KvPrecision::kQ8) {
        Simd::Store(at, Simd::Fma(Simd::Byte(codes0, 0), scale0, bias0));
        Simd::Store(at + 16, Simd::Fma(Simd::Byte(codes1, 0), scale1, bias1));
        continue;
      }
      Simd::Store(at, Simd::Fma(Simd::Nibble(codes0, 0), scale0, bias0));
      Simd::Store(at + 16, Simd::Fma(Simd::Nibble(codes1, 0), scale1, bias1));
      if (d + 1 == end) break;
      Simd::Store(at + 32, Simd::Fma(Simd::Nibble(codes0, 1), scale0, bias0));
      Simd::Store(at + 48, Simd::Fma(Simd::Nibble(codes1, 1), scale1, bias1));
    }
  }
}

// V of the first `rows` positions: 32 numbers from i on of position r to
// to[r · row_stride + i / 32 · panel_stride]. Padding is finite.
struct WideValues {
  float* to;
  ptrdiff_t row_stride, panel_stride;
};

PERDURE_INLINE void WidenHalves(const uint16_t* from, int rows, int n, const WideValues& wide) {
  for (int r = 0; r < rows; ++r, from += n) {
    float* at = wide.to + r * wide.row_stride;
    for (int i = 0; i < n; i += kPanelWidth, at += wide.panel_stride) {
      if (i + kPanelWidth <= n) {
        Simd::Store(at, Simd::LoadF16(from + i));
        Simd::Store(at + 16, Simd::LoadF16(from + i + 16));
        continue;
      }
      uint16_t tail[kPanelWidth] = {};
      for (int j = 0; i + j < n; ++j) tail[j] = from[i + j];
      Simd::Store(at, Simd::LoadF16(tail));
      Simd::Store(at + 16, Simd::LoadF16(tail + 16));
    }
  }
}

template <bool kBytes>
PERDURE_INLINE void WidenCodes(const uint8_t* codes, const uint16_t* params, int rows, int n,
                               ptrdiff_t ahead, const WideValues& wide) {
  const ptrdiff_t panels = (n + kPanelWidth - 1) / kPanelWidth;
  constexpr ptrdiff_t kPanelBytes = kBytes ? kPanelWidth : kPanelWidth / 2;
  constexpr ptrdiff_t kGroupPanels = kKvGroup / kPanelWidth;
  for (ptrdiff_t panel = 0; panel < panels; panel += kGroupPanels, params += kKvParams) {
    alignas(64) float scales[kPageTokens], biases[kPageTokens];
    for (int i = 0; i < kPageTokens; i += 16) {
      Simd::Store(scales + i, Simd::LoadF16(params + i));
      Simd::Store(biases + i, Simd::LoadF16(params + kKvBias + i));
    }
    const ptrdiff_t end = panels - panel < kGroupPanels ? panels : panel + kGroupPanels;
    for (int r = 0; r < rows; ++r) {
      const F scale = Simd::Set1(scales[r]), bias = Simd::Set1(biases[r]);
      const ptrdiff_t offset = (r * panels + panel) * kPanelBytes;
      const uint8_t* row = codes + offset;
      if (ahead != 0 && (kBytes || offset % 64 < 32)) Simd::FetchToL2(row + ahead);
      for (ptrdiff_t p = panel; p < end; ++p, row += kPanelBytes) {
        float* at = wide.to + r * wide.row_stride + p * wide.panel_stride;
        const Simd::W first = Simd::LoadBytes(row);
        const F second = kBytes ? Simd::Byte(Simd::LoadBytes(row + kPanelBytes - 16), 0)
                                : Simd::Nibble(first, 1);
        Simd::Store(at,
                    Simd::Fma(kBytes ? Simd::Byte(first, 0) : Simd::Nibble(first, 0), scale, bias));
        Simd::Store(at + 16, Simd::Fma(second, scale, bias));
      }
    }
  }
}

void WidenValues(KvPrecision precision, int head_dim, const std::byte* head, int rows,
                 ptrdiff_t ahead, const WideValues& wide) {
  const KvHeadLayout layout = KvHeadLayout::Of(precision, head_dim);
  const uint16_t* params = HalvesAt(head + layout.value_params);
  if (precision == KvPrecision::kF16)
    WidenHalves(HalvesAt(head + layout.values), rows, head_dim, wide);
  else if (precision == KvPrecision::kQ8)
    WidenCodes<true>(BytesAt(head + layout.values), params, rows, head_dim, ahead, wide);
  else
    WidenCodes<false>(BytesAt(head + layout.values), params, rows, head_dim, ahead, wide);
}

}  // namespace
}  // namespace perdure::engine
