#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "engine/config_reader.h"

namespace perdure::engine {
namespace {

Result<QuantConfig> ReadQuant(const ConfigReader& reader) {
  ASSIGN_OR_RETURN(const std::optional<std::string> mode, reader.OptionalString("mode"));
  QuantConfig quant;
  if (mode && *mode == "mxfp4") {
    quant = {.mode = QuantMode::kMxfp4, .bits = 4, .group = 32};
  } else if (mode && *mode != "affine") {
    return reader.Unsupported(
        fmt::format("{} is \"{}\"; affine and mxfp4 are supported: convert the model to one of "
                    "them",
                    reader.Name("mode"), *mode));
  }
  ASSIGN_OR_RETURN(const std::optional<int> bits, reader.OptionalInt("bits", 1, 64));
  ASSIGN_OR_RETURN(const std::optional<int> group,
                   reader.OptionalInt("group_size", 1, limits::kFeedForwardMax));
  if (bits) quant.bits = *bits;
  if (group) quant.group = *group;
  if (IsSupported(quant)) return quant;
  if (quant.mode == QuantMode::kMxfp4)
    return reader.Unsupported(fmt::format("{} is {} and {} {}; mxfp4 has 4 bits in groups of 32",
                                          reader.Name("bits"), quant.bits,
                                          reader.Name("group_size"), quant.group));
  if (!IsSupported({.mode = QuantMode::kAffine, .bits = quant.bits, .group = 64}))
    return reader.Unsupported(fmt::format("{} is {}; 2, 3, 4, 5, 6 and 8 are supported",
                                          reader.Name("bits"), quant.bits));
  return reader.Unsupported(fmt::format("{} is {}; 32, 64 and 128 are supported",
                                        reader.Name("group_size"), quant.group));
}

}  // namespace

bool IsSupported(const QuantConfig& quant) {
  if (quant.mode == QuantMode::kMxfp4) return quant.bits == 4 && quant.group == 32;
  return quant.bits >= 2 && quant.bits <= 8 && quant.bits != 7 &&
         (quant.group == 32 || quant.group == 64 || quant.group == 128);
}

std::string NameOf(const QuantConfig& quant) {
  if (quant.mode == QuantMode::kMxfp4) return fmt::format("mxfp4, group {}", quant.group);
  return fmt::format("affine {}-bit, group {}", quant.bits, quant.group);
}

Result<std::optional<QuantConfig>> QuantizeOnLoad(const ModelConfig& config, int bits,
                                                  const std::filesystem::path& model_dir) {
  using Found = std::optional<QuantConfig>;
  if (bits == 0) return Found();
  if (bits != 8 && bits != 4)
    return Err(ErrorCode::bad_config,
               fmt::format("{} bits to quantize to on load are neither 8 nor 4", bits));
  if (config.quantization)
    return Err(ErrorCode::bad_config,
               fmt::format("{} is quantized already ({}): quantize = \"q{}\" is for models of "
                           "floats; take it out of the model's table",
                           model_dir.string(), NameOf(config.quantization->all), bits));
  return Found(QuantConfig{.mode = QuantMode::kAffine, .bits = bits, .group = 64});
}

std::optional<QuantConfig> QuantizeTo(const ModelConfig& config, std::string_view module,
                                      int64_t inputs) {
  if (!config.quantize || inputs % config.quantize->group != 0) return std::nullopt;
  QuantConfig quant = *config.quantize;
  // mlx-lm keeps routers at 8 bits: which experts are chosen hangs on small differences.
  if (module.ends_with("mlp.gate")) quant.bits = 8;
  return quant;
}

Result<std::optional<QuantizationConfig>> ReadQuantization(const ConfigReader& reader) {
  using Found = std::optional<QuantizationConfig>;
  std::string_view key = "quantization";
  const Json* value = reader.Find(key);
  if (value == nullptr) {
    // Of other tools, unless it is MLX's copy of its own key.
    key = "quantization_config";
    value = reader.Find(key);
    if (value == nullptr) return Found();
    if (value->is_object() && value->contains("quant_method"))
      return reader.Unsupported(
          fmt::format("{}.quant_method is {}; unquantized weights and MLX's "
                      "affine and mxfp4 quantization are supported",
                      reader.Name(key), DumpJson((*value)["quant_method"])));
  }
  if (!value->is_object())
    return reader.Bad(fmt::format("{} is {}, not an object", reader.Name(key), DumpJson(*value)));

  QuantizationConfig config;
  const ConfigReader inner = reader.Inner(key);
  ASSIGN_OR_RETURN(config.all, ReadQuant(inner));
  for (const auto& [name, entry] : value->items()) {
    if (entry.is_boolean()) {
      config.overrides[name] =
          entry.get<bool>() ? std::optional<QuantConfig>(config.all) : std::nullopt;
    } else if (entry.is_object()) {
      // A missing mode means affine here, whatever the model's is.
      ASSIGN_OR_RETURN(const QuantConfig quant, ReadQuant(inner.Inner(name)));
      config.overrides[name] = quant;
    }
  }
  return Found(std::move(config));
}

}  // namespace perdure::engine
