#include "engine/weights/weight_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "engine/read_numbers.h"
#include "engine/weights/pack.h"

namespace perdure::engine {
namespace {

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

// What a module's shapes say of its quantization; nothing where they make no sense.
std::optional<QuantConfig> QuantOfShapes(const TensorInfo& weight, const TensorInfo& scales,
                                         int inputs) {
  if (weight.shape.empty() || weight.shape.size() != scales.shape.size() ||
      !std::equal(weight.shape.begin(), weight.shape.end() - 1, scales.shape.begin()))
    return std::nullopt;
  const int64_t words = weight.shape.back(), groups = scales.shape.back();
  if (words < 1 || words > inputs || groups < 1 || groups > inputs || inputs % groups != 0 ||
      words * 32 % inputs != 0)
    return std::nullopt;
  const QuantConfig quant{
      .mode = scales.dtype == DType::kU8 ? QuantMode::kMxfp4 : QuantMode::kAffine,
      .bits = static_cast<int>(words * 32 / inputs),
      .group = static_cast<int>(inputs / groups)};
  return IsSupported(quant) ? std::optional(quant) : std::nullopt;
}

PanelLayout LayoutOf(const std::optional<QuantConfig>& quant, DType weight, DType scales,
                     int inputs) {
  if (!quant) return MakePanelLayout(*FloatFormat(weight), inputs, 0, ScaleType::kF32);
  const PanelFormat format = PanelFormatOf(*quant);
  return MakePanelLayout(format, inputs, quant->group,
                         format == PanelFormat::kMxfp4 ? ScaleType::kF32 : *ScaleTypeOf(scales));
}

// A section's name says what lies in it: two halves of one tensor are two sections.
std::string SectionName(const MatrixSource& source, const PanelLayout& layout) {
  return fmt::format("{} row {} format {} scales {} group {}", source.weight, source.first_row,
                     static_cast<int>(layout.format), static_cast<int>(layout.scale_type),
                     layout.group);
}

// Appends the matrices of one source.
void AddMatrices(const MatrixSource& source, const TensorInfo* weight, const TensorInfo* scales,
                 const TensorInfo* biases, int outputs, std::vector<SourceMatrix>* to) {
  const auto parts = static_cast<size_t>(std::max(source.parts, 1));
  const auto rows = static_cast<size_t>(source.rows > 0 ? source.rows : outputs);
  for (size_t part = 0; part < parts; ++part) {
    const auto rows_of = [&](const TensorInfo* tensor) {
      if (tensor == nullptr) return SourceRows{};
      const size_t row_bytes = tensor->data.size() / (parts * rows);
      const size_t first = part * rows + static_cast<size_t>(source.first_row);
      return SourceRows{tensor, tensor->data.data() + first * row_bytes, row_bytes};
    };
    to->push_back({rows_of(weight), rows_of(scales), rows_of(biases)});
  }
}

}  // namespace

Result<std::optional<QuantConfig>> WeightReader::QuantOf(const MatrixSource& source,
                                                         int inputs) const {
  using Found = std::optional<QuantConfig>;
  const TensorInfo* scales = checkpoint_.Find(source.module + ".scales");
  if (!config_.quantization) {
    if (scales == nullptr) return Found();
    return Err(ErrorCode::bad_model,
               fmt::format("{}: {}.scales is there, but config.json has no quantization",
                           checkpoint_.dir().string(), source.module));
  }
  const auto it = config_.quantization->overrides.find(source.module);
  if (it != config_.quantization->overrides.end()) return it->second;
  if (scales == nullptr) return Found();
  // Not named: as its shapes say (mlx-lm does the same), which converters that mix kinds rely on.
  const TensorInfo* weight = checkpoint_.Find(source.weight);
  const auto quant = weight != nullptr ? QuantOfShapes(*weight, *scales, inputs) : std::nullopt;
  return Found(quant.value_or(config_.quantization->all));
}

Result<const TensorInfo*> WeightReader::Get(const MatrixSource& source, const std::string& name,
                                            int outputs, int64_t columns) const {
  const int64_t shape[] = {source.parts, source.rows > 0 ? source.rows : outputs, columns};
  return checkpoint_.Get(name, std::span(shape).subspan(source.parts > 0 ? 0 : 1));
}

Result<WeightReader::Tensors> WeightReader::FindFloats(const MatrixSource& source, int outputs,
                                                       int inputs) const {
  const TensorInfo* tensor = checkpoint_.Find(source.weight);
  if (tensor != nullptr && tensor->dtype == DType::kU32)
    return Err(ErrorCode::bad_model,
               fmt::format("{}: tensor {} is of dtype U32, as quantized ones are, but {}.scales is "
                           "missing or config.json says that it is not quantized",
                           tensor->file->path().string(), source.weight, source.module));
  Tensors found;
  ASSIGN_OR_RETURN(found.weight, Get(source, source.weight, outputs, inputs));
  if (!FloatFormat(found.weight->dtype)) return WrongType(*found.weight, "BF16, F16 or F32");
  return found;
}

Result<WeightReader::Tensors> WeightReader::Find(const MatrixSource& source, int outputs,
                                                 int inputs) const {
  Tensors found;
  ASSIGN_OR_RETURN(found.quant, QuantOf(source, inputs));
  if (!found.quant) return FindFloats(source, outputs, inputs);
  const QuantConfig& quant = *found.quant;
  if (inputs % quant.group != 0)
    return Err(ErrorCode::bad_model,
               fmt::format("{}: {} is quantized in groups of {}, but has {} inputs",
                           checkpoint_.dir().string(), source.module, quant.group, inputs));
  const std::string biases = source.module + ".biases";
  ASSIGN_OR_RETURN(found.weight,
                   Get(source, source.weight, outputs, int64_t{inputs} * quant.bits / 32));
  ASSIGN_OR_RETURN(found.scales,
                   Get(source, source.module + ".scales", outputs, inputs / quant.group));
  if (found.weight->dtype != DType::kU32) return WrongType(*found.weight, "U32");
  if (quant.mode == QuantMode::kMxfp4) {
    if (found.scales->dtype != DType::kU8) return WrongType(*found.scales, "U8 (mxfp4)");
    if (Has(biases))
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: tensor {} is there, but config.json says mxfp4, which has none",
                             checkpoint_.dir().string(), biases));
    return found;
  }
  ASSIGN_OR_RETURN(found.biases, Get(source, biases, outputs, inputs / quant.group));
  if (!ScaleTypeOf(found.scales->dtype)) return WrongType(*found.scales, "BF16, F16 or F32");
  if (found.biases->dtype != found.scales->dtype)
    return WrongType(*found.biases, "the dtype of the scales");
  return found;
}

