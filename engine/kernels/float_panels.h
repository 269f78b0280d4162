// Panels to f32, and products with few rows straight from them. Written once over the 16-lane
// `Simd` of the including file.
#pragma once

#include "engine/kernels/lanes.h"

namespace perdure::engine {
namespace {

// A reader walks down one panel: Group() every layout.group rows of K (where there are groups),
// Step() every kStep rows, Get(j) for the j-th of them.
struct F32Reader {
  static constexpr int kStep = 1;
  const float* p;
  PERDURE_INLINE void Begin(const PanelLayout&, const std::byte* panel) {
    p = reinterpret_cast<const float*>(panel);
  }
  PERDURE_INLINE void Group(const PanelLayout&) {}
  PERDURE_INLINE void Step() {}
  PERDURE_INLINE void Get(int, F& w0, F& w1) {
    w0 = Simd::Load(p);
    w1 = Simd::Load(p + 16);
  }
  PERDURE_INLINE void Next() { p += 32; }
};

struct F16Reader {
  static constexpr int kStep = 1;
  const uint16_t* p;
  PERDURE_INLINE void Begin(const PanelLayout&, const std::byte* panel) {
    p = reinterpret_cast<const uint16_t*>(panel);
  }
  PERDURE_INLINE void Group(const PanelLayout&) {}
  PERDURE_INLINE void Step() {}
  PERDURE_INLINE void Get(int, F& w0, F& w1) {
    w0 = Simd::LoadF16(p);
    w1 = Simd::LoadF16(p + 16);
  }
  PERDURE_INLINE void Next() { p += 32; }
};

struct Bf16Reader {
  static constexpr int kStep = 1;
  const uint32_t* p;
  PERDURE_INLINE void Begin(const PanelLayout&, const std::byte* panel) {
    p = reinterpret_cast<const uint32_t*>(panel);
  }
  PERDURE_INLINE void Group(const PanelLayout&) {}
  PERDURE_INLINE void Step() {}
  PERDURE_INLINE void Get(int, F& w0, F& w1) {
    const Simd::W words = Simd::LoadWords(p);
    w0 = Simd::LowHalf(words);
    w1 = Simd::HighHalf(words);
  }
  PERDURE_INLINE void Next() { p += 16; }
};

PERDURE_INLINE F LoadScale(ScaleType type, const std::byte* p, int index) {
  switch (type) {
    case ScaleType::kF32:
      return Simd::Load(reinterpret_cast<const float*>(p) + index);
    case ScaleType::kF16:
      return Simd::LoadF16(reinterpret_cast<const uint16_t*>(p) + index);
    case ScaleType::kBf16:
      return Simd::LoadBf16(reinterpret_cast<const uint16_t*>(p) + index);
  }
  __builtin_unreachable();
}

struct QuantizedReader {
  const std::byte* p;
  F scale0, scale1, bias0, bias1;
  PERDURE_INLINE void Begin(const PanelLayout&, const std::byte* panel) { p = panel; }
  PERDURE_INLINE void Group(const PanelLayout& layout) {
    scale0 = LoadScale(layout.scale_type, p, 0);
    scale1 = LoadScale(layout.scale_type, p, 16);
    bias0 = LoadScale(layout.scale_type, p, 32);
    bias1 = LoadScale(layout.scale_type, p, 48);
    p += layout.group_header_bytes;
  }
};

struct Q8Reader : QuantizedReader {
  static constexpr int kStep = 8;
  PERDURE_INLINE void Step() {}
  PERDURE_INLINE void Get(int j, F& w0, F& w1) {
    const std::byte* words = p + j % 2 * 128;
    w0 = Simd::Fma(scale0, Simd::Byte(Simd::LoadWords(words), j / 2), bias0);
    w1 = Simd::Fma(scale1, Simd::Byte(Simd::LoadWords(words + 64), j / 2), bias1);
  }
  PERDURE_INLINE void Next() { p += 256; }
};

struct Q4Reader : QuantizedReader {
  static constexpr int kStep = 8;
  Simd::W words0, words1;
  PERDURE_INLINE void Step() {
    words0 = Simd::LoadWords(p);
    words1 = Simd::LoadWords(p + 64);
  }
  PERDURE_INLINE void Get(int j, F& w0, F& w1) {
    w0 = Simd::Fma(scale0, Simd::Nibble(words0, j), bias0);
    w1 = Simd::Fma(scale1, Simd::Nibble(words1, j), bias1);
  }
  PERDURE_INLINE void Next() { p += 128; }
};

// Exact but for overflow: a scale is a power of two.
struct Mxfp4Reader {
  static constexpr int kStep = 8;
  const std::byte* p;
  F scale0, scale1;
  Simd::W words0, words1;
  PERDURE_INLINE void Begin(const PanelLayout&, const std::byte* panel) { p = panel; }
  PERDURE_INLINE void Group(const PanelLayout& layout) {
    const auto* scales = reinterpret_cast<const uint8_t*>(p);
    scale0 = Simd::LoadE8M0(scales);
    scale1 = Simd::LoadE8M0(scales + 16);
    p += layout.group_header_bytes;
  }
  PERDURE_INLINE void Step() {
    words0 = Simd::LoadWords(p);
    words1 = Simd::LoadWords(p + 64);
  }
  PERDURE_INLINE void Get(int j, F& w0, F& w1) {
    w0 = Simd::Mul(scale0, Simd::E2M1(words0, j));
    w1 = Simd::Mul(scale1, Simd::E2M1(words1, j));
  }
  PERDURE_INLINE void Next() { p += 128; }
};

// Calls fn(Reader{}) for the layout's format.
template <class Fn>
PERDURE_INLINE void WithReader(const PanelLayout& layout, Fn fn) {
  switch (layout.format) {
    case PanelFormat::kF32:
      return fn(F32Reader{});
    case PanelFormat::kF16:
      return fn(F16Reader{});
    case PanelFormat::kBf16:
      return fn(Bf16Reader{});
    case PanelFormat::kQ8:
      return fn(Q8Reader{});
    case PanelFormat::kQ4:
      return fn(Q4Reader{});
    case PanelFormat::kMxfp4:
      return fn(Mxfp4Reader{});
  }
}

// Bytes of the rows before k0.
PERDURE_INLINE size_t RowOffset(const PanelLayout& layout, int k0) {
  return layout.group > 0 ? size_t(k0 / layout.group) * layout.group_bytes
                          : layout.panel_bytes / size_t(layout.k) * size_t(k0);
}

template <class Reader>
void UnpackRows(const PanelLayout& layout, const std::byte* rows, int count, float* out) {
  Reader reader;
  reader.Begin(layout, rows);
  const int group = layout.group > 0 ? layout.group : count;
  for (int k = 0; k < count; k += group) {
    reader.Group(layout);
    for (int i = 0; i < group; i += Reader::kStep) {
      reader.Step();
#pragma GCC unroll 8
      for (int j = 0; j < Reader::kStep; ++j) {
        F w0, w1;
        reader.Get(j, w0, w1);
        Simd::Store(out, w0);
        Simd::Store(out + 16, w1);
        out += kPanelWidth;
      }
      reader.Next();
    }
  }
}

void Unpack(const PanelLayout& layout, const std::byte* panel, int k0, int k1, float* out) {
  const std::byte* rows = panel + RowOffset(layout, k0);
  WithReader(
      layout, [&](auto reader) __attribute__((always_inline)) {
        UnpackRows<decltype(reader)>(layout, rows, k1 - k0, out);
      });
}

// Panels [0, P) with exactly R rows. If `fetch`, what lies so far behind is fetched to L2: in the
// same panels, then in those that come after them.
template <class Reader, int R, int P>
void DirectCore(const PanelLayout& layout, const std::byte* panel, const float* a, ptrdiff_t lda,
                float* c, ptrdiff_t ldc, bool fetch) {
  Reader reader[P];
  F acc[P][R][2];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    reader[p].Begin(layout, panel + p * layout.panel_bytes);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) acc[p][r][0] = acc[p][r][1] = Simd::Zero();
  }
  const size_t panel_bytes = layout.panel_bytes;
  const size_t step_bytes = fetch ? panel_bytes * Reader::kStep / size_t(layout.k) : 0;
  size_t fetched = kFetchAhead / P, due = fetched;
  const int group = layout.group > 0 ? layout.group : layout.k;
  for (int k = 0; k < layout.k; k += group) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) reader[p].Group(layout);
    for (int i = k; i < k + group; i += Reader::kStep) {
      // A line or two at a time: a burst would hold up the loads from L2 behind it.
      for (due += step_bytes; fetched < due; fetched += 64) {
        const std::byte* at = panel + fetched + (fetched < panel_bytes ? 0 : (P - 1) * panel_bytes);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) Simd::FetchToL2(at + p * panel_bytes);
      }
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) reader[p].Step();
#pragma GCC unroll 12
      for (int j = 0; j < Reader::kStep; ++j) {
        F w[P][2];
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) reader[p].Get(j, w[p][0], w[p][1]);
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
          const F x = Simd::Set1(a[r * lda + i + j]);
