#include "engine/model_summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "engine/kernels/kernels.h"
#include "engine/models/registry.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/pack.h"

namespace perdure::engine {
namespace {

int64_t Elements(const TensorInfo& tensor) {
  int64_t count = 1;
  for (const int64_t size : tensor.shape) count *= size;
  return count;
}

std::string_view ModuleOf(std::string_view tensor, std::string_view suffix) {
  return tensor.ends_with(suffix) ? tensor.substr(0, tensor.size() - suffix.size())
                                  : std::string_view();
}

bool IsBelow(std::string_view name, std::string_view module) {
  return name.starts_with(module) && name.substr(module.size()).starts_with('.');
}

bool IsExpert(std::string_view name) {
  return name.find(".experts.") != std::string_view::npos ||
         name.find(".switch_mlp.") != std::string_view::npos;
}

class Counter {
 public:
  Counter(const Checkpoint& checkpoint, const DecoderSpec& spec)
      : checkpoint_(checkpoint), config_(spec.config), names_(FindNames(checkpoint, spec)) {
    tied_ =
        config_.tied_embeddings.value_or(!checkpoint.Has(fmt::format("{}.weight", names_.head)));
  }

  WeightsSummary Count() {
    std::set<const MappedFile*> files;
    for (const auto& [name, tensor] : checkpoint_.tensors()) {
      files.insert(tensor->file);
      if (IsUsed(name)) Add(name, *tensor);
    }
    summary_.files = static_cast<int>(files.size());
    summary_.disk_bytes = checkpoint_.data_bytes();
    summary_.active_parameters = summary_.parameters;
    const ExpertsConfig& experts = config_.experts;
    if (experts.count > 0)
      summary_.active_parameters -=
          expert_parameters_ / experts.count * (experts.count - experts.per_token);
    for (auto& [key, format] : formats_) summary_.formats.push_back(std::move(format));
    std::stable_sort(summary_.formats.begin(), summary_.formats.end(),
                     [](const auto& a, const auto& b) { return a.parameters > b.parameters; });
    return std::move(summary_);
  }

 private:
  bool IsUsed(std::string_view name) const {
    if (name.ends_with("rotary_emb.inv_freq")) return false;
    return IsBelow(name, names_.body) || (!tied_ && IsBelow(name, names_.head));
  }

  // How the module's weight is quantized; nothing where it is not.
  std::optional<QuantConfig> QuantOf(std::string_view module) const {
    if (module.empty() || !config_.quantization) return std::nullopt;
    const auto it = config_.quantization->overrides.find(module);
    if (it != config_.quantization->overrides.end()) return it->second;
    if (!checkpoint_.Has(fmt::format("{}.scales", module))) return std::nullopt;
    return config_.quantization->all;
  }

  void Add(const std::string& name, const TensorInfo& tensor) {
    const std::string_view weight = ModuleOf(name, ".weight");
    if (const auto quant = QuantOf(weight)) {
      AddQuantized(std::string(weight), tensor, *quant);
    } else if (QuantOf(ModuleOf(name, ".scales")) || QuantOf(ModuleOf(name, ".biases"))) {
      return;  // counted with their weight
    } else {
      AddPlain(name, tensor);
    }
  }

  void AddQuantized(const std::string& module, const TensorInfo& weight, const QuantConfig& quant) {
    const int64_t words = weight.shape.empty() ? 0 : weight.shape.back();
    const int64_t inputs = words * 32 / quant.bits;
    const int64_t rows = words == 0 ? 0 : Elements(weight) / words;
    uint64_t bytes = weight.data.size();
    ScaleType scale_type = ScaleType::kBf16;  // of 16 bits, as F16
    for (const char* part : {".scales", ".biases"}) {
      const TensorInfo* tensor = checkpoint_.Find(module + part);
      if (tensor == nullptr) continue;
      bytes += tensor->data.size();
      if (tensor->dtype == DType::kF32) scale_type = ScaleType::kF32;
    }
    Count(module, NameOf(quant), quant.bits, quant.group, rows * inputs, bytes);
    AddQuantizedPanels(weight, inputs, quant, scale_type);
  }

  void AddQuantizedPanels(const TensorInfo& weight, int64_t inputs, const QuantConfig& quant,
                          ScaleType scale_type) {
    if (!IsSupported(quant) || inputs % quant.group != 0 || inputs > limits::kFeedForwardMax)
      return;  // loading says so
    AddPanels(weight, MakePanelLayout(PanelFormatOf(quant), static_cast<int>(inputs), quant.group,
                                      scale_type)
                          .panel_bytes);
  }

