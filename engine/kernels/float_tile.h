// Tiles of a product in f32. Written once over the 16-lane `Simd` of the including file.
#pragma once

#include "engine/kernels/lanes.h"

namespace perdure::engine {
namespace {

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

}  // namespace
}  // namespace perdure::engine
