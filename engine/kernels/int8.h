// Products of activations in 8 bits with quantized panels. Written once over the 16-lane `Simd` of
// the including file.
//
// A weight is s·u + b with u an unsigned byte, an activation d·q. Over a group of K with one s, b
// and d, in this order for every output, groups ascending:
//   sum = Σ u·q                      (an integer)
//   acc = fma(s·sum, d, acc)         (s·sum rounded once where s has 16 bits)
//   acc = fma(b, d·Σq, acc)          (d·Σq rounded once)
// Integer sums begin at the bits of 1.5·2^23: read as a float they are 1.5·2^23 + sum, exactly
// while |sum| < 2^22, so that s·sum is fma(s, float, -1.5·2^23·s) and takes no conversion. A group
// of 64 has |sum| ≤ 64·255·127 < 2^21. Scales must be below 2^103 for the offset to be finite.
#pragma once

#include "engine/kernels/float_panels.h"

namespace perdure::engine {
namespace {

using W = Simd::W;

constexpr float kInt8Origin = 0x1.8p23f;
constexpr uint32_t kInt8OriginBits = 0x4B400000u;

// --- Activations ---------------------------------------------------------------------------------

// Groups that are quantized at once, one in each lane: maxima and sums need no reductions across
// lanes, and divisions are shared.
constexpr int kInt8AtOnce = 16;

struct QuantizedGroups {
  // The words' bits: a group's side by side, and the other way.
  alignas(64) float words[kInt8AtOnce][16], transposed[16][kInt8AtOnce];
  alignas(64) float sums32[2][kInt8AtOnce];
  F scales, sums64;
};

// Groups x[i][0, 64).
PERDURE_INLINE void QuantizeGroups(const float* const (&x)[kInt8AtOnce], QuantizedGroups& out) {
  const F origin = Simd::Set1(kInt8Origin);
  alignas(64) float tops[kInt8AtOnce][16], factors[kInt8AtOnce];
  F lanes[16];
  // Not unrolled: the compiler would keep what is stored in registers, where it costs shuffles.
#pragma GCC unroll 1
  for (int i = 0; i < kInt8AtOnce; ++i) {
    F top = Simd::Zero();
#pragma GCC unroll 4
    for (int j = 0; j < kInt8Group; j += 16) top = Simd::MaxMagnitude(top, Simd::Load(x[i] + j));
    Simd::Store(tops[i], top);
  }
  Simd::Transpose(tops[0], 16, lanes);
  F largest = lanes[0];
#pragma GCC unroll 16
  for (int i = 1; i < 16; ++i) largest = Simd::MaxMagnitude(largest, lanes[i]);
  out.scales = Simd::Div(largest, Simd::Set1(127.0f));
  Simd::Store(factors, Simd::Div(Simd::Set1(127.0f), largest));
#pragma GCC unroll 1
  for (int i = 0; i < kInt8AtOnce; ++i) {
    const F factor = Simd::Set1(factors[i]);
    F shifted[4];  // rounded to integers
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) shifted[j] = Simd::Fma(Simd::Load(x[i] + 16 * j), factor, origin);
    Simd::StoreLowBytes(shifted, out.words[i]);
  }
  // Rare: groups to be zero, or NaN for holding one or an infinity.
  const F not_tiny = Simd::ZeroBelow(Simd::Set1(1.0f), largest, Simd::Set1(0x1p-100f));
  const F usual = Simd::ZeroBelow(not_tiny, Simd::Set1(__FLT_MAX__), largest);
  if (Simd::ReduceAdd(usual) != float{kInt8AtOnce}) {
    alignas(64) float maxima[kInt8AtOnce], scales[kInt8AtOnce];
    Simd::Store(maxima, largest);
    Simd::Store(scales, out.scales);
    for (int i = 0; i < kInt8AtOnce; ++i) {
      if (maxima[i] >= 0x1p-100f && maxima[i] <= __FLT_MAX__) continue;
      scales[i] = maxima[i] < 0x1p-100f ? 0.0f : __builtin_nanf("");
      for (float& word : out.words[i]) word = 0.0f;
    }
    out.scales = Simd::Load(scales);
  }
  Simd::Transpose(out.words[0], 16, lanes);
  W sums[2] = {Simd::SetWords(kInt8OriginBits), Simd::SetWords(kInt8OriginBits)};
  const W ones = Simd::SetWords(0x01010101u);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    Simd::Store(out.transposed[i], lanes[i]);
    sums[i / 8] = Simd::template Dot4<true>(sums[i / 8], ones, Simd::LoadWords(out.transposed[i]));
  }
  const F first = Simd::Sub(Simd::AsFloats(sums[0]), origin);
  const F second = Simd::Sub(Simd::AsFloats(sums[1]), origin);
  out.sums64 = Simd::Mul(out.scales, Simd::Add(first, second));
  Simd::Store(out.sums32[0], Simd::Mul(out.scales, first));
  Simd::Store(out.sums32[1], Simd::Mul(out.scales, second));
}

