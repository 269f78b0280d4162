#include "engine/weights/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/check.h"

namespace perdure::engine {
namespace {

// Source bytes that are packed before their pages are dropped and progress is reported.
constexpr size_t kBatchBytes = size_t{32} << 20;
// Columns that are transposed at once: 32 rows of 64 stay in L1.
constexpr size_t kBlock = 64;
constexpr std::byte kNanScale{255};  // E8M0

// panel[k][slot(lane)] = rows[lane][k], elements of T. Rows may be of any alignment: the format
// does not promise more.
template <class T, class Slot>
void Transpose(const SourceRows& rows, size_t first, size_t lanes, size_t k, std::byte* panel,
               Slot slot) {
  for (size_t k0 = 0; k0 < k; k0 += kBlock) {
    const size_t k1 = std::min(k, k0 + kBlock);
    for (size_t lane = 0; lane < lanes; ++lane) {
      const std::byte* row = rows.first + (first + lane) * rows.row_bytes;
      T* to = reinterpret_cast<T*>(panel) + slot(lane);
      for (size_t i = k0; i < k1; ++i)
        std::memcpy(to + i * kPanelWidth, row + i * sizeof(T), sizeof(T));
    }
  }
}

size_t Plain(size_t lane) { return lane; }
// Little-endian words: lane i in the low half of word i, lane i + 16 in its high half.
size_t Interleaved(size_t lane) { return lane % 16 * 2 + lane / 16; }

void PackFloatPanel(const PanelLayout& layout, const SourceRows& rows, size_t first, size_t lanes,
                    std::byte* panel) {
  const auto k = static_cast<size_t>(layout.k);
  if (layout.format == PanelFormat::kF32)
    Transpose<uint32_t>(rows, first, lanes, k, panel, Plain);
  else if (layout.format == PanelFormat::kF16)
    Transpose<uint16_t>(rows, first, lanes, k, panel, Plain);
  else
    Transpose<uint16_t>(rows, first, lanes, k, panel, Interleaved);
}

// Element `index` of a little-endian stream of `bits`-bit numbers, `bytes` long.
std::byte ReadBits(const std::byte* row, size_t bytes, size_t index, size_t bits) {
  const size_t at = index * bits / 8, shift = index * bits % 8;
  uint32_t window = static_cast<uint32_t>(row[at]);
  if (at + 1 < bytes) window |= static_cast<uint32_t>(row[at + 1]) << 8;
  return static_cast<std::byte>((window >> shift) & ((1u << bits) - 1u));
}

// The numbers of group `g` of one row.
void PackNumbers(const PanelLayout& layout, const std::byte* row, size_t row_bytes, size_t bits,
                 size_t g, size_t lane, std::byte* body) {
  const auto group = static_cast<size_t>(layout.group);
  if (layout.format != PanelFormat::kQ8) {  // the nibbles as they are
    for (size_t i = 0; i < group / 8; ++i)
      std::memcpy(body + (i * kPanelWidth + lane) * 4, row + (g * group / 8 + i) * 4, 4);
  } else if (bits == 8) {
    for (size_t i = 0; i < group; ++i) body[i * kPanelWidth + lane] = row[g * group + i];
  } else {
    for (size_t i = 0; i < group; ++i)
      body[i * kPanelWidth + lane] = ReadBits(row, row_bytes, g * group + i, bits);
  }
}

// False where a scale is not a number.
bool PackQuantizedPanel(const PanelLayout& layout, const SourceMatrix& source, size_t bits,
                        size_t first, size_t lanes, std::byte* panel) {
  const bool mxfp4 = layout.format == PanelFormat::kMxfp4;
  const size_t scale_bytes = mxfp4 ? 1 : layout.scale_type == ScaleType::kF32 ? 4 : 2;
  const size_t groups = static_cast<size_t>(layout.k / layout.group);
  bool good = true;
  for (size_t g = 0; g < groups; ++g) {
    std::byte* header = panel + g * layout.group_bytes;
    std::byte* body = header + layout.group_header_bytes;
    for (size_t lane = 0; lane < lanes; ++lane) {
      const size_t row = first + lane;
      const size_t scale_at = row * source.scales.row_bytes + g * scale_bytes;
      std::memcpy(header + lane * scale_bytes, source.scales.first + scale_at, scale_bytes);
      if (mxfp4)
        good = good && header[lane] != kNanScale;
      else
        std::memcpy(header + (kPanelWidth + lane) * scale_bytes, source.biases.first + scale_at,
                    scale_bytes);
      PackNumbers(layout, source.weight.first + row * source.weight.row_bytes,
                  source.weight.row_bytes, bits, g, lane, body);
    }
  }
  return good;
}

// Drops rows [begin, end) from memory; returns their bytes.
uint64_t Drop(const SourceRows& rows, size_t begin, size_t end) {
  if (rows.tensor == nullptr) return 0;
  const size_t bytes = (end - begin) * rows.row_bytes;
  rows.tensor->file->DropPages({rows.first + begin * rows.row_bytes, bytes});
  return bytes;
}

}  // namespace

Result<PackedMatrix> Pack(const PanelLayout& layout, int outputs, int bits,
                          std::span<const SourceMatrix> sources, ThreadPool& pool,
                          const std::function<void(uint64_t)>& done) {
  CHECK(!sources.empty() && outputs > 0);
  PackedMatrix matrix;
  matrix.layout = layout;
  matrix.outputs = outputs;
  matrix.panels = (outputs + kPanelWidth - 1) / kPanelWidth;
  matrix.parts = static_cast<int>(sources.size());
  const auto rows = static_cast<size_t>(outputs), panels = static_cast<size_t>(matrix.panels);
  const size_t all = sources.size() * panels;
  ASSIGN_OR_RETURN(matrix.data, AlignedBuffer::Allocate(all * layout.panel_bytes,
                                                        sources[0].weight.tensor->name));

  const SourceMatrix& one = sources[0];
  const size_t bytes_a_panel =
      (one.weight.row_bytes + one.scales.row_bytes + one.biases.row_bytes) * kPanelWidth;
  const size_t batch = std::clamp<size_t>(kBatchBytes / std::max<size_t>(bytes_a_panel, 1),
                                          static_cast<size_t>(pool.threads()), 1 << 20);
  std::atomic<size_t> bad_part{sources.size()};
  for (size_t begin = 0; begin < all; begin += batch) {
    const size_t end = std::min(all, begin + batch);
    pool.Split(static_cast<int>(end - begin), [&](int from, int to, int) {
      for (size_t at = begin + size_t(from); at < begin + size_t(to); ++at) {
        const SourceMatrix& source = sources[at / panels];
        const size_t first = at % panels * kPanelWidth;
        const size_t lanes = std::min<size_t>(kPanelWidth, rows - first);
        std::byte* panel = matrix.data.data() + at * layout.panel_bytes;
        if (layout.group == 0)
          PackFloatPanel(layout, source.weight, first, lanes, panel);
        else if (!PackQuantizedPanel(layout, source, static_cast<size_t>(bits), first, lanes,
                                     panel))
          bad_part.store(at / panels, std::memory_order_relaxed);
      }
    });
    uint64_t consumed = 0;
    for (size_t part = begin / panels; part * panels < end; ++part) {
      const size_t from = begin > part * panels ? (begin - part * panels) * kPanelWidth : 0;
      const size_t to = std::min((end - part * panels) * kPanelWidth, rows);
      for (const SourceRows* source :
           {&sources[part].weight, &sources[part].scales, &sources[part].biases})
        consumed += Drop(*source, from, to);
    }
    done(consumed);
  }
  if (const size_t part = bad_part.load(std::memory_order_relaxed); part < sources.size()) {
    const TensorInfo& scales = *sources[part].scales.tensor;
    return Err(ErrorCode::bad_model,
               fmt::format("{}: tensor {} has a scale of 255, which is NaN in mxfp4 (E8M0): the "
                           "file is damaged or was converted badly; fetch or convert it again",
                           scales.file->path().string(), scales.name));
  }
  return matrix;
}

}  // namespace perdure::engine
