#include "engine/weights/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/float16.h"

namespace perdure::engine {
namespace {

// Source bytes that are packed before their pages are dropped and progress is reported.
constexpr size_t kBatchBytes = size_t{32} << 20;
// Columns that are transposed at once: 32 rows of 64 stay in L1.
constexpr size_t kBlock = 64;

// Reads may be of any alignment: the format does not promise more.
template <class T>
T ReadAt(const std::byte* from, size_t index) {
  T value;
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

// panel[k][slot(lane)] = rows[lane][k], elements of T.
template <class T, class Slot>
void Transpose(const std::byte* rows, size_t row_bytes, size_t lanes, size_t k, T* panel,
               Slot slot) {
  for (size_t k0 = 0; k0 < k; k0 += kBlock) {
    const size_t k1 = std::min(k, k0 + kBlock);
    for (size_t lane = 0; lane < lanes; ++lane) {
      const std::byte* row = rows + lane * row_bytes;
      T* to = panel + slot(lane);
      for (size_t i = k0; i < k1; ++i) to[i * kPanelWidth] = ReadAt<T>(row, i);
    }
  }
}

size_t Plain(size_t lane) { return lane; }
// Little-endian words: lane i in the low half of word i, lane i + 16 in its high half.
size_t Interleaved(size_t lane) { return lane % 16 * 2 + lane / 16; }

// Element `index` of a little-endian stream of `bits`-bit numbers, `bytes` long.
uint8_t ReadBits(const std::byte* row, size_t bytes, size_t index, size_t bits) {
  const size_t at = index * bits / 8, shift = index * bits % 8;
  uint32_t window = static_cast<uint32_t>(row[at]);
  if (at + 1 < bytes) window |= static_cast<uint32_t>(row[at + 1]) << 8;
  return static_cast<uint8_t>((window >> shift) & ((1u << bits) - 1u));
}

struct QuantizedSource {
  const std::byte* weight;
  const std::byte* scales;
  const std::byte* biases;
  size_t weight_row_bytes;
  size_t scale_row_bytes;
  size_t bits;
};

void PackQuantizedPanel(const PanelLayout& layout, const QuantizedSource& source, size_t first,
                        size_t lanes, std::byte* panel) {
  const size_t scale_bytes = layout.scale_type == ScaleType::kF32 ? 4 : 2;
  const size_t group = static_cast<size_t>(layout.group);
  const size_t groups = static_cast<size_t>(layout.k) / group;
  for (size_t g = 0; g < groups; ++g) {
    std::byte* header = panel + g * layout.group_bytes;
    std::byte* body = header + layout.group_header_bytes;
    for (size_t lane = 0; lane < lanes; ++lane) {
      const size_t scale_at = (first + lane) * source.scale_row_bytes + g * scale_bytes;
      std::memcpy(header + lane * scale_bytes, source.scales + scale_at, scale_bytes);
      std::memcpy(header + (kPanelWidth + lane) * scale_bytes, source.biases + scale_at,
                  scale_bytes);
      const std::byte* row = source.weight + (first + lane) * source.weight_row_bytes;
      if (layout.format == PanelFormat::kQ4) {
        for (size_t i = 0; i < group / 8; ++i)
          std::memcpy(body + (i * kPanelWidth + lane) * 4, row + (g * group / 8 + i) * 4, 4);
      } else if (source.bits == 8) {
        for (size_t i = 0; i < group; ++i) body[i * kPanelWidth + lane] = row[g * group + i];
      } else {
        for (size_t i = 0; i < group; ++i)
          body[i * kPanelWidth + lane] = static_cast<std::byte>(
              ReadBits(row, source.weight_row_bytes, g * group + i, source.bits));
      }
    }
  }
}

std::optional<PanelFormat> FloatFormat(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return PanelFormat::kF32;
    case DType::kF16:
      return PanelFormat::kF16;
    case DType::kBf16:
      return PanelFormat::kBf16;
    default:
      return std::nullopt;
  }
}

std::optional<ScaleType> ScaleTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return ScaleType::kF32;
    case DType::kF16:
      return ScaleType::kF16;
    case DType::kBf16:
      return ScaleType::kBf16;
    default:
      return std::nullopt;
  }
}

