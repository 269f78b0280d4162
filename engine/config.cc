#include "engine/config.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

namespace perdure::engine {
namespace {

// One JSON object of a model's folder, with errors that name file and key.
class Reader {
 public:
  Reader(const Json& json, std::string path, std::string prefix = {})
      : json_(json), path_(std::move(path)), prefix_(std::move(prefix)) {}

  tl::unexpected<Error> Bad(std::string_view reason) const {
    return Err(ErrorCode::bad_model, fmt::format("{}: {}", path_, reason));
  }
  tl::unexpected<Error> Unsupported(std::string_view reason) const {
    return Err(ErrorCode::unsupported, fmt::format("{}: {}", path_, reason));
  }

  // Null counts as absent: writers use both.
  const Json* Find(std::string_view key) const {
    const auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }

  Result<std::optional<int>> OptionalInt(std::string_view key, int min, int max) const {
    const Json* value = Find(key);
    if (value == nullptr) return std::optional<int>();
    if (!value->is_number_integer() ||
        (value->is_number_unsigned() && value->get<uint64_t>() > uint64_t{INT64_MAX}))
      return Bad(fmt::format("{}{} is {}, not a whole number", prefix_, key, DumpJson(*value)));
    const int64_t number = value->get<int64_t>();
    if (number < min || number > max)
      return Bad(fmt::format("{}{} is {}, outside of [{}, {}]", prefix_, key, number, min, max));
    return std::optional<int>(static_cast<int>(number));
  }
  Result<int> Int(std::string_view key, int min, int max) const {
    ASSIGN_OR_RETURN(const std::optional<int> value, OptionalInt(key, min, max));
    if (!value) return Bad(fmt::format("{}{} is missing", prefix_, key));
    return *value;
  }
  Result<std::optional<double>> OptionalNumber(std::string_view key, double min, double max) const {
    const Json* value = Find(key);
    if (value == nullptr) return std::optional<double>();
    if (!value->is_number())
      return Bad(fmt::format("{}{} is {}, not a number", prefix_, key, DumpJson(*value)));
    const double number = value->get<double>();
    if (!(number >= min && number <= max))
      return Bad(fmt::format("{}{} is {}, outside of [{}, {}]", prefix_, key, number, min, max));
    return std::optional<double>(number);
  }
  Result<std::optional<bool>> OptionalBool(std::string_view key) const {
    const Json* value = Find(key);
    if (value == nullptr) return std::optional<bool>();
    if (!value->is_boolean())
      return Bad(fmt::format("{}{} is {}, not true or false", prefix_, key, DumpJson(*value)));
    return std::optional<bool>(value->get<bool>());
  }
  Result<std::optional<std::string>> OptionalString(std::string_view key) const {
    const Json* value = Find(key);
    if (value == nullptr) return std::optional<std::string>();
    if (!value->is_string())
      return Bad(fmt::format("{}{} is {}, not a string", prefix_, key, DumpJson(*value)));
    return std::optional<std::string>(value->get<std::string>());
  }
  // One id or a list of them; ids outside of the vocabulary can never be drawn and are left out.
  Result<std::optional<std::vector<TokenId>>> TokenIds(std::string_view key, int vocab_size) const {
    using Ids = std::optional<std::vector<TokenId>>;
    const Json* value = Find(key);
    if (value == nullptr) return Ids();
    std::vector<TokenId> ids;
    const auto add = [&](const Json& id) {
      if (!id.is_number_integer()) return false;
      if (id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(vocab_size))
        ids.push_back(id.get<TokenId>());
      return true;
    };
    bool good = true;
    if (value->is_array()) {
      for (const Json& id : *value) good = good && add(id);
    } else {
      good = add(*value);
    }
    if (!good)
      return Bad(fmt::format("{}{} is {}, neither a token id nor a list of them", prefix_, key,
                             DumpJson(*value).substr(0, 200)));
    return Ids(std::move(ids));
  }

 private:
  const Json& json_;
  std::string path_;
  std::string prefix_;
};

Result<Json> ReadObject(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits::kModelJsonBytesMax));
  ASSIGN_OR_RETURN(Json json, ParseJson(text, path.string(), ErrorCode::bad_model));
  if (!json.is_object())
    return Err(ErrorCode::bad_model,
               fmt::format("{} is of type {}, not an object", path.string(), JsonTypeName(json)));
  return json;
}

