// The kernels, written once over the 16-lane `Simd` of the including file. Everything here has
// internal linkage and calls nothing inline from elsewhere: code that is compiled for one
// instruction set must not be merged with another file's.
#pragma once

#include "engine/kernels/kernels.h"

namespace perdure::engine {
namespace {

#define PERDURE_INLINE inline __attribute__((always_inline))

using F = Simd::F;

// --- Tiles ---------------------------------------------------------------------------------------

// c[R][16·C] (+)= a · b. Element (r, i) of a lies at a[i·kStepK + r·kStepR].
template <int R, int C, int kStepK, int kStepR>
PERDURE_INLINE void TileCore(const float* a, const float* b, ptrdiff_t ldb, int k, float* c,
                             ptrdiff_t ldc, bool accumulate) {
  F acc[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < C; ++v)
      acc[r][v] = accumulate ? Simd::Load(c + r * ldc + 16 * v) : Simd::Zero();
  for (int i = 0; i < k; ++i) {
    F weights[C];
#pragma GCC unroll 2
    for (int v = 0; v < C; ++v) weights[v] = Simd::Load(b + i * ldb + 16 * v);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const F x = Simd::Set1(a[i * kStepK + r * kStepR]);
#pragma GCC unroll 2
      for (int v = 0; v < C; ++v) acc[r][v] = Simd::Fma(x, weights[v], acc[r][v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < C; ++v) Simd::Store(c + r * ldc + 16 * v, acc[r][v]);
}

// The core for exactly `rows` ≤ R rows.
template <int R, int C, int kStepK, int kStepR>
void TileRows(const float* a, const float* b, ptrdiff_t ldb, int k, int rows, float* c,
              ptrdiff_t ldc, bool accumulate) {
  if (rows == R)
    TileCore<R, C, kStepK, kStepR>(a, b, ldb, k, c, ldc, accumulate);
  else if constexpr (R > 1)
    TileRows<R - 1, C, kStepK, kStepR>(a, b, ldb, k, rows, c, ldc, accumulate);
}

template <int kStepK, int kStepR>
PERDURE_INLINE void TileAny(const float* a, const float* b, ptrdiff_t ldb, int k, int rows,
                            float* c, ptrdiff_t ldc, bool accumulate) {
  constexpr int kRows = Simd::kSubRows;
  constexpr int kVectors = Simd::kSubVectors;
  for (int r = 0; r < rows; r += kRows)
    for (int v = 0; v < kPanelWidth / 16; v += kVectors)
      TileRows<kRows, kVectors, kStepK, kStepR>(a + r * kStepR, b + 16 * v, ldb, k,
                                                rows - r < kRows ? rows - r : kRows,
                                                c + r * ldc + 16 * v, ldc, accumulate);
}

void Tile(const float* a, const float* b, int k, int rows, float* c, ptrdiff_t ldc,
          bool accumulate) {
  TileAny<kTileRows, 1>(a, b, kPanelWidth, k, rows, c, ldc, accumulate);
}

void PackRows(const float* const* a, int rows, int k, float* out) {
  constexpr int kBlock = 64;  // columns whose 12 rows stay in L1
  for (int begin = 0; begin < k; begin += kBlock) {
    const int end = k - begin < kBlock ? k : begin + kBlock;
    for (int r = 0; r < kTileRows; ++r)
      for (int i = begin; i < end; ++i)
        out[ptrdiff_t(i) * kTileRows + r] = r < rows ? a[r][i] : 0.0f;
  }
}

// --- Panels --------------------------------------------------------------------------------------

// A reader walks down one panel: Group() every kGroup rows of K (where there are groups), Fetch()
// every kStep rows, Get(j) for the j-th of them.
struct F32Reader {
  static constexpr int kStep = 1;
  const float* p;
  PERDURE_INLINE void Begin(const PanelLayout&, const std::byte* panel) {
    p = reinterpret_cast<const float*>(panel);
  }
  PERDURE_INLINE void Group(const PanelLayout&) {}
  PERDURE_INLINE void Fetch() {
    Simd::Prefetch(p + 32 * 16);
    Simd::Prefetch(p + 32 * 16 + 16);
  }
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
  PERDURE_INLINE void Fetch() { Simd::Prefetch(p + 32 * 16); }
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
  PERDURE_INLINE void Fetch() { Simd::Prefetch(p + 16 * 16); }
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
  static constexpr int kStep = 1;
  PERDURE_INLINE void Fetch() { Simd::Prefetch(p + 1024); }
  PERDURE_INLINE void Get(int, F& w0, F& w1) {
    const auto* q = reinterpret_cast<const uint8_t*>(p);
    w0 = Simd::Fma(scale0, Simd::LoadU8(q), bias0);
    w1 = Simd::Fma(scale1, Simd::LoadU8(q + 16), bias1);
  }
  PERDURE_INLINE void Next() { p += 32; }
};

struct Q4Reader : QuantizedReader {
  static constexpr int kStep = 8;
  Simd::W words0, words1;
  PERDURE_INLINE void Fetch() {
    Simd::Prefetch(p + 1024);
    Simd::Prefetch(p + 1024 + 64);
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
  PERDURE_INLINE void Fetch() {
    Simd::Prefetch(p + 1024);
    Simd::Prefetch(p + 1024 + 64);
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
      reader.Fetch();
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

template <class Reader, int R, int P>
void DirectCore(const PanelLayout& layout, const std::byte* panel, const float* a, ptrdiff_t lda,
                float* c, ptrdiff_t ldc) {
  Reader reader[P];
  F acc[P][R][2];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
    reader[p].Begin(layout, panel + p * layout.panel_bytes);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) acc[p][r][0] = acc[p][r][1] = Simd::Zero();
  }
  const int group = layout.group > 0 ? layout.group : layout.k;
  for (int k = 0; k < layout.k; k += group) {
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) reader[p].Group(layout);
    for (int i = k; i < k + group; i += Reader::kStep) {
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) reader[p].Fetch();
#pragma GCC unroll 8
      for (int j = 0; j < Reader::kStep; ++j) {
        F x[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) x[r] = Simd::Set1(a[r * lda + i + j]);
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) {
          F w0, w1;
          reader[p].Get(j, w0, w1);
#pragma GCC unroll 4
          for (int r = 0; r < R; ++r) {
            acc[p][r][0] = Simd::Fma(x[r], w0, acc[p][r][0]);
            acc[p][r][1] = Simd::Fma(x[r], w1, acc[p][r][1]);
          }
        }
      }
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) reader[p].Next();
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      Simd::Store(c + r * ldc + p * kPanelWidth, acc[p][r][0]);
      Simd::Store(c + r * ldc + p * kPanelWidth + 16, acc[p][r][1]);
    }
}

// Several panels at once: enough independent sums to hide the latency of a multiply-add.
template <class Reader, int R, int P>
void DirectPanels(const PanelLayout& layout, const std::byte* panel, int panels, const float* a,
                  ptrdiff_t lda, float* c, ptrdiff_t ldc) {
  int p = 0;
  for (; p + P <= panels; p += P)
    DirectCore<Reader, R, P>(layout, panel + p * layout.panel_bytes, a, lda, c + p * kPanelWidth,
                             ldc);
  for (; p < panels; ++p)
    DirectCore<Reader, R, 1>(layout, panel + p * layout.panel_bytes, a, lda, c + p * kPanelWidth,
                             ldc);
}

void Direct(const PanelLayout& layout, const std::byte* panel, int panels, const float* a,
            ptrdiff_t lda, int rows, float* c, ptrdiff_t ldc) {
  WithReader(
      layout, [&](auto reader) __attribute__((always_inline)) {
        using Reader = decltype(reader);
        constexpr bool kGrouped = Reader::kStep == 8 || __is_base_of(QuantizedReader, Reader);
        switch (rows) {
          case 1:
            return DirectPanels < Reader, 1,
                   kGrouped ? 2 : 4 > (layout, panel, panels, a, lda, c, ldc);
          case 2:
            return DirectPanels<Reader, 2, 2>(layout, panel, panels, a, lda, c, ldc);
          case 3:
            return DirectPanels < Reader, 3,
                   kGrouped ? 1 : 2 > (layout, panel, panels, a, lda, c, ldc);
          case 4:
            return DirectPanels < Reader, 4,
                   kGrouped ? 1 : 2 > (layout, panel, panels, a, lda, c, ldc);
        }
      });
}

// --- Elementwise and norms -----------------------------------------------------------------------

// e^x, relative error below 2^-22; 0 below -86.5, e^88 above 88. Cody and Waite's reduction by
// multiples of ln 2, then 1 + r + r²·p(r) with p fitted to minimise the relative error.
PERDURE_INLINE F Exp(F x) {
  const F magic = Simd::Set1(0x1.8p23f);  // adding it rounds to an integer in the low bits
  x = Simd::Min(x, Simd::Set1(88.0f));
  const F shifted = Simd::Fma(x, Simd::Set1(0x1.715476p0f), magic);
  const F n = Simd::Sub(shifted, magic);
  F r = Simd::Fma(n, Simd::Set1(-0x1.62e4p-1f), x);
  r = Simd::Fma(n, Simd::Set1(-0x1.7f7d1cp-20f), r);
  F p = Simd::Set1(0x1.6a2348p-10f);
  p = Simd::Fma(p, r, Simd::Set1(0x1.123a6cp-7f));
  p = Simd::Fma(p, r, Simd::Set1(0x1.5558f4p-5f));
  p = Simd::Fma(p, r, Simd::Set1(0x1.555490p-3f));
  p = Simd::Fma(p, r, Simd::Set1(0x1.fffffcp-2f));
  const F one_plus_r = Simd::Add(r, Simd::Set1(1.0f));
  p = Simd::Fma(Simd::Mul(r, r), p, one_plus_r);
  return Simd::ZeroBelow(Simd::AddExponent(p, shifted), x, Simd::Set1(-86.5f));
}

void RmsNorm(const float* x, const float* weight, int n, float epsilon, float* y) {
  F sum = Simd::Zero();
  for (int i = 0; i < n; i += 16) {
    const F v = Simd::LoadFirst(x + i, n - i);
    sum = Simd::Fma(v, v, sum);
  }
  const float mean = Simd::ReduceAdd(sum) / static_cast<float>(n);
  const F scale = Simd::Set1(1.0f / Simd::Sqrt(mean + epsilon));
  for (int i = 0; i < n; i += 16) {
    const F v = Simd::Mul(Simd::LoadFirst(x + i, n - i), scale);
    Simd::StoreFirst(y + i, Simd::Mul(v, Simd::LoadFirst(weight + i, n - i)), n - i);
  }
}

void Rope(float* x, const float* cosines, const float* sines, int half) {
  for (int i = 0; i < half; i += 16) {
    const int n = half - i;
    const F a = Simd::LoadFirst(x + i, n), b = Simd::LoadFirst(x + half + i, n);
    const F c = Simd::LoadFirst(cosines + i, n), s = Simd::LoadFirst(sines + i, n);
    Simd::StoreFirst(x + i, Simd::Sub(Simd::Mul(a, c), Simd::Mul(b, s)), n);
    Simd::StoreFirst(x + half + i, Simd::Add(Simd::Mul(b, c), Simd::Mul(a, s)), n);
  }
}

PERDURE_INLINE int Left(size_t n, size_t i) { return n - i < 16 ? static_cast<int>(n - i) : 16; }

void AddTo(float* x, const float* y, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    const int left = Left(n, i);
    Simd::StoreFirst(x + i, Simd::Add(Simd::LoadFirst(x + i, left), Simd::LoadFirst(y + i, left)),
                     left);
  }
}

void AddScaled(float* x, const float* y, float factor, size_t n) {
  const F f = Simd::Set1(factor);
  for (size_t i = 0; i < n; i += 16) {
    const int left = Left(n, i);
    const F sum = Simd::Fma(f, Simd::LoadFirst(y + i, left), Simd::LoadFirst(x + i, left));
    Simd::StoreFirst(x + i, sum, left);
  }
}

void Softmax(float* x, int n) {
  const F minus_infinity = Simd::Set1(-__builtin_inff());
  F top = minus_infinity;
  for (int i = 0; i < n; i += 16)
    top = Simd::Max(top, Simd::SelectFirst(Simd::LoadFirst(x + i, n - i), minus_infinity, n - i));
  const F pivot = Simd::Set1(Simd::ReduceMax(top));
  F sum = Simd::Zero();
  for (int i = 0; i < n; i += 16) {
    const F power = Exp(Simd::Sub(Simd::LoadFirst(x + i, n - i), pivot));
    Simd::StoreFirst(x + i, power, n - i);
    sum = Simd::Add(sum, Simd::SelectFirst(power, Simd::Zero(), n - i));
  }
  const F total = Simd::Set1(Simd::ReduceAdd(sum));
  for (int i = 0; i < n; i += 16)
    Simd::StoreFirst(x + i, Simd::Div(Simd::LoadFirst(x + i, n - i), total), n - i);
}

void SiluMul(float* gate, const float* up, size_t n) {
  const F one = Simd::Set1(1.0f);
  for (size_t i = 0; i < n; i += 16) {
    const int left = Left(n, i);
    const F g = Simd::LoadFirst(gate + i, left);
    const F silu = Simd::Div(g, Simd::Add(one, Exp(Simd::Sub(Simd::Zero(), g))));
    Simd::StoreFirst(gate + i, Simd::Mul(silu, Simd::LoadFirst(up + i, left)), left);
  }
}

void ToF16(const float* x, uint16_t* y, size_t n) {
  const F low = Simd::Set1(-65504.0f), high = Simd::Set1(65504.0f);
  for (size_t i = 0; i < n; i += 16) {
    const int left = Left(n, i);
    const F v = Simd::Min(Simd::Max(Simd::LoadFirst(x + i, left), low), high);
    if (left == 16) {
      Simd::StoreF16(y + i, v);
    } else {
      uint16_t tail[16];
      Simd::StoreF16(tail, v);
      for (int j = 0; j < left; ++j) y[i + size_t(j)] = tail[j];
    }
  }
}

// --- Attention -----------------------------------------------------------------------------------

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

constexpr Kernels MakeKernels(Isa isa) {
  return {.isa = isa,
          .unpack = Unpack,
          .tile = Tile,
          .direct = Direct,
          .pack_rows = PackRows,
          .rms_norm = RmsNorm,
          .rope = Rope,
          .add = AddTo,
          .add_scaled = AddScaled,
          .silu_mul = SiluMul,
          .softmax = Softmax,
          .to_f16 = ToF16,
          .attend = Attend};
}

#undef PERDURE_INLINE

}  // namespace
}  // namespace perdure::engine
