#include "engine/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "engine/float16.h"

namespace perdure::engine {
namespace {

template <class T>
T Read(const std::byte* at, size_t index) {
  T value;
  std::memcpy(&value, at + index * sizeof(T), sizeof(T));
  return value;
}

float ReadScale(ScaleType type, const std::byte* at, size_t index) {
  switch (type) {
    case ScaleType::kF32:
      return Read<float>(at, index);
    case ScaleType::kF16:
      return F16ToF32(Read<uint16_t>(at, index));
    case ScaleType::kBf16:
      return Bf16ToF32(Read<uint16_t>(at, index));
  }
  return 0.0f;
}

void ReadQuantizedRow(const PanelLayout& layout, const std::byte* panel, int lane, float* to) {
  for (int k = 0; k < layout.k; ++k) {
    const std::byte* group = panel + size_t(k / layout.group) * layout.group_bytes;
    const float scale = ReadScale(layout.scale_type, group, size_t(lane));
    const float bias = ReadScale(layout.scale_type, group, size_t(kPanelWidth + lane));
    const std::byte* q = group + layout.group_header_bytes;
    const size_t i = size_t(k % layout.group);
    uint32_t value;
    if (layout.format == PanelFormat::kQ8) {
      value = Read<uint8_t>(q, i * kPanelWidth + size_t(lane));
    } else {
      value = Read<uint32_t>(q, i / 8 * kPanelWidth + size_t(lane)) >> (4 * (i % 8)) & 15u;
    }
    to[k] = std::fma(scale, static_cast<float>(value), bias);
  }
}

}  // namespace

void ReadRow(const PackedMatrix& matrix, int output, float* to) {
  CHECK(output >= 0 && output < matrix.outputs);
  const std::byte* panel = matrix.Panel(output / kPanelWidth);
  const size_t lane = size_t(output % kPanelWidth);
  const size_t k = size_t(matrix.layout.k);
  switch (matrix.layout.format) {
    case PanelFormat::kF32:
      for (size_t i = 0; i < k; ++i) to[i] = Read<float>(panel, i * kPanelWidth + lane);
      return;
    case PanelFormat::kF16:
      for (size_t i = 0; i < k; ++i)
        to[i] = F16ToF32(Read<uint16_t>(panel, i * kPanelWidth + lane));
      return;
    case PanelFormat::kBf16: {
      // Little-endian words: output i in the low half of word i, i + 16 in its high half.
      const size_t half = lane % 16 * 2 + lane / 16;
      for (size_t i = 0; i < k; ++i)
        to[i] = Bf16ToF32(Read<uint16_t>(panel, i * kPanelWidth + half));
      return;
    }
    case PanelFormat::kQ8:
    case PanelFormat::kQ4:
      return ReadQuantizedRow(matrix.layout, panel, static_cast<int>(lane), to);
  }
}

size_t PackedRowsFloats(int rows, int k) {
  if (rows <= kDirectRowsMax) return 0;
  return size_t((rows + kTileRows - 1) / kTileRows) * kTileRows * size_t(k);
}

namespace {

// Bytes of packed activations that one sweep over the panels uses: they stay in a core's L2 cache,
// at the price of unpacking each panel once a sweep.
constexpr int kSweepBytes = 1 << 20;
constexpr int kSweepTilesMin = 8;  // below, unpacking would show

int SweepRows(int k) {
  return std::max(kSweepBytes / (k * kTileRows * static_cast<int>(sizeof(float))), kSweepTilesMin) *
         kTileRows;
}

// One panel against tiles of rows, chunk of K by chunk: the unpacked chunk stays in L1.
void MultiplyPanel(const Kernels& kernels, const Product& product, int panel, int begin, int end,
                   const float* packed) {
  alignas(64) float weights[kChunkRows * kPanelWidth];
  const PackedMatrix& matrix = *product.matrix;
  const int k = matrix.layout.k;
  float* c = product.c + ptrdiff_t(panel) * kPanelWidth;
  for (int k0 = 0; k0 < k; k0 += kChunkRows) {
    const int k1 = std::min(k, k0 + kChunkRows);
    kernels.unpack(matrix.layout, matrix.Panel(panel), k0, k1, weights);
    for (int row = begin; row < end; row += kTileRows)
      kernels.tile(packed + (ptrdiff_t(row) * k + ptrdiff_t(k0) * kTileRows), weights, k1 - k0,
                   std::min(kTileRows, end - row), c + row * product.ldc, product.ldc, k0 > 0);
  }
}

}  // namespace

void Multiply(const Kernels& kernels, ThreadPool& pool, const float* a, int rows, float* packed,
              std::span<const Product> products) {
  CHECK(!products.empty());
  const int k = products[0].matrix->layout.k;
  int panels = 0;
  for (const Product& product : products) {
    CHECK(product.matrix->layout.k == k && product.ldc >= product.matrix->padded_outputs());
    panels += product.matrix->panels;
  }
  if (rows == 0) return;
  const bool direct = rows <= kDirectRowsMax;
  if (!direct) {
    const int tiles = (rows + kTileRows - 1) / kTileRows;
    pool.Split(tiles, [&](int begin, int end, int) {
      for (int tile = begin; tile < end; ++tile) {
        const int row = tile * kTileRows;
        kernels.pack_rows(a + ptrdiff_t(row) * k, k, std::min(kTileRows, rows - row), k,
                          packed + ptrdiff_t(row) * k);
      }
    });
  }
  // The panels of all products in a row; threads claim contiguous parts.
  pool.Split(panels, [&](int begin, int end, int) {
    int before = 0;
    for (const Product& product : products) {
      const int first = std::max(begin - before, 0);
      const int last = std::min(end - before, product.matrix->panels);
      before += product.matrix->panels;
      if (first >= last) continue;
      if (direct) {
        kernels.direct(product.matrix->layout, product.matrix->Panel(first), last - first, a, k,
                       rows, product.c + ptrdiff_t(first) * kPanelWidth, product.ldc);
      } else {
        const int sweep = SweepRows(k);
        for (int row = 0; row < rows; row += sweep)
          for (int panel = first; panel < last; ++panel)
            MultiplyPanel(kernels, product, panel, row, std::min(rows, row + sweep), packed);
      }
    }
  });
}

}  // namespace perdure::engine