// Words and sums of the groups [first, first + kCount) to their places in a tile; k_left: of K from
// theirs on.
template <int kCount>
PERDURE_INLINE void StoreGroups(const QuantizedGroups& groups, int first, int k_left,
                                uint32_t* words, float* sums32, ptrdiff_t rows) {
  const float* from = kCount == 1 ? groups.words[first] : groups.transposed[0] + first;
  constexpr int kStep = kCount == 1 ? 1 : kInt8AtOnce;
  for (int half = 0; half < 2 && half * 32 < k_left; ++half) {
    __builtin_memcpy(sums32 + half * rows, groups.sums32[half] + first, kCount * sizeof(float));
#pragma GCC unroll 8
    for (int i = 8 * half; i < 8 * half + 8; ++i)
      __builtin_memcpy(words + i * rows, from + i * kStep, kCount * sizeof(float));
  }
}

void Int8Pack(const float* const* a, int k, const Int8Tile& tile) {
  const ptrdiff_t rows = tile.rows, groups = (ptrdiff_t(k) + kInt8Group - 1) / kInt8Group;
  uint32_t* const words = tile.words;
  float* const sums32 = tile.sums32;
  alignas(64) float halves[kInt8AtOnce][kInt8Group];  // filled up with zeros
  ptrdiff_t row = 0, group = 0;
  // Groups in the order of the tile's scales: those of the rows, side by side.
  for (ptrdiff_t begin = 0; begin < rows * groups; begin += kInt8AtOnce) {
    const ptrdiff_t left = rows * groups - begin;
    const int count = left < kInt8AtOnce ? static_cast<int>(left) : kInt8AtOnce;
    const float* from[kInt8AtOnce];
    ptrdiff_t r = row, g = group;
    for (int i = 0; i < kInt8AtOnce; ++i) {  // after the last one, that one again
      from[i] = a[r] + g * kInt8Group;
      if (k - g * kInt8Group < kInt8Group) {
        for (int j = 0; j < kInt8Group; ++j) halves[i][j] = j < kInt8Group / 2 ? from[i][j] : 0.0f;
        from[i] = halves[i];
      }
      if (i + 1 < count && ++r == rows) {
        r = 0;
        ++g;
      }
    }
    QuantizedGroups quantized;
    QuantizeGroups(from, quantized);
    Simd::StoreFirst(tile.scales + begin, quantized.scales, count);
    Simd::StoreFirst(tile.sums64 + begin, quantized.sums64, count);
    for (int i = 0; i < count;) {
      const int n = rows == kInt8TileRows ? kInt8TileRows : 1;
      const int left_k = k - static_cast<int>(group) * kInt8Group;
      uint32_t* to = words + group * (kInt8Group / 4) * rows + row;
      float* sums = sums32 + 2 * group * rows + row;
      if (n == 1)
        StoreGroups<1>(quantized, i, left_k, to, sums, rows);
      else
        StoreGroups<kInt8TileRows>(quantized, i, left_k, to, sums, rows);
      i += n;
      row += n;
      if (row == rows) {
        row = 0;
        ++group;
      }
    }
  }
}