// --- RoPE ----------------------------------------------------------------------------------------

constexpr double kThetaMax = 1e12;

Status ReadScaling(const Json& json, const std::string& path, std::string_view name,
                   RopeConfig* rope) {
  const std::string prefix = fmt::format("{}.", name);
  const Reader reader(json, path, prefix);
  ASSIGN_OR_RETURN(const std::optional<double> theta,
                   reader.OptionalNumber("rope_theta", 1.0, kThetaMax));
  if (theta) rope->theta = *theta;
  ASSIGN_OR_RETURN(std::optional<std::string> type, reader.OptionalString("rope_type"));
  if (!type) {
    ASSIGN_OR_RETURN(type, reader.OptionalString("type"));
  }
  if (!type || *type == "default") return {};
  if (*type == "linear") {
    rope->scaling = RopeConfig::Scaling::kLinear;
  } else if (*type == "llama3") {
    rope->scaling = RopeConfig::Scaling::kLlama3;
    ASSIGN_OR_RETURN(const std::optional<double> low,
                     reader.OptionalNumber("low_freq_factor", 1e-3, 1e6));
    ASSIGN_OR_RETURN(const std::optional<double> high,
                     reader.OptionalNumber("high_freq_factor", 1e-3, 1e6));
    ASSIGN_OR_RETURN(
        const std::optional<int> original,
        reader.OptionalInt("original_max_position_embeddings", 1, limits::kContextMax));
    if (!low || !high || !original)
      return reader.Bad(
          fmt::format("{} of type llama3 needs low_freq_factor, high_freq_factor and "
                      "original_max_position_embeddings",
                      name));
    if (*high <= *low)
      return reader.Bad(fmt::format("{}.high_freq_factor is not above low_freq_factor", name));
    rope->low_freq_factor = *low;
    rope->high_freq_factor = *high;
    rope->original_context = *original;
  } else {
    return reader.Unsupported(
        fmt::format("{} is of type \"{}\"; default, linear and llama3 are supported", name, *type));
  }
  ASSIGN_OR_RETURN(const std::optional<double> factor, reader.OptionalNumber("factor", 1.0, 1e6));
  if (!factor) return reader.Bad(fmt::format("{}.factor is missing", name));
  rope->factor = *factor;
  return {};
}

Result<RopeConfig> ReadRope(const Reader& reader, const std::string& path) {
  RopeConfig rope;
  ASSIGN_OR_RETURN(const std::optional<double> theta,
                   reader.OptionalNumber("rope_theta", 1.0, kThetaMax));
  if (theta) rope.theta = *theta;
  for (std::string_view key : {"rope_scaling", "rope_parameters"}) {
    const Json* value = reader.Find(key);
    if (value == nullptr) continue;
    if (!value->is_object())
      return reader.Bad(fmt::format("{} is {}, not an object", key, DumpJson(*value)));
    RETURN_IF_ERROR(ReadScaling(*value, path, key, &rope));
  }
  ASSIGN_OR_RETURN(const std::optional<double> partial,
                   reader.OptionalNumber("partial_rotary_factor", 0.0, 1.0));
  if (partial && *partial != 1.0)
    return reader.Unsupported(fmt::format(
        "partial_rotary_factor is {}; only whole heads are rotated here (1.0)", *partial));
  return rope;
}

// --- Quantization --------------------------------------------------------------------------------