tl::unexpected<Error> WrongType(const TensorInfo& tensor, std::string_view wanted) {
  return Err(ErrorCode::bad_model,
             fmt::format("{}: tensor {} is of dtype {}, {} is needed", tensor.file->path().string(),
                         tensor.name, DTypeName(tensor.dtype), wanted));
}

// Allocates, then packs in batches: pack(panel index, lanes) fills one panel; sources' rows are
// dropped after each batch.
template <class Pack>
Result<PackedMatrix> PackAll(const std::string& module, const PanelLayout& layout, int outputs,
                             std::span<const TensorInfo* const> sources, ThreadPool& pool,
                             const std::function<void(uint64_t)>& done, Pack pack) {
  PackedMatrix matrix;
  matrix.layout = layout;
  matrix.outputs = outputs;
  matrix.panels = (outputs + kPanelWidth - 1) / kPanelWidth;
  ASSIGN_OR_RETURN(
      matrix.data,
      AlignedBuffer::Allocate(static_cast<size_t>(matrix.panels) * layout.panel_bytes, module));
  size_t source_bytes = 0;
  for (const TensorInfo* source : sources) source_bytes += source->data.size();
  const size_t bytes_a_panel =
      std::max<size_t>(1, source_bytes / static_cast<size_t>(matrix.panels));
  const int batch = static_cast<int>(std::clamp<size_t>(
      kBatchBytes / bytes_a_panel, static_cast<size_t>(pool.threads()), 1 << 20));
  for (int begin = 0; begin < matrix.panels; begin += batch) {
    const int end = std::min(matrix.panels, begin + batch);
    pool.Split(end - begin, [&](int from, int to, int) {
      for (int panel = begin + from; panel < begin + to; ++panel)
        pack(panel, std::min(kPanelWidth, outputs - panel * kPanelWidth),
             matrix.data.data() + static_cast<size_t>(panel) * layout.panel_bytes);
    });
    uint64_t consumed = 0;
    for (const TensorInfo* source : sources) {
      const size_t row_bytes = source->data.size() / static_cast<size_t>(outputs);
      const size_t from = static_cast<size_t>(begin) * kPanelWidth * row_bytes;
      const size_t to =
          std::min(static_cast<size_t>(end) * kPanelWidth * row_bytes, source->data.size());
      source->file->DropPages(source->data.subspan(from, to - from));
      consumed += to - from;
    }
    done(consumed);
  }
  return matrix;
}

}  // namespace

Result<std::optional<QuantConfig>> WeightReader::QuantOf(const std::string& module) const {
  using Found = std::optional<QuantConfig>;
  const bool has_scales = Has(module + ".scales");
  if (config_.quantization) {
    const auto it = config_.quantization->overrides.find(module);
    if (it != config_.quantization->overrides.end()) return it->second;
    return has_scales ? Found(config_.quantization->all) : Found();
  }
  if (has_scales)
    return Err(ErrorCode::bad_model,
               fmt::format("{}: {}.scales is there, but config.json has no quantization",
                           checkpoint_.dir().string(), module));
  return Found();
}

Result<PackedMatrix> WeightReader::Matrix(const std::string& module, int outputs, int inputs) {
  ASSIGN_OR_RETURN(const std::optional<QuantConfig> quant, QuantOf(module));
  parameters_ += int64_t{outputs} * inputs;
  return quant ? QuantizedMatrix(module, outputs, inputs, *quant)
               : FloatMatrix(module, outputs, inputs);
}