// --- Weights -------------------------------------------------------------------------------------

// A reader walks down a panel: Group() at each group of min(layout.group, 64), then Params() of its
// two vectors and Eight() for each eight rows of it, in order.
template <int kBytesARow>
struct Int8Reader {
  const std::byte* header;
  const std::byte* body;
  size_t header_bytes;
  ScaleType scale_type;
  int parts, part;  // sums of 64 within a group of weights
  PERDURE_INLINE void Begin(const PanelLayout& layout, const std::byte* rows) {
    body = rows;
    header_bytes = layout.group_header_bytes;
    scale_type = layout.scale_type;
    parts = layout.group > kInt8Group ? layout.group / kInt8Group : 1;
    part = 0;
  }
  PERDURE_INLINE void Group() {
    if (part == 0) {
      header = body;
      body += header_bytes;
    }
    part = part + 1 == parts ? 0 : part + 1;
  }
  PERDURE_INLINE void Next() { body += 8 * kBytesARow; }
};

template <int kBytesARow>
struct Int8AffineReader : Int8Reader<kBytesARow> {
  PERDURE_INLINE void Params(int v, F& scale, F& offset, F& bias) const {
    scale = LoadScale(this->scale_type, this->header, 16 * v);
    offset = Simd::Mul(scale, Simd::Set1(-kInt8Origin));
    bias = LoadScale(this->scale_type, this->header, kPanelWidth + 16 * v);
  }
};

struct Int8Q8Reader : Int8AffineReader<32> {
  static constexpr bool kNarrow = false;
  PERDURE_INLINE void Eight(int v, W& even, W& odd) const {
    even = Simd::LoadWords(body + 64 * v);
    odd = Simd::LoadWords(body + 128 + 64 * v);
  }
};

struct Int8Q4Reader : Int8AffineReader<16> {
  static constexpr bool kNarrow = true;
  PERDURE_INLINE void Eight(int v, W& even, W& odd) const {
    const W words = Simd::LoadWords(body + 64 * v);
    even = Simd::LowNibbles(words);
    odd = Simd::HighNibbles(words);
  }
};

// An element is (u - 12) / 2.
struct Int8Mxfp4Reader : Int8Reader<16> {
  static constexpr bool kNarrow = true;
  PERDURE_INLINE void Params(int v, F& scale, F& offset, F& bias) const {
    const auto* scales = reinterpret_cast<const uint8_t*>(header);
    scale = Simd::Mul(Simd::LoadE8M0(scales + 16 * v), Simd::Set1(0.5f));
    offset = Simd::Mul(scale, Simd::Set1(-kInt8Origin));
    bias = Simd::Mul(scale, Simd::Set1(-12.0f));
  }
  PERDURE_INLINE void Eight(int v, W& even, W& odd) const {
    const W words = Simd::LoadWords(body + 64 * v);
    even = Simd::E2M1Codes(Simd::LowNibbles(words));
    odd = Simd::E2M1Codes(Simd::HighNibbles(words));
  }
};

// What Int8Unpack made.
template <bool kNarrowBytes>
struct Int8ChunkReader {
  static constexpr bool kNarrow = kNarrowBytes;
  const float* params;
  const std::byte* body;
  PERDURE_INLINE void Begin(const PanelLayout&, const std::byte* chunk) { body = chunk; }
  PERDURE_INLINE void Group() {
    params = reinterpret_cast<const float*>(body);
    body += kInt8ParamsBytes;
  }
  PERDURE_INLINE void Params(int v, F& scale, F& offset, F& bias) const {
    scale = Simd::Load(params + 16 * v);
    offset = Simd::Load(params + kPanelWidth + 16 * v);
    bias = Simd::Load(params + 2 * kPanelWidth + 16 * v);
  }
  PERDURE_INLINE void Eight(int v, W& even, W& odd) const {
    even = Simd::LoadWords(body + 64 * v);
    odd = Simd::LoadWords(body + 128 + 64 * v);
  }
  PERDURE_INLINE void Next() { body += 256; }
};