#pragma GCC unroll 4
          for (int p = 0; p < P; ++p) {
            acc[p][r][0] = Simd::Fma(x, w[p][0], acc[p][r][0]);
            acc[p][r][1] = Simd::Fma(x, w[p][1], acc[p][r][1]);
          }
        }
      }
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) reader[p].Next();
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      Simd::Store(c + r * ldc + p * kPanelWidth, acc[p][r][0]);
      Simd::Store(c + r * ldc + p * kPanelWidth + 16, acc[p][r][1]);
    }
}

// Panels that a core of R rows takes at once: enough independent sums to hide the latency of a
// multiply-add, as far as registers go. Quantized weights take registers themselves.
template <class Reader, int R>
constexpr int DirectPanels() {
  constexpr int kFit = Simd::kDirectVectors / (2 * R + 2), kMost = Reader::kStep == 1 ? 4 : 2;
  return kFit >= 4 && kMost >= 4 ? 4 : kFit >= 2 ? 2 : 1;
}

// Exactly `rows` ≤ R rows of `panels` panels.
template <class Reader, int R>
void DirectRows(const PanelLayout& layout, const std::byte* panel, int panels, const float* a,
                ptrdiff_t lda, int rows, float* c, ptrdiff_t ldc, bool fetch) {
  if constexpr (R > 1) {
    if (rows < R)
      return DirectRows<Reader, R - 1>(layout, panel, panels, a, lda, rows, c, ldc, fetch);
  }
  constexpr int P = DirectPanels<Reader, R>();
  int p = 0;
  for (; p + P <= panels; p += P)
    DirectCore<Reader, R, P>(layout, panel + p * layout.panel_bytes, a, lda, c + p * kPanelWidth,
                             ldc, fetch);
  for (; p < panels; ++p)
    DirectCore<Reader, R, 1>(layout, panel + p * layout.panel_bytes, a, lda, c + p * kPanelWidth,
                             ldc, fetch);
}

void Direct(const PanelLayout& layout, const std::byte* panel, int panels, const float* a,
            ptrdiff_t lda, int rows, float* c, ptrdiff_t ldc) {
  constexpr int kRows = Simd::kDirectRows;
  // Blocks of rows of about the same size; with several, panel by panel, which L2 holds meanwhile.
  const int blocks = (rows + kRows - 1) / kRows;
  const int at_once = blocks == 1 ? panels : 1;
  WithReader(
      layout, [&](auto reader) __attribute__((always_inline)) {
        for (int p = 0; p < panels; p += at_once)
          for (int block = 0; block < blocks; ++block) {
            const int begin = rows * block / blocks, end = rows * (block + 1) / blocks;
            DirectRows<decltype(reader), kRows>(layout, panel + p * layout.panel_bytes, at_once,
                                                a + begin * lda, lda, end - begin,
                                                c + begin * ldc + p * kPanelWidth, ldc, block == 0);
          }
      });
}

}  // namespace
}  // namespace perdure::engine
