// Tiles of a product in f32. Written once over the 16-lane `Simd` of the including file.
#pragma once

#include "engine/kernels/lanes.h"

namespace perdure::engine {
namespace {

PERDURE_INLINE F LoadWide(const float* p) { return Simd::Load(p); }
PERDURE_INLINE F LoadWide(const uint16_t* p) { return Simd::LoadF16(p); }

// c[R][16·C] (+)= a · b. Element (r, i) of a lies at a[i·kStepK + r·kStepR]. What lies `ahead`
// bytes behind each line of b is fetched to L2, if `ahead` is not zero: more lines can be on their
// way there than to L1.
template <int R, int C, int kStepK, int kStepR, class B>
PERDURE_INLINE void TileCore(const float* a, const B* b, ptrdiff_t ldb, int k, float* c,
                             ptrdiff_t ldc, bool accumulate, ptrdiff_t ahead) {
  constexpr int kUnroll = 4;
  constexpr int kLineVectors = 4 / int{sizeof(B)};  // vectors in 64 bytes
  F acc[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < C; ++v)
      acc[r][v] = accumulate ? Simd::Load(c + r * ldc + 16 * v) : Simd::Zero();
  const auto step = [&](int i) __attribute__((always_inline)) {
    F weights[C];
#pragma GCC unroll 8
    for (int v = 0; v < C; ++v) {
      weights[v] = LoadWide(b + i * ldb + 16 * v);
      if (ahead != 0 && v % kLineVectors == 0)
        Simd::FetchToL2(reinterpret_cast<const char*>(b + i * ldb + 16 * v) + ahead);
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const F x = Simd::Set1(a[i * kStepK + r * kStepR]);
#pragma GCC unroll 8
      for (int v = 0; v < C; ++v) acc[r][v] = Simd::Fma(x, weights[v], acc[r][v]);
    }
  };
  int i = 0;
  for (; i + kUnroll <= k; i += kUnroll) {
#pragma GCC unroll 4
    for (int j = 0; j < kUnroll; ++j) step(i + j);
  }
  for (; i < k; ++i) step(i);
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < C; ++v) Simd::Store(c + r * ldc + 16 * v, acc[r][v]);
}

// Vectors of outputs that a core of R rows takes at once: few rows take more, so that there are
// enough independent sums to hide the latency of a multiply-add.
template <int R>
constexpr int CoreVectors() {
  constexpr int kFit = Simd::kSubRows * Simd::kSubVectors / R;
  return kFit >= 8 ? 8 : kFit >= 4 ? 4 : kFit >= 2 ? 2 : 1;
}

// `vectors` · 16 outputs of R rows.
template <int R, int C, int kStepK, int kStepR, class B>
PERDURE_INLINE void TileVectors(const float* a, const B* b, ptrdiff_t ldb, int k, int vectors,
                                float* c, ptrdiff_t ldc, bool accumulate, ptrdiff_t ahead) {
  for (; vectors >= C; vectors -= C, b += 16 * C, c += 16 * C)
    TileCore<R, C, kStepK, kStepR>(a, b, ldb, k, c, ldc, accumulate, ahead);
  if constexpr (C > 1)
    TileVectors<R, C / 2, kStepK, kStepR>(a, b, ldb, k, vectors, c, ldc, accumulate, ahead);
}

// The core for exactly `rows` ≤ R rows.
template <int R, int kStepK, int kStepR, class B>
void TileRows(const float* a, const B* b, ptrdiff_t ldb, int k, int rows, int vectors, float* c,
              ptrdiff_t ldc, bool accumulate, ptrdiff_t ahead) {
  if (rows == R)
    TileVectors<R, CoreVectors<R>(), kStepK, kStepR>(a, b, ldb, k, vectors, c, ldc, accumulate,
                                                     ahead);
  else if constexpr (R > 1)
    TileRows<R - 1, kStepK, kStepR>(a, b, ldb, k, rows, vectors, c, ldc, accumulate, ahead);
}

// Any number of rows, `vectors` · 16 outputs. b: f32 or binary16.
template <int kStepK, int kStepR, class B>
PERDURE_INLINE void TileAny(const float* a, const B* b, ptrdiff_t ldb, int k, int rows, int vectors,
                            float* c, ptrdiff_t ldc, bool accumulate, ptrdiff_t ahead = 0) {
  constexpr int kRows = Simd::kSubRows;
  for (int r = 0; r < rows; r += kRows)
    TileRows<kRows, kStepK, kStepR>(a + r * kStepR, b, ldb, k, rows - r < kRows ? rows - r : kRows,
                                    vectors, c + r * ldc, ldc, accumulate, ahead);
}

void Tile(const float* a, const float* b, int k, int rows, float* c, ptrdiff_t ldc,
          bool accumulate) {
  TileAny<kTileRows, 1>(a, b, kPanelWidth, k, rows, kPanelWidth / 16, c, ldc, accumulate);
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

}  // namespace
}  // namespace perdure::engine