Result<PackedMatrix> WeightReader::FloatMatrix(const std::string& module, int outputs, int inputs) {
  const int64_t shape[] = {outputs, inputs};
  ASSIGN_OR_RETURN(const TensorInfo* const weight, checkpoint_.Get(module + ".weight", shape));
  const auto format = FloatFormat(weight->dtype);
  if (!format) return WrongType(*weight, "BF16, F16 or F32");
  const PanelLayout layout = MakePanelLayout(*format, inputs, 0, ScaleType::kF32);
  const size_t k = static_cast<size_t>(inputs);
  const size_t row_bytes = k * DTypeBytes(weight->dtype);
  const TensorInfo* const sources[] = {weight};
  return PackAll(module, layout, outputs, sources, pool_, done_,
                 [&](int panel, int lanes, std::byte* to) {
                   const std::byte* rows =
                       weight->data.data() + static_cast<size_t>(panel) * kPanelWidth * row_bytes;
                   const size_t n = static_cast<size_t>(lanes);
                   if (*format == PanelFormat::kF32)
                     Transpose(rows, row_bytes, n, k, reinterpret_cast<uint32_t*>(to), Plain);
                   else if (*format == PanelFormat::kF16)
                     Transpose(rows, row_bytes, n, k, reinterpret_cast<uint16_t*>(to), Plain);
                   else
                     Transpose(rows, row_bytes, n, k, reinterpret_cast<uint16_t*>(to), Interleaved);
                 });
}

Result<PackedMatrix> WeightReader::QuantizedMatrix(const std::string& module, int outputs,
                                                   int inputs, QuantConfig quant) {
  if (inputs % quant.group != 0)
    return Err(ErrorCode::bad_model,
               fmt::format("{}: {} is quantized in groups of {}, but has {} inputs",
                           checkpoint_.dir().string(), module, quant.group, inputs));
  const int64_t weight_shape[] = {outputs, int64_t{inputs} * quant.bits / 32};
  const int64_t scale_shape[] = {outputs, inputs / quant.group};
  ASSIGN_OR_RETURN(const TensorInfo* const weight,
                   checkpoint_.Get(module + ".weight", weight_shape));
  ASSIGN_OR_RETURN(const TensorInfo* const scales,
                   checkpoint_.Get(module + ".scales", scale_shape));
  ASSIGN_OR_RETURN(const TensorInfo* const biases,
                   checkpoint_.Get(module + ".biases", scale_shape));
  if (weight->dtype != DType::kU32) return WrongType(*weight, "U32");
  const auto scale_type = ScaleTypeOf(scales->dtype);
  if (!scale_type) return WrongType(*scales, "BF16, F16 or F32");
  if (biases->dtype != scales->dtype) return WrongType(*biases, "the dtype of the scales");

  // 4 bits stay 4 bits; the other widths take a byte each.
  const PanelLayout layout = MakePanelLayout(quant.bits == 4 ? PanelFormat::kQ4 : PanelFormat::kQ8,
                                             inputs, quant.group, *scale_type);
  const QuantizedSource source{
      .weight = weight->data.data(),
      .scales = scales->data.data(),
      .biases = biases->data.data(),
      .weight_row_bytes = weight->data.size() / static_cast<size_t>(outputs),
      .scale_row_bytes = scales->data.size() / static_cast<size_t>(outputs),
      .bits = static_cast<size_t>(quant.bits)};
  const TensorInfo* const sources[] = {weight, scales, biases};
  return PackAll(module, layout, outputs, sources, pool_, done_,
                 [&](int panel, int lanes, std::byte* to) {
                   PackQuantizedPanel(layout, source, static_cast<size_t>(panel) * kPanelWidth,
                                      static_cast<size_t>(lanes), to);
                 });
}

Result<std::vector<float>> WeightReader::Vector(const std::string& name, int size) {
  const int64_t shape[] = {size};
  ASSIGN_OR_RETURN(const TensorInfo* const tensor, checkpoint_.Get(name, shape));
  std::vector<float> values(static_cast<size_t>(size));
  const std::byte* data = tensor->data.data();
  switch (tensor->dtype) {
    case DType::kF32:
      for (size_t i = 0; i < values.size(); ++i) values[i] = ReadAt<float>(data, i);
      break;
    case DType::kF16:
      for (size_t i = 0; i < values.size(); ++i) values[i] = F16ToF32(ReadAt<uint16_t>(data, i));
      break;
    case DType::kBf16:
      for (size_t i = 0; i < values.size(); ++i) values[i] = Bf16ToF32(ReadAt<uint16_t>(data, i));
      break;
    default:
      return WrongType(*tensor, "BF16, F16 or F32");
  }
  parameters_ += size;
  done_(tensor->data.size());
  return values;
}

}  // namespace perdure::engine
