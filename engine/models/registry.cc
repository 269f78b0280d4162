#include "engine/models/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/check.h"
#include "engine/weights/checkpoint.h"

namespace perdure::engine {
namespace {

using DescribeFn = Result<DecoderSpec> (*)(const ModelConfig& config);

struct Row {
  std::string_view model_type;
  DescribeFn describe;
};
constexpr Row kArchitectures[] = {
#define ARCHITECTURE(model_type, describe) {#model_type, describe},
#include "engine/models/architectures.inc"
#undef ARCHITECTURE
};

const Row* FindRow(std::string_view model_type) {
  for (const Row& row : kArchitectures)
    if (row.model_type == model_type) return &row;
  return nullptr;
}

// By the names that Hugging Face transformers gives its classes.
bool GeneratesText(std::string_view architecture) {
  return architecture.find("CausalLM") != std::string_view::npos ||
         architecture.find("ConditionalGeneration") != std::string_view::npos ||
         architecture.find("LMHead") != std::string_view::npos;
}

}  // namespace

Status CheckModelKind(const ModelKind& kind) {
  const std::string names = fmt::format("{}", fmt::join(kind.architectures, ", "));
  if (FindRow(kind.model_type) == nullptr) {
    std::string known;
    for (const Row& row : kArchitectures)
      known += fmt::format("{}{}", known.empty() ? "" : ", ", row.model_type);
    return Err(ErrorCode::unsupported,
               fmt::format("config.json: model_type is \"{}\"{}; supported are decoders that "
                           "generate text, of the types {}",
                           kind.model_type, names.empty() ? "" : " (" + names + ")", known));
  }
  if (!names.empty() &&
      std::none_of(kind.architectures.begin(), kind.architectures.end(), GeneratesText))
    return Err(ErrorCode::unsupported,
               fmt::format("config.json: architectures is {}, which does not generate text; "
                           "supported are models with a language head (…ForCausalLM)",
                           names));
  return {};
}

Result<DecoderSpec> DescribeModel(const ModelConfig& config) {
  const Row* row = FindRow(config.model_type);
  CHECK(row != nullptr);
  return row->describe(config);
}

TensorNames FindNames(const Checkpoint& checkpoint, const DecoderSpec& spec) {
  for (const TensorNames& names : spec.names)
    if (checkpoint.Has(fmt::format("{}.norm.weight", names.body))) return names;
  return spec.names.front();
}

}  // namespace perdure::engine
