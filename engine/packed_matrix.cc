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

// Element `index` of a group whose nibbles begin at `words`.
uint32_t ReadNibble(const std::byte* words, size_t index, size_t lane) {
  return Read<uint32_t>(words, index / 8 * kPanelWidth + lane) >> (4 * (index % 8)) & 15u;
}

void ReadQuantizedRow(const PanelLayout& layout, const std::byte* panel, int lane, float* to) {
  for (int k = 0; k < layout.k; ++k) {
    const std::byte* group = panel + size_t(k / layout.group) * layout.group_bytes;
    const float scale = ReadScale(layout.scale_type, group, size_t(lane));
    const float bias = ReadScale(layout.scale_type, group, size_t(kPanelWidth + lane));
    const std::byte* q = group + layout.group_header_bytes;
    const size_t i = size_t(k % layout.group);
    const uint32_t value = layout.format == PanelFormat::kQ8
                               ? Read<uint8_t>(q, i * kPanelWidth + size_t(lane))
                               : ReadNibble(q, i, size_t(lane));
    to[k] = std::fma(scale, static_cast<float>(value), bias);
  }
}

void ReadMxfp4Row(const PanelLayout& layout, const std::byte* panel, size_t lane, float* to) {
  constexpr float kMagnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
  for (int k = 0; k < layout.k; ++k) {
    const std::byte* group = panel + size_t(k / layout.group) * layout.group_bytes;
    const uint32_t value =
        ReadNibble(group + layout.group_header_bytes, size_t(k % layout.group), lane);
    const float element = (value & 8u) != 0 ? -kMagnitudes[value & 7u] : kMagnitudes[value];
    to[k] = std::ldexp(element, static_cast<int>(group[lane]) - 127);
  }
}

}  // namespace

void ReadRow(const PackedMatrix& matrix, int output, float* to, int part) {
  CHECK(output >= 0 && output < matrix.outputs && part >= 0 && part < matrix.parts);
  const std::byte* panel = matrix.Panel(output / kPanelWidth, part);
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
    case PanelFormat::kMxfp4:
      return ReadMxfp4Row(matrix.layout, panel, lane, to);
  }
}

namespace {

// Bytes of packed activations that one sweep over the panels uses: they stay in a core's L2 cache,
// at the price of unpacking each panel once a sweep.
constexpr int kSweepBytes = 1 << 20;
constexpr int kSweepTilesMin = 8;  // below, unpacking would show

// Panels are shared out by cost: reading a panel takes about as long as multiplying it with so many
// rows.
constexpr int kRowsAPanel = 4;
// Ranges of panels that a thread claims: as in ThreadPool::Split.
constexpr int kRangesPerThread = 8;

int SweepRows(int k) {
  return std::max(kSweepBytes / (k * kTileRows * static_cast<int>(sizeof(float))), kSweepTilesMin) *
         kTileRows;
}

int Tiles(int rows) { return (rows + kTileRows - 1) / kTileRows; }
bool IsDirect(const RowGroup& group) { return group.rows <= kDirectRowsMax; }
// Rows that lie apart and are few are copied side by side.
bool IsGathered(const RowGroup& group) {
  return IsDirect(group) && group.rows > 1 && group.index != nullptr;
}

const float* RowOf(const RowGroup& group, int row) {
  return group.a + (group.index != nullptr ? group.index[row] : row) * group.lda;
}

int PanelsOf(const RowGroup& group) {
  int panels = 0;
  for (const Product& product : group.products) panels += product.matrix->panels;
  return panels;
}
int64_t CostOf(const RowGroup& group) { return kRowsAPanel + group.rows; }

// Pieces of work that prepare a group's rows, and the packed rows they fill.
int PrepareItems(const RowGroup& group) {
  return IsDirect(group) ? int{IsGathered(group)} : Tiles(group.rows);
}
ptrdiff_t PackedRows(const RowGroup& group) {
  if (IsDirect(group)) return IsGathered(group) ? group.rows : 0;
  return ptrdiff_t{Tiles(group.rows)} * kTileRows;
}

void Prepare(const Kernels& kernels, const RowGroup& group, int item, int k, float* packed) {
  const int first = item * kTileRows, rows = std::min(kTileRows, group.rows - first);
  const float* from[kTileRows] = {};
  for (int r = 0; r < rows; ++r) from[r] = RowOf(group, first + r);
  if (IsDirect(group)) {
    for (int r = 0; r < rows; ++r)
      std::memcpy(packed + ptrdiff_t{r} * k, from[r], size_t(k) * sizeof(float));
  } else {
    kernels.pack_rows(from, rows, k, packed + ptrdiff_t{first} * k);
  }
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
    kernels.unpack(matrix.layout, matrix.Panel(panel, product.part), k0, k1, weights);
    for (int row = begin; row < end; row += kTileRows)
      kernels.tile(packed + (ptrdiff_t(row) * k + ptrdiff_t(k0) * kTileRows), weights, k1 - k0,
                   std::min(kTileRows, end - row), c + row * product.ldc, product.ldc, k0 > 0);
  }
}

