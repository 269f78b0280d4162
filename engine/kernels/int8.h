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

// A group that is zero, or NaN where it holds one or an infinity.
void QuantizeSpecial(const float* x, int n, uint8_t* bytes, float* scale, float (&sums)[3]) {
  F finite = Simd::Zero();
  for (int i = 0; i < n; i += 16) finite = Simd::Fma(Simd::Load(x + i), Simd::Zero(), finite);
  *scale = Simd::ReduceAdd(finite) == 0.0f ? 0.0f : __builtin_nanf("");
  for (float& sum : sums) sum = *scale;
  for (int i = 0; i < n; ++i) bytes[i] = 0;
}

// x[0, n), n 32 or 64, to bytes; sums: d·Σq of all, of the first half and of the second.
PERDURE_INLINE void QuantizeGroup(const float* x, int n, uint8_t* bytes, float* scale,
                                  float (&sums)[3]) {
  const F zero = Simd::Zero();
  F top = zero;
  for (int i = 0; i < n; i += 16) {
    const F v = Simd::Load(x + i);
    top = Simd::Max(top, Simd::Max(v, Simd::Sub(zero, v)));
  }
  const float largest = Simd::ReduceMax(top);  // of what is no NaN, or NaN
  const float d = largest / 127.0f;
  const F factor = Simd::Set1(127.0f / largest), origin = Simd::Set1(kInt8Origin);
  F halves[2] = {zero, zero};
  for (int i = 0; i < n; i += 16) {
    const F shifted = Simd::Fma(Simd::Load(x + i), factor, origin);  // rounds to an integer
    Simd::StoreLowBytes(shifted, bytes + i);
    halves[i / 32] = Simd::Add(halves[i / 32], Simd::Sub(shifted, origin));
  }
  // Sums of integers: exact. NaN where x holds one, or an infinity, which has met a factor of 0.
  const float first = Simd::ReduceAdd(halves[0]), second = Simd::ReduceAdd(halves[1]);
  const float all = first + second;
  if (all != all || largest < 0x1p-100f) return QuantizeSpecial(x, n, bytes, scale, sums);
  *scale = d;
  sums[0] = d * all;
  sums[1] = d * first;
  sums[2] = d * second;
}

void Int8Pack(const float* const* a, int k, const Int8Tile& tile) {
  // Here, as bytes that are written might be those of the tile.
  const ptrdiff_t rows = tile.rows;
  uint32_t* const words = tile.words;
  float* const scales = tile.scales;
  float* const sums64 = tile.sums64;
  float* const sums32 = tile.sums32;
  for (ptrdiff_t r = 0; r < rows; ++r) {
    const float* x = a[r];
    for (ptrdiff_t group = 0; group * kInt8Group < k; ++group) {
      const int begin = static_cast<int>(group) * kInt8Group;
      const int n = k - begin < kInt8Group ? k - begin : kInt8Group;
      alignas(64) uint8_t bytes[kInt8Group];
      float scale, sums[3];
      if (n == kInt8Group)
        QuantizeGroup(x + begin, kInt8Group, bytes, &scale, sums);
      else
        QuantizeGroup(x + begin, kInt8Group / 2, bytes, &scale, sums);
      scales[group * rows + r] = scale;
      sums64[group * rows + r] = sums[0];
      for (int half = 0; half < n / 32; ++half)
        sums32[(2 * group + half) * rows + r] = sums[1 + half];
      uint32_t* to = words + begin / 4 * rows + r;
      for (int i = 0; i < n; i += 4, to += rows) __builtin_memcpy(to, bytes + i, 4);
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