Result<QuantConfig> ReadQuant(const Json& json, const std::string& path, std::string prefix) {
  const Reader reader(json, path, prefix);
  ASSIGN_OR_RETURN(const std::optional<std::string> mode, reader.OptionalString("mode"));
  if (mode && *mode != "affine")
    return reader.Unsupported(fmt::format("{}mode is \"{}\"; affine is supported", prefix, *mode));
  QuantConfig quant;
  ASSIGN_OR_RETURN(const std::optional<int> bits, reader.OptionalInt("bits", 1, 64));
  ASSIGN_OR_RETURN(const std::optional<int> group,
                   reader.OptionalInt("group_size", 1, limits::kFeedForwardMax));
  if (bits) quant.bits = *bits;
  if (group) quant.group = *group;
  if (quant.bits < 2 || quant.bits > 8 || quant.bits == 7)
    return reader.Unsupported(
        fmt::format("{}bits is {}; 2, 3, 4, 5, 6 and 8 are supported", prefix, quant.bits));
  if (quant.group != 32 && quant.group != 64 && quant.group != 128)
    return reader.Unsupported(
        fmt::format("{}group_size is {}; 32, 64 and 128 are supported", prefix, quant.group));
  return quant;
}

Result<std::optional<QuantizationConfig>> ReadQuantization(const Reader& reader,
                                                           const std::string& path) {
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
          fmt::format("quantization_config.quant_method is {}; unquantized weights and MLX's "
                      "affine quantization are supported",
                      DumpJson((*value)["quant_method"])));
  }
  if (!value->is_object())
    return reader.Bad(fmt::format("{} is {}, not an object", key, DumpJson(*value)));

  QuantizationConfig config;
  ASSIGN_OR_RETURN(config.all, ReadQuant(*value, path, fmt::format("{}.", key)));
  for (const auto& [name, entry] : value->items()) {
    if (entry.is_boolean()) {
      config.overrides[name] =
          entry.get<bool>() ? std::optional<QuantConfig>(config.all) : std::nullopt;
    } else if (entry.is_object()) {
      // A missing mode means affine here, whatever the model's is.
      ASSIGN_OR_RETURN(const QuantConfig quant,
                       ReadQuant(entry, path, fmt::format("{}.{}.", key, name)));
      config.overrides[name] = quant;
    }
  }
  return Found(std::move(config));
}

// --- The whole -----------------------------------------------------------------------------------

Status ReadShapes(const Reader& reader, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->hidden_size, reader.Int("hidden_size", 1, limits::kHiddenMax));
  ASSIGN_OR_RETURN(config->layers, reader.Int("num_hidden_layers", 1, limits::kLayersMax));
  ASSIGN_OR_RETURN(config->heads, reader.Int("num_attention_heads", 1, limits::kHeadsMax));
  ASSIGN_OR_RETURN(const std::optional<int> kv_heads,
                   reader.OptionalInt("num_key_value_heads", 1, limits::kHeadsMax));
  config->kv_heads = kv_heads.value_or(config->heads);
  if (config->heads % config->kv_heads != 0)
    return reader.Bad(fmt::format("num_attention_heads {} is no multiple of num_key_value_heads {}",
                                  config->heads, config->kv_heads));
  ASSIGN_OR_RETURN(const std::optional<int> head_dim,
                   reader.OptionalInt("head_dim", 2, limits::kHeadDimMax));
  if (head_dim) {
    config->head_dim = *head_dim;
  } else {
    config->head_dim = config->hidden_size / config->heads;
    if (config->hidden_size % config->heads != 0 || config->head_dim < 2 ||
        config->head_dim > limits::kHeadDimMax)
      return reader.Bad(fmt::format(
          "head_dim is missing, and hidden_size {} over num_attention_heads {} gives none in "
          "[2, {}]",
          config->hidden_size, config->heads, limits::kHeadDimMax));
  }
  if (config->head_dim % 2 != 0)
    return reader.Bad(fmt::format("head_dim {} is odd: it cannot be rotated", config->head_dim));
  ASSIGN_OR_RETURN(config->feed_forward,
                   reader.Int("intermediate_size", 1, limits::kFeedForwardMax));
  ASSIGN_OR_RETURN(config->vocab_size, reader.Int("vocab_size", 1, limits::kVocabMax));
  ASSIGN_OR_RETURN(config->max_context,
                   reader.Int("max_position_embeddings", 1, limits::kContextMax));
  ASSIGN_OR_RETURN(const std::optional<double> epsilon,
                   reader.OptionalNumber("rms_norm_eps", 0.0, 1.0));
  config->rms_epsilon = static_cast<float>(epsilon.value_or(1e-6));
  return {};
}