// Panels [begin, end) of a group's products in a row.
void MultiplyPanels(const Kernels& kernels, const RowGroup& group, int begin, int end, int k,
                    const float* packed) {
  int before = 0;
  for (const Product& product : group.products) {
    const PackedMatrix& matrix = *product.matrix;
    const int first = std::max(begin - before, 0);
    const int last = std::min(end - before, matrix.panels);
    before += matrix.panels;
    if (first >= last) continue;
    if (IsDirect(group)) {
      const bool gathered = IsGathered(group);
      kernels.direct(matrix.layout, matrix.Panel(first, product.part), last - first,
                     gathered ? packed : RowOf(group, 0), gathered ? k : group.lda, group.rows,
                     product.c + ptrdiff_t(first) * kPanelWidth, product.ldc);
    } else {
      const int sweep = SweepRows(k);
      for (int row = 0; row < group.rows; row += sweep)
        for (int panel = first; panel < last; ++panel)
          MultiplyPanel(kernels, product, panel, row, std::min(group.rows, row + sweep), packed);
    }
  }
}

}  // namespace

size_t PackedRowsFloats(int rows, int groups, int k) {
  // Every group fills its last tile up.
  const size_t filled = size_t(rows) + size_t(std::min(groups, rows)) * (kTileRows - 1);
  return filled * size_t(k);
}

void Multiply(const Kernels& kernels, ThreadPool& pool, std::span<const RowGroup> groups,
              float* packed) {
  CHECK(!groups.empty() && !groups[0].products.empty());
  const int k = groups[0].products[0].matrix->layout.k;
  int items = 0;
  int64_t panels = 0, cost = 0;
  for (const RowGroup& group : groups) {
    for (const Product& product : group.products)
      CHECK(product.matrix->layout.k == k && product.ldc >= product.matrix->padded_outputs());
    if (group.rows == 0) continue;
    items += PrepareItems(group);
    panels += PanelsOf(group);
    cost += PanelsOf(group) * CostOf(group);
  }

  pool.Split(items, [&](int begin, int end, int) {
    float* to = packed;
    int before = 0;
    for (const RowGroup& group : groups) {
      const int first = std::max(begin - before, 0);
      const int last = std::min(end - before, PrepareItems(group));
      for (int item = first; item < last; ++item) Prepare(kernels, group, item, k, to);
      before += PrepareItems(group);
      to += PackedRows(group) * k;
    }
  });

  // The panels of all products of all groups in a row; a range of cost has those that begin in it.
  const int ranges = static_cast<int>(
      std::min<int64_t>(panels, pool.threads() == 1 ? 1 : pool.threads() * kRangesPerThread));
  pool.Claim(ranges, [&](int range, int) {
    const int64_t begin = cost * range / ranges, end = cost * (range + 1) / ranges;
    const float* from = packed;
    int64_t before = 0;
    for (const RowGroup& group : groups) {
      if (group.rows == 0) continue;
      const int64_t count = PanelsOf(group), each = CostOf(group);
      const auto panel_at = [&](int64_t at) {
        return static_cast<int>(std::clamp<int64_t>((at - before + each - 1) / each, 0, count));
      };
      MultiplyPanels(kernels, group, panel_at(begin), panel_at(end), k, from);
      before += count * each;
      from += PackedRows(group) * k;
    }
  });
}

void Multiply(const Kernels& kernels, ThreadPool& pool, const float* a, int rows, float* packed,
              std::span<const Product> products) {
  CHECK(!products.empty());
  const RowGroup group{.a = a,
                       .lda = products[0].matrix->layout.k,
                       .index = nullptr,
                       .rows = rows,
                       .products = products};
  Multiply(kernels, pool, {&group, 1}, packed);
}

}  // namespace perdure::engine