// Calls fn(Reader{}) for the layout's format.
template <class Fn>
PERDURE_INLINE void WithInt8Reader(const PanelLayout& layout, Fn fn) {
  if (layout.format == PanelFormat::kQ8) return fn(Int8Q8Reader{});
  if (layout.format == PanelFormat::kQ4) return fn(Int8Q4Reader{});
  return fn(Int8Mxfp4Reader{});
}

PERDURE_INLINE int Int8SumRows(const PanelLayout& layout) {
  return layout.group < kInt8Group ? layout.group : kInt8Group;
}

template <class Reader>
void Int8UnpackRows(const PanelLayout& layout, const std::byte* rows, int count, std::byte* out) {
  const int sum_rows = Int8SumRows(layout);
  Reader reader;
  reader.Begin(layout, rows);
  for (int k = 0; k < count; k += sum_rows) {
    reader.Group();
    auto* params = reinterpret_cast<float*>(out);
    for (int v = 0; v < 2; ++v) {
      F scale, offset, bias;
      reader.Params(v, scale, offset, bias);
      Simd::Store(params + 16 * v, scale);
      Simd::Store(params + kPanelWidth + 16 * v, offset);
      Simd::Store(params + 2 * kPanelWidth + 16 * v, bias);
    }
    out += kInt8ParamsBytes;
    for (int i = 0; i < sum_rows; i += 8, out += 256) {
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        W even, odd;
        reader.Eight(v, even, odd);
        Simd::StoreWords(out + 64 * v, even);
        Simd::StoreWords(out + 128 + 64 * v, odd);
      }
      reader.Next();
    }
  }
}

void Int8Unpack(const PanelLayout& layout, const std::byte* panel, int k0, int k1, std::byte* out) {
  const std::byte* rows = panel + RowOffset(layout, k0);
  WithInt8Reader(
      layout, [&](auto reader) __attribute__((always_inline)) {
        Int8UnpackRows<decltype(reader)>(layout, rows, k1 - k0, out);
      });
}

// --- Products ------------------------------------------------------------------------------------

// c[R][16·C] (+)= rows [row, row + R) of a times rows [k0, k1) of vectors [vector, vector + C) of a
// panel, which begin at `weights`.
template <class Reader, int R, int C>
void Int8Core(const PanelLayout& layout, const std::byte* weights, int vector, const Int8Tile& a,
              int row, int k0, int k1, float* c, ptrdiff_t ldc, bool accumulate, Ahead ahead) {
  // In memory: they are touched once a group, and the registers are the integer sums'.
  alignas(64) float acc[R * C * 16];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < C; ++v)
      Simd::Store(acc + (r * C + v) * 16,
                  accumulate ? Simd::Load(c + r * ldc + 16 * v) : Simd::Zero());
  const int sum_rows = Int8SumRows(layout);
  const ptrdiff_t step = a.rows;
  const uint32_t* words = a.words + k0 / 4 * step + row;
  const float* sums = (sum_rows == kInt8Group ? a.sums64 : a.sums32) + k0 / sum_rows * step + row;
  size_t fetched = 0, due = 0;
  const size_t fetch = (ahead.bytes * 8 + size_t(k1 - k0) - 1) / size_t(k1 - k0);  // for eight K
  Reader reader;
  reader.Begin(layout, weights);
  for (int k = k0; k < k1; k += sum_rows, sums += step) {
    W dots[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < C; ++v) dots[r][v] = Simd::SetWords(kInt8OriginBits);
    reader.Group();
    for (int i = 0; i < sum_rows; i += 8) {
      // A line or two at a time: a burst would hold up the loads from L2 behind it.
      for (due += fetch; fetched < due; fetched += 64) Simd::FetchToL2(ahead.at + fetched);
      W bytes[2][C];
#pragma GCC unroll 2
      for (int v = 0; v < C; ++v) reader.Eight(vector + v, bytes[0][v], bytes[1][v]);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const W x = Simd::SetWords(words[r]);
#pragma GCC unroll 2
          for (int v = 0; v < C; ++v)
            dots[r][v] = Simd::template Dot4<Reader::kNarrow>(dots[r][v], bytes[half][v], x);
        }
        words += step;
      }
      reader.Next();
    }
    const float* scales = a.scales + k / kInt8Group * step + row;