Result<std::span<const std::byte>> WeightReader::Section(const std::string& name,
                                                         size_t bytes) const {
  const auto data = place_.from->Find(name);
  if (data && data->size() == bytes) return *data;
  return Err(ErrorCode::io_error,
             fmt::format("{} does not fit: its section \"{}\" is missing or of another size",
                         place_.from->path().string(), name));
}

Result<PackedMatrix> WeightReader::MappedMatrix(const std::string& section,
                                                const PanelLayout& layout, int outputs,
                                                size_t parts) const {
  PackedMatrix matrix;
  matrix.layout = layout;
  matrix.outputs = outputs;
  matrix.panels = (outputs + kPanelWidth - 1) / kPanelWidth;
  matrix.parts = static_cast<int>(parts);
  const size_t bytes = parts * static_cast<size_t>(matrix.panels) * layout.panel_bytes;
  ASSIGN_OR_RETURN(matrix.data, Section(section, bytes));
  return matrix;
}

Result<PackedMatrix> WeightReader::Matrix(const std::string& module, int outputs, int inputs) {
  const MatrixSource source{.module = module, .weight = module + ".weight"};
  return Matrices({&source, 1}, outputs, inputs);
}

Result<PackedMatrix> WeightReader::Matrices(std::span<const MatrixSource> sources, int outputs,
                                            int inputs) {
  std::optional<Tensors> first;
  std::vector<SourceMatrix> matrices;
  for (const MatrixSource& source : sources) {
    ASSIGN_OR_RETURN(const Tensors found, Find(source, outputs, inputs));
    if (!first) first = found;
    if (found.quant != first->quant || found.weight->dtype != first->weight->dtype ||
        (found.scales != nullptr && found.scales->dtype != first->scales->dtype))
      return Err(ErrorCode::bad_model,
                 fmt::format("{}: {} and {} are of different types; the experts of a layer share "
                             "one dtype and quantization",
                             checkpoint_.dir().string(), sources[0].weight, source.weight));
    AddMatrices(source, found.weight, found.scales, found.biases, outputs, &matrices);
  }
  parameters_ += static_cast<int64_t>(matrices.size()) * outputs * inputs;
  const auto quant = first->quant ? first->quant : QuantizeTo(config_, sources[0].module, inputs);
  const DType scales = (first->scales != nullptr ? first->scales : first->weight)->dtype;
  const PanelLayout layout = LayoutOf(quant, first->weight->dtype, scales, inputs);
  const std::string section = SectionName(sources[0], layout);
  if (place_.from != nullptr) return MappedMatrix(section, layout, outputs, matrices.size());
  ASSIGN_OR_RETURN(PackedMatrix matrix,
                   Pack(layout, outputs, quant ? quant->bits : 0, matrices, pool_, done_));
  if (place_.to != nullptr) {
    RETURN_IF_ERROR(place_.to->Add(section, matrix.data));
    matrix.data = {};
    matrix.memory = {};
  }
  return matrix;
}

Status WeightReader::RefuseBias(const std::string& module) const {
  if (!Has(module + ".bias")) return {};
  return Err(
      ErrorCode::unsupported,
      fmt::format("the checkpoint has {}.bias, which this architecture does not use", module));
}

Result<std::vector<float>> WeightReader::Vector(const std::string& name, int size) {
  if (place_.from != nullptr) {
    std::vector<float> values(static_cast<size_t>(size));
    ASSIGN_OR_RETURN(const auto data, Section(name, values.size() * sizeof(float)));
    std::memcpy(values.data(), data.data(), data.size());
    parameters_ += size;
    return values;
  }
  ASSIGN_OR_RETURN(std::vector<float> values, ReadVector(name, size));
  if (place_.to != nullptr) RETURN_IF_ERROR(place_.to->Add(name, std::as_bytes(std::span(values))));
  return values;
}

Result<std::vector<float>> WeightReader::ReadVector(const std::string& name, int size) {
  const int64_t shape[] = {size};
  ASSIGN_OR_RETURN(const TensorInfo* const tensor, checkpoint_.Get(name, shape));
  std::vector<float> values(static_cast<size_t>(size));
  const std::byte* data = tensor->data.data();
  const auto type = ScaleTypeOf(tensor->dtype);
  if (!type) return WrongType(*tensor, "BF16, F16 or F32");
  for (size_t i = 0; i < values.size(); ++i) values[i] = ReadFloatAt(*type, data, i);
  parameters_ += size;
  done_(tensor->data.size());
  return values;
}

}  // namespace perdure::engine