  void AddPlain(const std::string& name, const TensorInfo& tensor) {
    std::string format(DTypeName(tensor.dtype));
    for (char& c : format) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    }
    const auto element_bytes = DTypeBytes(tensor.dtype);
    Count(name, format, static_cast<int>(element_bytes) * 8, 0, Elements(tensor),
          tensor.data.size());
    const bool is_matrix = tensor.shape.size() >= 2;
    const int64_t inputs = is_matrix ? tensor.shape.back() : 0;
    const auto quant =
        is_matrix ? QuantizeTo(config_, ModuleOf(name, ".weight"), inputs) : std::nullopt;
    if (quant) {
      AddQuantizedPanels(tensor, inputs, *quant,
                         tensor.dtype == DType::kF32 ? ScaleType::kF32 : ScaleType::kBf16);
    } else if (is_matrix) {
      AddPanels(tensor, static_cast<size_t>(tensor.shape.back()) * kPanelWidth * element_bytes);
    } else {
      // Vectors are kept as f32; a linear layer's bias is padded like its outputs.
      const auto size = static_cast<uint64_t>(Elements(tensor));
      const bool is_bias = name.ends_with(".bias");
      summary_.memory_bytes +=
          (is_bias ? (size + kPanelWidth - 1) / kPanelWidth * kPanelWidth : size) * sizeof(float);
    }
  }

  // A matrix [outputs, inputs], or several of them [parts, outputs, inputs].
  void AddPanels(const TensorInfo& tensor, size_t panel_bytes) {
    if (tensor.shape.size() < 2) return;
    const int64_t outputs = tensor.shape[tensor.shape.size() - 2];
    const int64_t matrix = outputs * tensor.shape.back();
    const int64_t parts = matrix == 0 ? 0 : Elements(tensor) / matrix;
    summary_.memory_bytes +=
        static_cast<uint64_t>(parts * ((outputs + kPanelWidth - 1) / kPanelWidth)) * panel_bytes;
  }

  void Count(const std::string& name, const std::string& format_name, int bits, int group,
             int64_t parameters, uint64_t bytes) {
    WeightFormat& format = formats_[format_name];
    format.name = format_name;
    format.bits = bits;
    format.group = group;
    ++format.tensors;
    format.parameters += parameters;
    format.disk_bytes += bytes;
    summary_.parameters += parameters;
    if (IsExpert(name)) expert_parameters_ += parameters;
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const TensorNames names_;
  bool tied_ = false;
  WeightsSummary summary_;
  int64_t expert_parameters_ = 0;
  std::map<std::string, WeightFormat> formats_;
};

// Fills in the summary as far as it gets; what was unknown stays so.
Result<DecoderSpec> Describe(const std::filesystem::path& model_dir, ModelSummary* summary) {
  ASSIGN_OR_RETURN(const ModelKind kind, ReadModelKind(model_dir));
  summary->model_type = kind.model_type;
  const Status known = CheckModelKind(kind);
  auto config = ReadModelConfig(model_dir);
  if (config) summary->config = *config;
  if (!known) return ErrWithContext(model_dir.string(), known.error());
  if (!config) return Err(std::move(config).error());
  auto spec = DescribeModel(*config);
  if (!spec) return ErrWithContext(model_dir.string(), std::move(spec).error());
  summary->notes = spec->notes;
  return spec;
}

}  // namespace

ModelSummary SummarizeModel(const std::filesystem::path& model_dir, int quantize_bits) {
  ModelSummary summary;
  const auto problem = [&](const Error& error) { summary.problems.push_back(error.message); };
  DecoderSpec spec;
  if (auto described = Describe(model_dir, &summary)) {
    spec = std::move(*described);
  } else {
    problem(described.error());
    if (summary.config) spec.config = *summary.config;
  }
  if (summary.config) {
    if (auto quantize = QuantizeOnLoad(*summary.config, quantize_bits, model_dir))
      spec.config.quantize = *quantize;
    else
      problem(quantize.error());
  }
  const auto checkpoint = Checkpoint::Open(model_dir);
  if (!checkpoint) problem(checkpoint.error());
  if (checkpoint && summary.config) summary.weights = Counter(*checkpoint, spec).Count();
  return summary;
}

KvShape KvShapeOf(const ModelConfig& config) {
  return {.layers = config.layers, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
}

std::vector<CacheType> CacheTypes(const KvShape& shape) {
  const auto bytes = [&](KvPrecision precision) {
    return uint64_t{shape.PageBytes(precision)} / kPageTokens;
  };
  const uint64_t full = bytes(KvPrecision::kF16);
  std::vector<CacheType> types;
  types.push_back({.name = "kv", .bytes_per_token = full});
  for (const int bits : {8, 4})
    types.push_back({.name = "quantized_kv",
                     .bits = bits,
                     .bytes_per_token = bytes(bits == 8 ? KvPrecision::kQ8 : KvPrecision::kQ4)});
  types.push_back({.name = "rotating_kv", .bytes_per_token = full, .has_ceiling = true});
  types.push_back({.name = "chunked_kv", .bytes_per_token = full});
  types.push_back({.name = "concatenate_kv", .bytes_per_token = full});
  return types;
}

}  // namespace perdure::engine
