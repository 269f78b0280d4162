#include "engine/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "engine/config_reader.h"

namespace perdure::engine {
namespace {

Result<Json> ReadObject(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits::kModelJsonBytesMax));
  ASSIGN_OR_RETURN(Json json, ParseJson(text, path.string(), ErrorCode::bad_model));
  if (!json.is_object())
    return Err(ErrorCode::bad_model,
               fmt::format("{} is of type {}, not an object", path.string(), JsonTypeName(json)));
  return json;
}

Status ReadShapes(const ConfigReader& reader, ModelConfig* config) {
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

Status ReadExperts(const ConfigReader& reader, ModelConfig* config) {
  ExpertsConfig& experts = config->experts;
  // transformers 5 writes the second name.
  for (std::string_view key : {"num_experts", "num_local_experts"}) {
    ASSIGN_OR_RETURN(const auto count, reader.OptionalInt(key, 1, limits::kExpertsMax));
    if (count) experts.count = *count;
  }
  ASSIGN_OR_RETURN(const auto per_token,
                   reader.OptionalInt("num_experts_per_tok", 1, limits::kExpertsMax));
  ASSIGN_OR_RETURN(const auto feed_forward,
                   reader.OptionalInt("moe_intermediate_size", 1, limits::kFeedForwardMax));
  ASSIGN_OR_RETURN(const auto normalize, reader.OptionalBool("norm_topk_prob"));
  ASSIGN_OR_RETURN(const auto step,
                   reader.OptionalInt("decoder_sparse_step", 1, limits::kLayersMax));
  experts.per_token = per_token.value_or(0);
  experts.feed_forward = feed_forward.value_or(0);
  experts.normalize = normalize.value_or(false);
  experts.sparse_step = step.value_or(1);
  const Json* dense = reader.Find("mlp_only_layers");
  if (dense == nullptr) return {};
  const auto is_layer = [](const Json& value) { return value.is_number_unsigned(); };
  if (!dense->is_array() || !std::all_of(dense->begin(), dense->end(), is_layer))
    return reader.Bad(fmt::format("mlp_only_layers is {}, not a list of layers",
                                  DumpJson(*dense).substr(0, limits::kEchoBytesMax)));
  for (const Json& layer : *dense)
    if (layer.get<uint64_t>() < static_cast<uint64_t>(config->layers))
      experts.dense_layers.insert(layer.get<int>());
  return {};
}

Status ReadLayerTypes(const ConfigReader& reader, ModelConfig* config) {
  const Json* types = reader.Find("layer_types");
  if (types == nullptr) return {};
  if (!types->is_array() || types->size() != static_cast<size_t>(config->layers))
    return reader.Bad(
        fmt::format("layer_types is no list of num_hidden_layers ({}) entries", config->layers));
  for (const Json& type : *types) {
    if (type == "full_attention")
      config->layer_types.push_back(LayerAttention::kFull);
    else if (type == "sliding_attention")
      config->layer_types.push_back(LayerAttention::kSliding);
    else
      return reader.Unsupported(fmt::format(
          "layer_types has {}; \"full_attention\" and \"sliding_attention\" are supported",
          DumpJson(type).substr(0, limits::kEchoBytesMax)));
  }
  return {};
}

Status ReadSlidingWindow(const ConfigReader& reader, ModelConfig* config) {
  ASSIGN_OR_RETURN(config->use_sliding_window, reader.OptionalBool("use_sliding_window"));
  ASSIGN_OR_RETURN(config->sliding_window,
                   reader.OptionalInt("sliding_window", 1, limits::kContextMax));
  ASSIGN_OR_RETURN(config->max_window_layers,
                   reader.OptionalInt("max_window_layers", 0, limits::kLayersMax));
  return ReadLayerTypes(reader, config);
}

Result<ModelKind> ReadKind(const ConfigReader& reader) {
  ModelKind kind;
  ASSIGN_OR_RETURN(const std::optional<std::string> model_type,
                   reader.OptionalString("model_type"));
  if (!model_type) {
    for (std::string_view key : {"dim", "n_layers", "n_heads"})
      if (reader.Find(key) != nullptr)
        return reader.Unsupported(
            fmt::format("it is of an old format ({}, no model_type); configs of Hugging Face's "
                        "format are supported: convert the model anew from its original there",
                        key));
    return reader.Bad("model_type is missing");
  }
  kind.model_type = *model_type;
  const Json* architectures = reader.Find("architectures");
  if (architectures != nullptr && architectures->is_array())
    for (const Json& name : *architectures)
      if (name.is_string()) kind.architectures.push_back(name.get<std::string>());
  return kind;
}

// The text model's own part of config.json.
Status ReadText(const ConfigReader& reader, ModelConfig* config) {
  RETURN_IF_ERROR(ReadShapes(reader, config));
  ASSIGN_OR_RETURN(config->rope, ReadRope(reader));
  // YaRN's configs keep the context that the model was first trained for.
  if (config->rope.scaling == RopeConfig::Scaling::kYarn)
    config->max_context =
        static_cast<int>(std::clamp(config->rope.factor * config->rope.original_context,
                                    double(config->max_context), double(limits::kContextMax)));
  ASSIGN_OR_RETURN(config->tied_embeddings, reader.OptionalBool("tie_word_embeddings"));
  ASSIGN_OR_RETURN(config->attention_bias, reader.OptionalBool("attention_bias"));
  ASSIGN_OR_RETURN(config->mlp_bias, reader.OptionalBool("mlp_bias"));
  ASSIGN_OR_RETURN(const std::optional<std::string> activation,
                   reader.OptionalString("hidden_act"));
  if (activation && *activation != "silu" && *activation != "swish")
    return reader.Unsupported(fmt::format("hidden_act is \"{}\"; silu is supported", *activation));
  RETURN_IF_ERROR(ReadSlidingWindow(reader, config));
  RETURN_IF_ERROR(ReadExperts(reader, config));
  ASSIGN_OR_RETURN(config->quantization, ReadQuantization(reader));
  ASSIGN_OR_RETURN(auto eos, reader.TokenIds("eos_token_id", config->vocab_size));
  if (eos) config->eos_ids = std::move(*eos);
  return {};
}

// A config whose text_config describes the text model. What concerns the folder as a whole may
// stand on either level; converters write it on the outer one.
Status ReadWrapped(const ConfigReader& outer, const ConfigReader& text, ModelConfig* config) {
  ASSIGN_OR_RETURN(const auto type, text.OptionalString("model_type"));
  config->text_model_type = type.value_or("");
  RETURN_IF_ERROR(ReadText(text, config));
  ASSIGN_OR_RETURN(auto quantization, ReadQuantization(outer));
  if (quantization) config->quantization = std::move(quantization);
  ASSIGN_OR_RETURN(auto eos, outer.TokenIds("eos_token_id", config->vocab_size));
  if (eos) config->eos_ids = std::move(*eos);
  return {};
}

Status ReadGeneration(const std::filesystem::path& path, ModelConfig* config) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return {};
  ASSIGN_OR_RETURN(const Json json, ReadObject(path));
  const ConfigReader reader(json, path.string());
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

Result<ModelKind> ReadModelKind(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  ASSIGN_OR_RETURN(const Json json, ReadObject(path));
  return ReadKind(ConfigReader(json, path.string()));
}

Result<ModelConfig> ReadModelConfig(const std::filesystem::path& model_dir) {
  const std::filesystem::path path = model_dir / "config.json";
  ASSIGN_OR_RETURN(const Json json, ReadObject(path));
  const ConfigReader outer(json, path.string());
  ModelConfig config;
  ASSIGN_OR_RETURN(ModelKind kind, ReadKind(outer));
  config.model_type = std::move(kind.model_type);

  const Json* text = outer.Find("text_config");
  if (text != nullptr && text->is_object()) {
    RETURN_IF_ERROR(ReadWrapped(outer, outer.Inner("text_config"), &config));
  } else {
    RETURN_IF_ERROR(ReadText(outer, &config));
  }
  RETURN_IF_ERROR(ReadGeneration(model_dir / "generation_config.json", &config));
  return config;
}

}  // namespace perdure::engine
