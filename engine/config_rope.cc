#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "engine/config_reader.h"

namespace perdure::engine {
namespace {

constexpr double kThetaMax = 1e12;

Status ReadLlama3(const ConfigReader& reader, const std::string& name, RopeConfig* rope) {
  rope->scaling = RopeConfig::Scaling::kLlama3;
  ASSIGN_OR_RETURN(const std::optional<double> low,
                   reader.OptionalNumber("low_freq_factor", 1e-3, 1e6));
  ASSIGN_OR_RETURN(const std::optional<double> high,
                   reader.OptionalNumber("high_freq_factor", 1e-3, 1e6));
  ASSIGN_OR_RETURN(const std::optional<int> original,
                   reader.OptionalInt("original_max_position_embeddings", 1, limits::kContextMax));
  if (!low || !high || !original)
    return reader.Bad(
        fmt::format("{} of type llama3 needs low_freq_factor, high_freq_factor and "
                    "original_max_position_embeddings",
                    name));
  if (*high <= *low)
    return reader.Bad(
        fmt::format("{} is not above low_freq_factor", reader.Name("high_freq_factor")));
  rope->low_freq_factor = *low;
  rope->high_freq_factor = *high;
  rope->original_context = *original;
  return {};
}

// Source: Peng et al., YaRN (2023), and its reference implementation's 0.1 · ln(factor) + 1.
double YarnMagnitude(double factor, double scale) {
  return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

Status ReadYarn(const ConfigReader& reader, RopeConfig* rope) {
  rope->scaling = RopeConfig::Scaling::kYarn;
  // Readers of this format disagree on what its absence means.
  ASSIGN_OR_RETURN(rope->original_context,
                   reader.Int("original_max_position_embeddings", 1, limits::kContextMax));
  ASSIGN_OR_RETURN(const std::optional<double> fast, reader.OptionalNumber("beta_fast", 1e-3, 1e6));
  ASSIGN_OR_RETURN(const std::optional<double> slow, reader.OptionalNumber("beta_slow", 1e-3, 1e6));
  rope->beta_fast = fast.value_or(rope->beta_fast);
  rope->beta_slow = slow.value_or(rope->beta_slow);
  if (rope->beta_fast <= rope->beta_slow)
    return reader.Bad(fmt::format("{} is not above beta_slow", reader.Name("beta_fast")));
  ASSIGN_OR_RETURN(const std::optional<bool> truncate, reader.OptionalBool("truncate"));
  if (!truncate.value_or(true))
    return reader.Unsupported(
        fmt::format("{} is false; only true is supported", reader.Name("truncate")));
  ASSIGN_OR_RETURN(const double factor, reader.Number("factor", 1.0, 1e6));
  ASSIGN_OR_RETURN(const std::optional<double> magnitude,
                   reader.OptionalNumber("attention_factor", 1e-3, 1e3));
  ASSIGN_OR_RETURN(const std::optional<double> scale, reader.OptionalNumber("mscale", 0.0, 1e3));
  ASSIGN_OR_RETURN(const std::optional<double> all,
                   reader.OptionalNumber("mscale_all_dim", 0.0, 1e3));
  // One of the two alone says nothing.
  const bool scaled = scale.value_or(0.0) != 0.0 && all.value_or(0.0) != 0.0;
  rope->magnitude =
      magnitude.value_or(scaled ? YarnMagnitude(factor, *scale) / YarnMagnitude(factor, *all)
                                : YarnMagnitude(factor, 1.0));
  return {};
}

Status RefusePartialRotation(const ConfigReader& reader) {
  ASSIGN_OR_RETURN(const std::optional<double> partial,
                   reader.OptionalNumber("partial_rotary_factor", 0.0, 1.0));
  if (partial && *partial != 1.0)
    return reader.Unsupported(fmt::format("{} is {}; only whole heads are rotated here (1.0)",
                                          reader.Name("partial_rotary_factor"), *partial));
  return {};
}

// `name`: of the object that is read.
Status ReadScaling(const ConfigReader& reader, const std::string& name, RopeConfig* rope) {
  for (const auto& [key, value] : reader.json().items())
    if (value.is_object())
      return reader.Unsupported(fmt::format(
          "{} is an object; one rotary embedding for all layers is supported", reader.Name(key)));
  ASSIGN_OR_RETURN(const std::optional<double> theta,
                   reader.OptionalNumber("rope_theta", 1.0, kThetaMax));
  if (theta) rope->theta = *theta;
  RETURN_IF_ERROR(RefusePartialRotation(reader));
  ASSIGN_OR_RETURN(std::optional<std::string> type, reader.OptionalString("rope_type"));
  if (!type) {
    ASSIGN_OR_RETURN(type, reader.OptionalString("type"));
  }
  // "dynamic" changes frequencies with the length of what is computed, beyond
  // max_position_embeddings alone, which is where contexts end here.
  if (!type || *type == "default" || *type == "dynamic") return {};
  if (*type == "linear") {
    rope->scaling = RopeConfig::Scaling::kLinear;
  } else if (*type == "llama3") {
    RETURN_IF_ERROR(ReadLlama3(reader, name, rope));
  } else if (*type == "yarn") {
    RETURN_IF_ERROR(ReadYarn(reader, rope));
  } else {
    return reader.Unsupported(
        fmt::format("{} is of type \"{}\"; default, linear, dynamic, llama3 and yarn are supported",
                    name, *type));
  }
  ASSIGN_OR_RETURN(rope->factor, reader.Number("factor", 1.0, 1e6));
  return {};
}

}  // namespace

Result<RopeConfig> ReadRope(const ConfigReader& reader) {
  RopeConfig rope;
  ASSIGN_OR_RETURN(const std::optional<bool> traditional, reader.OptionalBool("rope_traditional"));
  if (traditional.value_or(false))
    return reader.Unsupported(
        "rope_traditional is true: heads are rotated in halves here, not in pairs of neighbours");
  ASSIGN_OR_RETURN(const std::optional<double> theta,
                   reader.OptionalNumber("rope_theta", 1.0, kThetaMax));
  if (theta) rope.theta = *theta;
  for (std::string_view key : {"rope_scaling", "rope_parameters"}) {
    const Json* value = reader.Find(key);
    if (value == nullptr) continue;
    if (!value->is_object())
      return reader.Bad(fmt::format("{} is {}, not an object", reader.Name(key), DumpJson(*value)));
    RETURN_IF_ERROR(ReadScaling(reader.Inner(key), reader.Name(key), &rope));
  }
  if (rope.scaling == RopeConfig::Scaling::kYarn && rope.theta <= 1.0)
    return reader.Bad("a rotary embedding of type yarn needs a rope_theta above 1");
  RETURN_IF_ERROR(RefusePartialRotation(reader));
  return rope;
}

}  // namespace perdure::engine