Status ReadSlidingWindow(const Reader& reader, ModelConfig* config) {
  ASSIGN_OR_RETURN(const std::optional<bool> use, reader.OptionalBool("use_sliding_window"));
  ASSIGN_OR_RETURN(const std::optional<int> window,
                   reader.OptionalInt("sliding_window", 1, limits::kContextMax));
  ASSIGN_OR_RETURN(const std::optional<int> from,
                   reader.OptionalInt("max_window_layers", 0, limits::kLayersMax));
  if (!use.value_or(false) || !window) return {};
  config->sliding_window = window;
  config->sliding_from = from.value_or(0);
  return {};
}

Status ReadGeneration(const std::filesystem::path& path, ModelConfig* config) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return {};
  ASSIGN_OR_RETURN(const Json json, ReadObject(path));
  const Reader reader(json, path.string());
  ASSIGN_OR_RETURN(auto eos, reader.TokenIds("eos_token_id", config->vocab_size));
  if (eos) config->eos_ids = std::move(*eos);

  GenerationDefaults& defaults = config->generation;
  const auto number = [&](std::string_view key, double min, double max,
                          std::optional<float>* to) -> Status {
    ASSIGN_OR_RETURN(const std::optional<double> value, reader.OptionalNumber(key, min, max));
    if (value) *to = static_cast<float>(*value);
    return {};
  };
  RETURN_IF_ERROR(number("temperature", 0.0, 100.0, &defaults.temperature));
  RETURN_IF_ERROR(number("top_p", 0.0, 1.0, &defaults.top_p));
  RETURN_IF_ERROR(number("min_p", 0.0, 1.0, &defaults.min_p));
  RETURN_IF_ERROR(number("repetition_penalty", 1e-3, 100.0, &defaults.repetition_penalty));
  ASSIGN_OR_RETURN(defaults.top_k, reader.OptionalInt("top_k", 0, limits::kVocabMax));
  ASSIGN_OR_RETURN(const std::optional<bool> sample, reader.OptionalBool("do_sample"));
  if (sample && !*sample) defaults.temperature = 0.0f;
  return {};
}

}  // namespace

Result<ModelConfig> ReadModelConfig(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  ASSIGN_OR_RETURN(const Json json, ReadObject(path));
  const Reader reader(json, path.string());

  ModelConfig config;
  ASSIGN_OR_RETURN(const std::optional<std::string> model_type,
                   reader.OptionalString("model_type"));
  if (!model_type) {
    if (reader.Find("dim") != nullptr || reader.Find("n_layers") != nullptr)
      return reader.Unsupported(
          "it is of an old format (dim, n_layers, no model_type); convert the model from its "
          "Hugging Face original");
    return reader.Bad("model_type is missing");
  }
  config.model_type = *model_type;
  RETURN_IF_ERROR(ReadShapes(reader, &config));
  ASSIGN_OR_RETURN(config.rope, ReadRope(reader, path.string()));
  ASSIGN_OR_RETURN(config.tied_embeddings, reader.OptionalBool("tie_word_embeddings"));
  ASSIGN_OR_RETURN(config.attention_bias, reader.OptionalBool("attention_bias"));
  ASSIGN_OR_RETURN(const std::optional<bool> mlp_bias, reader.OptionalBool("mlp_bias"));
  if (mlp_bias.value_or(false))
    return reader.Unsupported("mlp_bias is true; feed-forward layers have no bias here");
  ASSIGN_OR_RETURN(const std::optional<std::string> activation,
                   reader.OptionalString("hidden_act"));
  if (activation && *activation != "silu" && *activation != "swish")
    return reader.Unsupported(fmt::format("hidden_act is \"{}\"; silu is supported", *activation));
  RETURN_IF_ERROR(ReadSlidingWindow(reader, &config));
  ASSIGN_OR_RETURN(config.quantization, ReadQuantization(reader, path.string()));
  ASSIGN_OR_RETURN(auto eos, reader.TokenIds("eos_token_id", config.vocab_size));
  if (eos) config.eos_ids = std::move(*eos);
  RETURN_IF_ERROR(ReadGeneration(model_dir / "generation_config.json", &config));
  return config;
}

}  // namespace perdure::engine