#pragma GCC unroll 2
    for (int v = 0; v < C; ++v) {
      F scale, offset, bias;
      reader.Params(vector + v, scale, offset, bias);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        float* at = acc + (r * C + v) * 16;
        const F sum = Simd::Fma(scale, Simd::AsFloats(dots[r][v]), offset);
        const F first = Simd::Fma(sum, Simd::Set1(scales[r]), Simd::Load(at));
        Simd::Store(at, Simd::Fma(bias, Simd::Set1(sums[r]), first));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < C; ++v)
      Simd::Store(c + r * ldc + 16 * v, Simd::Load(acc + (r * C + v) * 16));
}

// The core for exactly `rows` ≤ R rows.
template <class Reader, int R, int C>
void Int8Rows(const PanelLayout& layout, const std::byte* weights, int vector, const Int8Tile& a,
              int row, int rows, int k0, int k1, float* c, ptrdiff_t ldc, bool accumulate,
              Ahead ahead) {
  if (rows == R)
    Int8Core<Reader, R, C>(layout, weights, vector, a, row, k0, k1, c, ldc, accumulate, ahead);
  else if constexpr (R > 1)
    Int8Rows<Reader, R - 1, C>(layout, weights, vector, a, row, rows, k0, k1, c, ldc, accumulate,
                               ahead);
}

template <class Reader>
PERDURE_INLINE void Int8Panel(const PanelLayout& layout, const std::byte* weights,
                              const Int8Tile& a, int k0, int k1, float* c, ptrdiff_t ldc,
                              bool accumulate, Ahead ahead) {
  constexpr int kRows = Simd::kInt8SubRows, kVectors = Simd::kInt8SubVectors;
  for (int r = 0; r < a.rows; r += kRows)
    for (int v = 0; v < kPanelWidth / 16; v += kVectors) {
      Int8Rows<Reader, kRows, kVectors>(layout, weights, v, a, r,
                                        a.rows - r < kRows ? a.rows - r : kRows, k0, k1,
                                        c + r * ldc + 16 * v, ldc, accumulate, ahead);
      ahead = {};
    }
}

void Int8Tiles(const PanelLayout& layout, const std::byte* chunk, const Int8Tile& a, int k0, int k1,
               float* c, ptrdiff_t ldc, bool accumulate, Ahead ahead) {
  if (layout.format == PanelFormat::kQ8)
    Int8Panel<Int8ChunkReader<false>>(layout, chunk, a, k0, k1, c, ldc, accumulate, ahead);
  else
    Int8Panel<Int8ChunkReader<true>>(layout, chunk, a, k0, k1, c, ldc, accumulate, ahead);
}

void Int8Direct(const PanelLayout& layout, const std::byte* panel, const Int8Tile& a, int k0,
                int k1, float* c, ptrdiff_t ldc, bool accumulate, Ahead ahead) {
  const std::byte* rows = panel + RowOffset(layout, k0);
  WithInt8Reader(
      layout, [&](auto reader) __attribute__((always_inline)) {
        Int8Panel<decltype(reader)>(layout, rows, a, k0, k1, c, ldc, accumulate, ahead);
      });
}

}  // namespace
}  // namespace perdure::engine
