#include "engine/weights/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/hash.h"
#include "engine/weights/quantize.h"

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
  const auto number = [&](size_t i) {
    return bits == 8 ? row[g * group + i] : ReadBits(row, row_bytes, g * group + i, bits);
  };
  if (layout.format == PanelFormat::kQ8) {
    for (size_t i = 0; i < group; ++i) body[Q8Byte(i, lane)] = number(i);
    return;
  }
  for (size_t i = 0; i < group / 8; ++i) {
    std::byte* to = body + (i * kPanelWidth + lane) * 4;
    if (bits == 4) {  // the nibbles as they are
      std::memcpy(to, row + (g * group / 8 + i) * 4, 4);
      continue;
    }
    for (size_t j = 0; j < 4; ++j) to[j] = number(8 * i + 2 * j) | number(8 * i + 2 * j + 1) << 4;
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

bool IsQuantizedHere(const PanelLayout& layout, const SourceMatrix& source) {
  return layout.group != 0 && source.scales.first == nullptr;
}

// Packs rows [first, first + lanes); false where a number of theirs may not be. `quantized` is
// memory to be used again.
bool PackPanel(const PanelLayout& layout, const SourceMatrix& source, size_t bits, size_t first,
               size_t lanes, QuantizedRows* quantized, std::byte* panel) {
  if (layout.group == 0) {
    PackFloatPanel(layout, source.weight, first, lanes, panel);
    return true;
  }
  if (!IsQuantizedHere(layout, source))
    return PackQuantizedPanel(layout, source, bits, first, lanes, panel);
  return quantized->Quantize(layout, static_cast<int>(bits), source.weight, first, lanes) &&
         PackQuantizedPanel(layout, quantized->source(), bits, 0, lanes, panel);
}

tl::unexpected<Error> BadNumber(const PanelLayout& layout, const SourceMatrix& source) {
  if (IsQuantizedHere(layout, source))
    return Err(
        ErrorCode::bad_model,
        fmt::format("{}: tensor {} holds infinite values or NaN, which cannot be quantized: "
                    "the file is damaged or was converted badly; fetch or convert it again",
                    source.weight.tensor->file->path().string(), source.weight.tensor->name));
  const TensorInfo& scales = *source.scales.tensor;
  return Err(ErrorCode::bad_model,
             fmt::format("{}: tensor {} has a scale of 255, which is NaN in mxfp4 (E8M0): the "
                         "file is damaged or was converted badly; fetch or convert it again",
                         scales.file->path().string(), scales.name));
}

// Drops rows [begin, end) from memory; returns their bytes.
uint64_t Drop(const SourceRows& rows, size_t begin, size_t end) {
  if (rows.tensor == nullptr) return 0;
  const size_t bytes = (end - begin) * rows.row_bytes;
  rows.tensor->file->DropPages({rows.first + begin * rows.row_bytes, bytes});
  return bytes;
}

}  // namespace

PanelFormat PanelFormatOf(const QuantConfig& quant) {
  if (quant.mode == QuantMode::kMxfp4) return PanelFormat::kMxfp4;
  return quant.bits <= 4 ? PanelFormat::kQ4 : PanelFormat::kQ8;
}

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
  ASSIGN_OR_RETURN(matrix.memory, AlignedBuffer::Allocate(all * layout.panel_bytes,
                                                          sources[0].weight.tensor->name));
  matrix.data = {matrix.memory.data(), matrix.memory.size()};

  const SourceMatrix& one = sources[0];
  const size_t bytes_a_panel =
      (one.weight.row_bytes + one.scales.row_bytes + one.biases.row_bytes) * kPanelWidth;
  const size_t batch = std::clamp<size_t>(kBatchBytes / std::max<size_t>(bytes_a_panel, 1),
                                          static_cast<size_t>(pool.threads()), 1 << 20);
  std::atomic<size_t> bad_part{sources.size()};
  for (size_t begin = 0; begin < all; begin += batch) {
    const size_t end = std::min(all, begin + batch);
    pool.Split(static_cast<int>(end - begin), [&](int from, int to, int) {
      QuantizedRows quantized;
      for (size_t at = begin + size_t(from); at < begin + size_t(to); ++at) {
        const SourceMatrix& source = sources[at / panels];
        const size_t first = at % panels * kPanelWidth;
        const size_t lanes = std::min<size_t>(kPanelWidth, rows - first);
        std::byte* panel = matrix.memory.data() + at * layout.panel_bytes;
        if (!PackPanel(layout, source, static_cast<size_t>(bits), first, lanes, &quantized, panel))
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
  if (const size_t part = bad_part.load(std::memory_order_relaxed); part < sources.size())
    return BadNumber(layout, sources[part]);
  return matrix;
}

uint64_t PanelsFingerprint() {
  constexpr int kInputs = 256;
  constexpr size_t kRows = kPanelWidth - 1;  // a panel that is not full
  // Every pattern of bits is a number of every format, but for the floats to be quantized.
  std::vector<std::byte> bytes(kRows * kInputs * sizeof(float));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 % 113);
  const auto rows = [&](size_t row_bytes) { return SourceRows{nullptr, bytes.data(), row_bytes}; };
  Hasher64 hasher;
  const auto add = [&](PanelFormat format, int group, ScaleType scale, int bits, bool floats) {
    const PanelLayout layout = MakePanelLayout(format, kInputs, group, scale);
    SourceMatrix source{.weight = rows(kInputs * sizeof(float)), .scales = {}, .biases = {}};
    if (group != 0 && !floats) {
      source = {.weight = rows(static_cast<size_t>(kInputs * bits / 8)),
                .scales = rows(kInputs / 32 * sizeof(float)),
                .biases = rows(kInputs / 32 * sizeof(float))};
    }
    std::vector<std::byte> panel(layout.panel_bytes);
    QuantizedRows quantized;
    PackPanel(layout, source, static_cast<size_t>(bits), 0, kRows, &quantized, panel.data());
    hasher.Add(panel);
  };
  for (const PanelFormat format : {PanelFormat::kF32, PanelFormat::kF16, PanelFormat::kBf16})
    add(format, 0, ScaleType::kF32, 0, true);
  for (const ScaleType scale : {ScaleType::kF32, ScaleType::kF16, ScaleType::kBf16}) {
    for (const int group : {32, 64, 128}) {
      for (const int bits : {2, 3, 4, 5, 6, 8})
        add(PanelFormatOf({.bits = bits, .group = group}), group, scale, bits, false);
    }
    add(PanelFormat::kQ8, 64, scale, 8, true);
    add(PanelFormat::kQ4, 64, scale, 4, true);
  }
  add(PanelFormat::kMxfp4, kMxfp4Group, ScaleType::kF32, 4, false);
  return hasher.value();
}

}  // namespace perdure::engine
