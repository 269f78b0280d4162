#include "engine/packed_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "engine/read_numbers.h"

namespace perdure::engine {
namespace {

// Element `index` of a group whose nibbles begin at `words`.
uint32_t ReadNibble(const std::byte* words, size_t index, size_t lane) {
  return ReadAt<uint32_t>(words, index / 8 * kPanelWidth + lane) >> (4 * (index % 8)) & 15u;
}

void ReadQuantizedRow(const PanelLayout& layout, const std::byte* panel, int lane, float* to) {
  for (int k = 0; k < layout.k; ++k) {
    const std::byte* group = panel + size_t(k / layout.group) * layout.group_bytes;
    const float scale = ReadFloatAt(layout.scale_type, group, size_t(lane));
    const float bias = ReadFloatAt(layout.scale_type, group, size_t(kPanelWidth + lane));
    const std::byte* q = group + layout.group_header_bytes;
    const size_t i = size_t(k % layout.group);
    const uint32_t value = layout.format == PanelFormat::kQ8
                               ? ReadAt<uint8_t>(q, Q8Byte(i, size_t(lane)))
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
      for (size_t i = 0; i < k; ++i) to[i] = ReadAt<float>(panel, i * kPanelWidth + lane);
      return;
    case PanelFormat::kF16:
      for (size_t i = 0; i < k; ++i)
        to[i] = F16ToF32(ReadAt<uint16_t>(panel, i * kPanelWidth + lane));
      return;
    case PanelFormat::kBf16: {
      // Little-endian words: output i in the low half of word i, i + 16 in its high half.
      const size_t half = lane % 16 * 2 + lane / 16;
      for (size_t i = 0; i < k; ++i)
        to[i] = Bf16ToF32(ReadAt<uint16_t>(panel, i * kPanelWidth + half));
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
constexpr size_t kSweepBytes = size_t{1} << 20;
constexpr int kSweepRowsMin = 96;  // below, unpacking would show

// Panels are shared out by cost: reading a panel takes about as long as multiplying it with so many
// rows. In 8 bits that is 5 bytes a cycle and core against 256 operations.
constexpr int kRowsAPanel = 4, kInt8RowsAPanel = 12;
// Ranges of panels that a thread claims: as in ThreadPool::Split.
constexpr int kRangesPerThread = 8;

int CeilDiv(int a, int b) { return (a + b - 1) / b; }

// Rows of `row_floats` floats a sweep takes, in whole tiles.
int SweepRows(size_t row_floats, int tile_rows) {
  const int rows = static_cast<int>(kSweepBytes / (row_floats * sizeof(float)));
  return std::max(rows, kSweepRowsMin) / tile_rows * tile_rows;
}

const float* RowOf(const RowGroup& group, int row) {
  return group.a + (group.index != nullptr ? group.index[row] : row) * group.lda;
}

bool InInt8(const PackedMatrix& matrix, Activations activations) {
  return activations == Activations::kInt8 && matrix.layout.group > 0;
}

// --- f32 -----------------------------------------------------------------------------------------

bool IsDirect(const Kernels& kernels, const RowGroup& group) {
  return group.rows <= kernels.direct_rows;
}
// Rows that lie apart and are few are copied side by side.
bool IsGathered(const Kernels& kernels, const RowGroup& group) {
  return IsDirect(kernels, group) && group.rows > 1 && group.index != nullptr;
}

// Pieces of work that prepare a group's rows, and the packed floats they fill.
int FloatItems(const Kernels& kernels, const RowGroup& group) {
  return IsDirect(kernels, group) ? int{IsGathered(kernels, group)}
                                  : CeilDiv(group.rows, kTileRows);
}
size_t FloatFloats(const Kernels& kernels, const RowGroup& group, int k) {
  const int rows = IsDirect(kernels, group) ? (IsGathered(kernels, group) ? group.rows : 0)
                                            : CeilDiv(group.rows, kTileRows) * kTileRows;
  return size_t(rows) * size_t(k);
}

void PrepareFloats(const Kernels& kernels, const RowGroup& group, int item, int k, float* packed) {
  if (IsDirect(kernels, group)) {
    for (int r = 0; r < group.rows; ++r)
      std::memcpy(packed + ptrdiff_t{r} * k, RowOf(group, r), size_t(k) * sizeof(float));
    return;
  }
  const int first = item * kTileRows, rows = std::min(kTileRows, group.rows - first);
  const float* from[kTileRows] = {};
  for (int r = 0; r < rows; ++r) from[r] = RowOf(group, first + r);
  kernels.pack_rows(from, rows, k, packed + ptrdiff_t{first} * k);
}

// One panel against tiles of rows, chunk of K by chunk: the unpacked chunk stays in L1. Meanwhile
// the next one is fetched to L2.
void MultiplyPanel(const Kernels& kernels, const Product& product, int panel, int begin, int end,
                   const float* packed) {
  alignas(64) float weights[kChunkRows * kPanelWidth];
  const PackedMatrix& matrix = *product.matrix;
  const int k = matrix.layout.k;
  const size_t chunk = matrix.layout.panel_bytes / size_t(k) * kChunkRows;
  const size_t share = chunk / size_t(CeilDiv(end - begin, kTileRows)) + 64;
  const std::byte* next = matrix.Panel(panel, product.part) + chunk;
  float* c = product.c + ptrdiff_t(panel) * kPanelWidth;
  for (int k0 = 0; k0 < k; k0 += kChunkRows, next += chunk) {
    const int k1 = std::min(k, k0 + kChunkRows);
    kernels.unpack(matrix.layout, matrix.Panel(panel, product.part), k0, k1, weights);
    const std::byte* fetch = next;
    for (int row = begin; row < end; row += kTileRows, fetch += share) {
      for (size_t at = 0; at < share; at += 64) __builtin_prefetch(fetch + at, 0, 2);
      kernels.tile(packed + (ptrdiff_t(row) * k + ptrdiff_t(k0) * kTileRows), weights, k1 - k0,
                   std::min(kTileRows, end - row), c + row * product.ldc, product.ldc, k0 > 0);
    }
  }
}

// Panels [first, last) of a product.
void MultiplyFloats(const Kernels& kernels, const RowGroup& group, const Product& product,
                    int first, int last, const float* packed) {
  const PackedMatrix& matrix = *product.matrix;
  const int k = matrix.layout.k;
  if (IsDirect(kernels, group)) {
    const bool gathered = IsGathered(kernels, group);
    kernels.direct(matrix.layout, matrix.Panel(first, product.part), last - first,
                   gathered ? packed : RowOf(group, 0), gathered ? k : group.lda, group.rows,
                   product.c + ptrdiff_t(first) * kPanelWidth, product.ldc);
    return;
  }
  const int sweep = SweepRows(size_t(k), kTileRows);
  for (int row = 0; row < group.rows; row += sweep)
    for (int panel = first; panel < last; ++panel)
      MultiplyPanel(kernels, product, panel, row, std::min(group.rows, row + sweep), packed);
}

// --- 8 bits --------------------------------------------------------------------------------------

// Tile `index` of a group's rows.
Int8Tile TileOf(const RowGroup& group, int index, int k, float* packed) {
  return Int8TileAt(packed + size_t(index) * Int8TileFloats(kInt8TileRows, k),
                    std::min(kInt8TileRows, group.rows - index * kInt8TileRows), k);
}

void PrepareInt8(const Kernels& kernels, const RowGroup& group, int item, int k, float* packed) {
  const Int8Tile tile = TileOf(group, item, k, packed);
  const float* from[kInt8TileRows] = {};
  for (int r = 0; r < tile.rows; ++r) from[r] = RowOf(group, item * kInt8TileRows + r);
  kernels.int8_pack(from, k, tile);
}

// One panel against tiles [begin, end), chunk of K by chunk. Panels lie one behind the other; while
// a tile goes through a chunk it fetches its share of as many bytes further on: with one tile
// kFetchAhead further, with many a chunk more, as the first tile already needs all of its chunk.
void MultiplyPanelInt8(const Kernels& kernels, const RowGroup& group, const Product& product,
                       int panel, int begin, int end, float* packed) {
  alignas(64) std::byte chunk[kInt8ChunkBytes];
  const PackedMatrix& matrix = *product.matrix;
  const PanelLayout& layout = matrix.layout;
  const std::byte* weights = matrix.Panel(panel, product.part);
  const std::byte* from = weights;
  const int k = layout.k, tiles = end - begin;
  const bool direct = layout.format == PanelFormat::kQ8 || tiles <= kernels.int8_direct_tiles;
  for (int k0 = 0; k0 < k; k0 += kInt8ChunkRows) {
    const int k1 = std::min(k, k0 + kInt8ChunkRows);
    if (!direct) kernels.int8_unpack(layout, weights, k0, k1, chunk);
    const size_t bytes = size_t((k1 - k0) / layout.group) * layout.group_bytes;
    const size_t share = bytes / size_t(tiles);
    Ahead ahead{from + kFetchAhead + (bytes - share), share};
    from += bytes;
    for (int index = begin; index < end; ++index, ahead.at += share) {
      const Int8Tile tile = TileOf(group, index, k, packed);
      float* c = product.c + index * kInt8TileRows * product.ldc + ptrdiff_t(panel) * kPanelWidth;
      if (direct)
        kernels.int8_direct(layout, weights, tile, k0, k1, c, product.ldc, k0 > 0, ahead);
      else
        kernels.int8_tile(layout, chunk, tile, k0, k1, c, product.ldc, k0 > 0, ahead);
    }
  }
}

// Panels [first, last) of a product.
void MultiplyInt8(const Kernels& kernels, const RowGroup& group, const Product& product, int first,
                  int last, float* packed) {
  const int k = product.matrix->layout.k, tiles = CeilDiv(group.rows, kInt8TileRows);
  const int sweep = SweepRows(Int8TileFloats(1, k), kInt8TileRows) / kInt8TileRows;
  for (int begin = 0; begin < tiles; begin += sweep)
    for (int panel = first; panel < last; ++panel)
      MultiplyPanelInt8(kernels, group, product, panel, begin, std::min(tiles, begin + sweep),
                        packed);
}

// --- Both ----------------------------------------------------------------------------------------

// A group of rows as its products want it: first what is in f32, then what is in 8 bits.
struct Work {
  const RowGroup* group;
  int64_t panels = 0;   // of all products
  int64_t cost = 0;     // of one
  int float_items = 0;  // pieces of work to prepare it
  int int8_items = 0;
  float* floats = nullptr;
  float* bytes = nullptr;
};

// `packed` moves behind what the group's rows take.
Work WorkOf(const Kernels& kernels, const RowGroup& group, Activations activations, int k,
            float** packed) {
  Work work{.group = &group};
  if (group.rows == 0) return work;
  bool floats = false, bytes = false;
  for (const Product& product : group.products) {
    CHECK(product.matrix->layout.k == k && product.ldc >= product.matrix->padded_outputs());
    work.panels += product.matrix->panels;
    (InInt8(*product.matrix, activations) ? bytes : floats) = true;
  }
  work.cost = (floats ? kRowsAPanel : kInt8RowsAPanel) + group.rows;
  work.floats = *packed;
  if (floats) {
    work.float_items = FloatItems(kernels, group);
    *packed += FloatFloats(kernels, group, k);
  }
  work.bytes = *packed;
  if (bytes) {
    work.int8_items = CeilDiv(group.rows, kInt8TileRows);
    *packed += Int8TileFloats(group.rows, k);
  }
  return work;
}

// Panels [begin, end) of a group's products in a row.
void MultiplyPanels(const Kernels& kernels, const Work& work, Activations activations, int begin,
                    int end) {
  int before = 0;
  for (const Product& product : work.group->products) {
    const int first = std::max(begin - before, 0);
    const int last = std::min(end - before, product.matrix->panels);
    before += product.matrix->panels;
    if (first >= last) continue;
    if (InInt8(*product.matrix, activations))
      MultiplyInt8(kernels, *work.group, product, first, last, work.bytes);
    else
      MultiplyFloats(kernels, *work.group, product, first, last, work.floats);
  }
}

}  // namespace

size_t PackedRowsFloats(int rows, int groups, int k) {
  // In f32 every group fills its last tile up; in 8 bits none does.
  const size_t filled = size_t(rows) + size_t(std::min(groups, rows)) * (kTileRows - 1);
  return filled * size_t(k) + Int8TileFloats(rows, k);
}

void Multiply(const Kernels& kernels, ThreadPool& pool, Activations activations,
              std::span<const RowGroup> groups, float* packed) {
  CHECK(!groups.empty() && !groups[0].products.empty());
  const int k = groups[0].products[0].matrix->layout.k;
  std::vector<Work> works;
  works.reserve(groups.size());
  int items = 0;
  int64_t panels = 0, cost = 0;
  for (const RowGroup& group : groups) {
    const Work& work = works.emplace_back(WorkOf(kernels, group, activations, k, &packed));
    items += work.float_items + work.int8_items;
    panels += work.panels;
    cost += work.panels * work.cost;
  }

  pool.Split(items, [&](int begin, int end, int) {
    int before = 0;
    for (const Work& work : works) {
      const int count = work.float_items + work.int8_items;
      const int first = std::max(begin - before, 0), last = std::min(end - before, count);
      for (int item = first; item < last; ++item) {
        if (item < work.float_items)
          PrepareFloats(kernels, *work.group, item, k, work.floats);
        else
          PrepareInt8(kernels, *work.group, item - work.float_items, k, work.bytes);
      }
      before += count;
    }
  });

  // The panels of all products of all groups in a row; a range of cost has those that begin in it.
  const int ranges = static_cast<int>(
      std::min<int64_t>(panels, pool.threads() == 1 ? 1 : pool.threads() * kRangesPerThread));
  pool.Claim(ranges, [&](int range, int) {
    const int64_t begin = cost * range / ranges, end = cost * (range + 1) / ranges;
    int64_t before = 0;
    for (const Work& work : works) {
      if (work.panels == 0) continue;
      const auto panel_at = [&](int64_t at) {
        return static_cast<int>(
            std::clamp<int64_t>((at - before + work.cost - 1) / work.cost, 0, work.panels));
      };
      MultiplyPanels(kernels, work, activations, panel_at(begin), panel_at(end));
      before += work.panels * work.cost;
    }
  });
}

void Multiply(const Kernels& kernels, ThreadPool& pool, Activations activations, const float* a,
              int rows, float* packed, std::span<const Product> products) {
  CHECK(!products.empty());
  const RowGroup group{.a = a,
                       .lda = products[0].matrix->layout.k,
                       .index = nullptr,
                       .rows = rows,
                       .products = products};
  Multiply(kernels, pool, activations, {&group, 1}, packed);
}

}  // namespace perdure::engine
