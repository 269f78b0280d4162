// config.json, generation_config.json and the tensors against each other: what is read, what is
// refused, and in which words.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "engine/config.h"
#include "engine/engine.h"
#include "engine/models/registry.h"
#include "kv_memory.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

class LoadTest : public testing::Test {
 protected:
  void Write(const SynthSpec& spec) { WriteSynthModel(spec, dir_.path()); }
  void WriteConfig(const std::string& text) { WriteText(dir_.path() / "config.json", text); }
  Result<std::unique_ptr<Engine>> Load() {
    return Engine::Load(dir_.path(), {.threads = 2, .isa = BestIsa(), .on_progress = {}});
  }
  TempDir dir_;
};

TEST_F(LoadTest, InfoSaysWhatTheModelIs) {
  Write({.layers = 3});
  WriteText(dir_.path() / "generation_config.json",
            R"({"eos_token_id": [5, 6, 999999, -1], "temperature": 0.6, "top_k": 20,
                "top_p": 0.95, "min_p": null, "do_sample": true, "transformers_version": "4"})");
  std::vector<LoadProgress> progress;
  auto engine = Engine::Load(
      dir_.path(), {.threads = 1, .isa = BestIsa(), .on_progress = [&](const LoadProgress& p) {
                      progress.push_back(p);
                    }});
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  const ModelInfo& info = (*engine)->info();
  EXPECT_EQ(info.architecture, "qwen3");
  EXPECT_EQ(info.quantization, "bf16");
  EXPECT_EQ(info.layers, 3);
  EXPECT_EQ(info.vocab_size, 256);
  EXPECT_EQ(info.max_context, 4096);
  EXPECT_EQ(info.kv.layers, 3);
  EXPECT_EQ(info.kv.kv_heads, 2);
  EXPECT_EQ(info.kv.head_dim, 16);
  EXPECT_THAT(info.eos_ids, ElementsAre(5, 6));
  // embedding + layers · (q, k, v, o; norms; gate, up, down) + final norm
  EXPECT_EQ(info.parameters,
            256 * 64 + 3 * (64 * (64 + 32 + 32 + 64) + 2 * 64 + 2 * 16 + 3 * 64 * 96) + 64);
  EXPECT_GE(info.weight_bytes, 2u * static_cast<uint64_t>(info.parameters));
  const GenerationDefaults& defaults = (*engine)->generation_defaults();
  EXPECT_FLOAT_EQ(defaults.temperature.value(), 0.6f);
  EXPECT_FLOAT_EQ(defaults.top_p.value(), 0.95f);
  EXPECT_EQ(defaults.top_k, 20);
  EXPECT_EQ(defaults.min_p, std::nullopt);

  ASSERT_GE(progress.size(), 4u);
  for (size_t i = 1; i < progress.size(); ++i) {
    EXPECT_GE(progress[i].bytes_done, progress[i - 1].bytes_done);
    EXPECT_EQ(progress[i].bytes_total, progress[0].bytes_total);
  }
  EXPECT_EQ(progress.back().bytes_done, progress.back().bytes_total);
}

TEST_F(LoadTest, EosOfConfigWhereGenerationConfigIsMissing) {
  Write({});
  auto engine = Load();
  ASSERT_TRUE(engine.has_value());
  EXPECT_THAT((*engine)->info().eos_ids, ElementsAre(2));
  EXPECT_EQ((*engine)->generation_defaults().temperature, std::nullopt);
}

TEST_F(LoadTest, QuantizationIsNamed) {
  Write({.hidden = 128,
         .feed_forward = 128,
         .bits = 4,
         .overrides = {{"model.layers.0.mlp.down_proj", 8}}});
  auto engine = Load();
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  EXPECT_EQ((*engine)->info().quantization, "affine 4-bit, group 64, mixed");
}

TEST_F(LoadTest, BadConfigsAreRefused) {
  const SynthSpec spec;
  const std::string good = SynthConfigJson(spec);
  struct Row {
    const char* from;
    const char* to;
    ErrorCode code;
    std::vector<const char*> reasons;
  };
  const ErrorCode bad = ErrorCode::bad_model, no = ErrorCode::unsupported;
  const Row rows[] = {
      {"{\n", "[", bad, {"not valid JSON"}},
      {"\"qwen3\"",
       "\"mamba\"",
       no,
       {"model_type is \"mamba\"; supported are", "llama, mistral, mistral3, qwen2, qwen3"}},
      {"\"qwen3\"",
       "\"bert\", \"architectures\": [\"BertForMaskedLM\"]",
       no,
       {"model_type is \"bert\" (BertForMaskedLM); supported are decoders that generate text"}},
      {"\"qwen3\"",
       "\"vit\", \"architectures\": [\"ViTForImageClassification\"]",
       no,
       {"\"vit\" (ViTForImageClassification)"}},
      {"\"qwen3\"",
       "\"qwen3\", \"architectures\": [\"Qwen3ForSequenceClassification\"]",
       no,
       {"Qwen3ForSequenceClassification, which does not generate text", "ForCausalLM"}},
      {"\"qwen3\"",
       "\"qwen3\", \"architectures\": [\"Qwen3Model\"]",
       no,
       {"Qwen3Model, which does not generate text"}},
      {"\"qwen3\"", "3", bad, {"model_type is 3, not a string"}},
      {"\"model_type\": \"qwen3\"", "\"dim\": 64", no, {"old format (dim, no model_type)"}},
      {"\"model_type\": \"qwen3\"", "\"n_layers\": 2", no, {"old format (n_layers", "convert"}},
      {"\"model_type\": \"qwen3\"", "\"n_heads\": 4", no, {"old format (n_heads"}},
      {"\"model_type\": \"qwen3\",", "", bad, {"model_type is missing"}},
      {"\"num_hidden_layers\": 2",
       "\"num_hidden_layers\": 1000000000",
       bad,
       {"num_hidden_layers is 1000000000", "[1, 1024]"}},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", bad, {"num_hidden_layers is 0"}},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": -2", bad, {"num_hidden_layers is -2"}},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2.5", bad, {"not a whole number"}},
      {"\"num_hidden_layers\": 2",
       "\"num_hidden_layers\": 1e400",
       bad,
       {"not valid JSON", "1e400"}},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": \"2\"", bad, {"not a whole number"}},
      {"\"num_hidden_layers\": 2",
       "\"num_hidden_layers\": 18446744073709551615",
       bad,
       {"num_hidden_layers"}},
      {"\"num_hidden_layers\": 2,", "", bad, {"num_hidden_layers is missing"}},
      {"\"num_hidden_layers\": 2",
       "\"num_hidden_layers\": 3",
       bad,
       {"model.layers.2.", "is missing"}},
      {"\"num_attention_heads\": 4",
       "\"num_attention_heads\": 0",
       bad,
       {"num_attention_heads is 0"}},
      {"\"num_attention_heads\": 4", "\"num_attention_heads\": 5", bad, {"no multiple"}},
      {"\"num_attention_heads\": 4",
       "\"num_attention_heads\": 8",
       bad,
       {"model.safetensors", "self_attn.q_proj.weight", "[64, 64]", "[128, 64]"}},
      {"\"num_key_value_heads\": 2",
       "\"num_key_value_heads\": 0",
       bad,
       {"num_key_value_heads is 0"}},
      {"\"head_dim\": 16", "\"head_dim\": 15", bad, {"head_dim 15 is odd"}},
      {"\"head_dim\": 16", "\"head_dim\": 100000", bad, {"head_dim is 100000"}},
      {"\"hidden_size\": 64", "\"hidden_size\": 32", bad, {"[256, 64]", "[256, 32]"}},
      {"\"hidden_size\": 64", "\"hidden_size\": 99999999", bad, {"hidden_size is 99999999"}},
      {"\"vocab_size\": 256", "\"vocab_size\": 100", bad, {"model.embed_tokens.weight"}},
      {"\"vocab_size\": 256", "\"vocab_size\": 0", bad, {"vocab_size is 0"}},
      {"\"max_position_embeddings\": 4096",
       "\"max_position_embeddings\": 0",
       bad,
       {"max_position_embeddings is 0"}},
      {"1e-06", "-1", bad, {"rms_norm_eps is -1"}},
      {"\"rope_theta\": 10000.0", "\"rope_theta\": 0", bad, {"rope_theta is 0"}},
      {"\"rope_theta\": 10000.0", "\"rope_theta\": \"x\"", bad, {"rope_theta", "not a number"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0}",
       bad,
       {"rope_scaling.original_max_position_embeddings is missing"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_scaling\": {\"type\": \"yarn\", \"original_max_position_embeddings\": 4096}",
       bad,
       {"rope_scaling.factor is missing"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_scaling\": {\"type\": \"yarn\", \"original_max_position_embeddings\": 4096, "
       "\"factor\": 2, \"beta_fast\": 1}",
       bad,
       {"rope_scaling.beta_fast is not above beta_slow"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_theta\": 1, \"rope_scaling\": {\"type\": \"yarn\", "
       "\"original_max_position_embeddings\": 4096, \"factor\": 2}",
       bad,
       {"of type yarn needs a rope_theta above 1"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_scaling\": {\"type\": \"yarn\", \"original_max_position_embeddings\": 4096, "
       "\"factor\": 2, \"truncate\": false}",
       no,
       {"rope_scaling.truncate is false"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_scaling\": {\"type\": \"su\", \"factor\": 4.0}",
       no,
       {"rope_scaling is of type \"su\"", "default, linear, dynamic, llama3 and yarn"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"default\"}}",
       no,
       {"rope_parameters.full_attention is an object", "one rotary embedding for all layers"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.5}",
       no,
       {"rope_parameters.partial_rotary_factor is 0.5"}},
      {"\"rope_theta\": 10000.0", "\"rope_traditional\": true", no, {"rope_traditional is true"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_parameters\": {\"rope_type\": \"longrope\"}",
       no,
       {"rope_parameters is of type \"longrope\""}},
      {"\"rope_theta\": 10000.0",
       "\"rope_scaling\": {\"type\": \"linear\"}",
       bad,
       {"factor is missing"}},
      {"\"rope_theta\": 10000.0",
       "\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8}",
       bad,
       {"needs low_freq_factor"}},
      {"\"rope_theta\": 10000.0", "\"rope_scaling\": 3", bad, {"rope_scaling is 3"}},
      {"\"rope_theta\": 10000.0", "\"partial_rotary_factor\": 0.5", no, {"partial_rotary_factor"}},
      {"\"silu\"", "\"gelu\"", no, {"hidden_act is \"gelu\"", "silu"}},
      {"\"eos_token_id\": 2", "\"eos_token_id\": \"</s>\"", bad, {"eos_token_id", "token id"}},
      {"\"eos_token_id\": 2",
       "\"attention_bias\": true",
       bad,
       {"self_attn.q_proj.bias is missing"}},
      {"\"eos_token_id\": 2",
       "\"use_sliding_window\": true, \"sliding_window\": 0",
       bad,
       {"sliding_window is 0"}},
      {"\"eos_token_id\": 2",
       "\"sliding_window\": 100, \"layer_types\": [\"full_attention\", \"sliding_attention\"]",
       bad,
       {"layer_types has \"sliding_attention\"", "use_sliding_window is off"}},
      {"\"eos_token_id\": 2", "\"layer_types\": 3", bad, {"layer_types is no list"}},
      {"\"eos_token_id\": 2",
       "\"layer_types\": [\"full_attention\"]",
       bad,
       {"layer_types is no list of num_hidden_layers (2)"}},
      {"\"eos_token_id\": 2",
       "\"layer_types\": [\"full_attention\", \"chunked_attention\"]",
       no,
       {"layer_types has \"chunked_attention\"", "\"sliding_attention\" are supported"}},
      {"\"tie_word_embeddings\": true",
       "\"tie_word_embeddings\": false",
       bad,
       {"lm_head.weight is missing"}},
      {"\"tie_word_embeddings\": true", "\"tie_word_embeddings\": 1", bad, {"not true or false"}},
      {"\"eos_token_id\": 2",
       "\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4}",
       no,
       {"quant_method is \"gptq\""}},
      {"\"eos_token_id\": 2",
       "\"quantization\": {\"group_size\": 32, \"bits\": 8, \"mode\": \"mxfp8\"}",
       no,
       {"mode is \"mxfp8\"", "affine and mxfp4"}},
      {"\"eos_token_id\": 2",
       "\"quantization\": {\"group_size\": 0, \"bits\": 4}",
       bad,
       {"group_size is 0"}},
      {"\"eos_token_id\": 2",
       "\"quantization\": {\"group_size\": 48, \"bits\": 4}",
       no,
       {"group_size is 48"}},
      {"\"eos_token_id\": 2",
       "\"quantization\": {\"group_size\": 64, \"bits\": 7}",
       no,
       {"bits is 7"}},
      {"\"eos_token_id\": 2", "\"quantization\": 4", bad, {"quantization is 4"}},
      {"\"eos_token_id\": 2",
       "\"quantization\": {\"group_size\": 64, \"bits\": 4, \"model.embed_tokens\": true}",
       bad,
       {"model.embed_tokens.weight", "[256, 8]"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.to);
    Write(spec);
    WriteConfig(Replace(good, row.from, row.to));
    const auto engine = Load();
    ASSERT_FALSE(engine.has_value());
    EXPECT_EQ(engine.error().code, row.code) << engine.error().message;
    EXPECT_THAT(engine.error().message, HasSubstr(dir_.path().string()));
    for (const char* reason : row.reasons) EXPECT_THAT(engine.error().message, HasSubstr(reason));
  }
  std::filesystem::remove(dir_.path() / "config.json");
  EXPECT_THAT(Load().error().message, HasSubstr("config.json"));
}

TEST_F(LoadTest, HarmlessVariantsAreAccepted) {
  const SynthSpec spec;
  const std::string good = SynthConfigJson(spec);
  Write(spec);
  const char* variants[] = {
      "\"rope_scaling\": null",
      "\"rope_scaling\": {\"rope_type\": \"default\"}",
      "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0}",
      "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}",
      "\"rope_traditional\": false",
      "\"architectures\": [\"Qwen3ForCausalLM\"]",
      "\"architectures\": []",
      "\"mlp_bias\": true",
      "\"layer_types\": [\"full_attention\", \"full_attention\"], \"sliding_window\": null",
      "\"use_sliding_window\": true, \"sliding_window\": 100, \"max_window_layers\": 1",
      "\"use_sliding_window\": false, \"sliding_window\": 100, \"max_window_layers\": 1",
      "\"use_sliding_window\": true, \"sliding_window\": 100, \"max_window_layers\": 2",
      "\"use_sliding_window\": true, \"sliding_window\": 4096",
      "\"use_sliding_window\": true, \"sliding_window\": null",
      "\"attention_bias\": false, \"dtype\": \"bfloat16\"",
      "\"eos_token_id\": null",
      "\"quantization\": null",
  };
  for (const char* variant : variants) {
    WriteConfig(Replace(good, "\"eos_token_id\": 2", variant));
    const auto engine = Load();
    EXPECT_TRUE(engine.has_value()) << variant << ": " << engine.error().message;
  }
}

// The same model in the ways that its config has been written over the years.
TEST_F(LoadTest, ConfigsOfAllAgesAreRead) {
  const SynthSpec spec{.model_type = "llama"};
  const std::string good = SynthConfigJson(spec), theta = "\"rope_theta\": 10000.0";
  const auto read = [&](const std::string& text) {
    WriteConfig(text);
    auto config = ReadModelConfig(dir_.path());
    EXPECT_TRUE(config.has_value()) << config.error().message;
    return config.value_or(ModelConfig());
  };
  // No rope_theta, no epsilon and no number of KV heads, as in the first Llama 2.
  ModelConfig config =
      read(Replace(Replace(Replace(good, theta + ",", ""), "\"num_key_value_heads\": 2,", ""),
                   "\"rms_norm_eps\": 1e-06,", ""));
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.kv_heads, config.heads);
  EXPECT_FLOAT_EQ(config.rms_epsilon, 1e-6f);

  const std::string llama3 =
      "\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
      "\"original_max_position_embeddings\": 8192";
  for (const std::string& text :
       {"\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", " + llama3 + "}",
        "\"rope_theta\": 500000, \"rope_scaling\": {\"type\": \"llama3\", " + llama3 + "}",
        "\"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 500000.0, " + llama3 +
            "}"}) {
    config = read(Replace(good, theta, text));
    EXPECT_EQ(config.rope.theta, 500000.0) << text;
    EXPECT_EQ(config.rope.scaling, RopeConfig::Scaling::kLlama3) << text;
    EXPECT_EQ(config.rope.factor, 8.0) << text;
    EXPECT_EQ(config.rope.original_context, 8192) << text;
    EXPECT_EQ(config.max_context, 4096) << text;
  }

  // YaRN's configs name the context before it is stretched.
  config = read(Replace(good, theta,
                        "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
                        "\"original_max_position_embeddings\": 4096}"));
  EXPECT_EQ(config.max_context, 4 * 4096);
  EXPECT_DOUBLE_EQ(config.rope.magnitude, 0.1 * std::log(4.0) + 1.0);
  config = read(Replace(good, theta,
                        "\"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, \"mscale\": 1, "
                        "\"mscale_all_dim\": 1, \"original_max_position_embeddings\": 64}"));
  EXPECT_EQ(config.max_context, 4096);
  EXPECT_DOUBLE_EQ(config.rope.magnitude, 1.0);

  // What depends on the length stays as it is up to the context.
  config = read(Replace(good, theta, "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 8.0}"));
  EXPECT_EQ(config.rope.scaling, RopeConfig::Scaling::kNone);
  EXPECT_EQ(config.max_context, 4096);
}

TEST_F(LoadTest, WindowsOfLayers) {
  struct Row {
    const char* model_type;
    const char* config;
    std::vector<int> windows;
  };
  const std::string types =
      R"("layer_types": ["full_attention", "sliding_attention", "full_attention"])";
  const std::string with_types = R"({"sliding_window": 100, )" + types + "}";
  const std::string qwen_types =
      R"({"use_sliding_window": true, "sliding_window": 100, "max_window_layers": 0, )" + types +
      "}";
  const Row rows[] = {
      {"mistral", R"({"sliding_window": 100})", {100, 100, 100}},
      {"mistral", R"({"sliding_window": null})", {0, 0, 0}},
      {"mistral", "{}", {0, 0, 0}},
      {"mistral", R"({"sliding_window": 4095})", {4095, 4095, 4095}},
      {"mistral", R"({"sliding_window": 4096})", {0, 0, 0}},
      {"mistral", with_types.c_str(), {0, 100, 0}},
      {"mistral3", R"({"sliding_window": 100})", {100, 100, 100}},
      {"llama", R"({"sliding_window": 100})", {0, 0, 0}},
      {"llama", with_types.c_str(), {0, 100, 0}},
      {"qwen2", R"({"sliding_window": 100, "max_window_layers": 1})", {0, 0, 0}},
      {"qwen2",
       R"({"use_sliding_window": true, "sliding_window": 100, "max_window_layers": 1})",
       {0, 100, 100}},
      {"qwen2", R"({"use_sliding_window": true, "sliding_window": 100})", {0, 0, 0}},
      {"qwen2",
       R"({"use_sliding_window": true, "sliding_window": null, "max_window_layers": 0})",
       {0, 0, 0}},
      {"qwen3", qwen_types.c_str(), {0, 100, 0}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(std::string(row.model_type) + row.config);
    WriteConfig(SynthConfigJson({.model_type = row.model_type, .layers = 3, .config = row.config}));
    const auto config = ReadModelConfig(dir_.path());
    ASSERT_TRUE(config.has_value()) << config.error().message;
    const auto spec = DescribeModel(*config);
    ASSERT_TRUE(spec.has_value()) << spec.error().message;
    EXPECT_EQ(spec->windows, row.windows);
  }
}

// A text model in a wrapper with a vision tower, in the two ways that its tensors are called.
TEST_F(LoadTest, TextModelsAreReadFromTheirWrapper) {
  const SynthSpec spec{.model_type = "mistral3",
                       .hidden = 128,
                       .feed_forward = 128,
                       .tied = false,
                       .bits = 4,
                       .overrides = {{"language_model.lm_head", 8}}};
  std::vector<SynthTensor> tensors = SynthTensors(spec);
  tensors.push_back({"vision_tower.patch_conv.weight", "BF16", {2}, std::string(4, '\0')});
  tensors.push_back({"multi_modal_projector.linear_1.weight", "BF16", {2}, std::string(4, '\0')});
  const std::string config = SynthConfigJson(spec);
  const std::vector<TokenId> tokens = SynthTokens(1, 40, spec.vocab);
  const auto run = [&]() -> std::vector<float> {
    WriteText(dir_.path() / "model.safetensors", SafetensorsBytes(tensors));
    auto engine = Load();
    EXPECT_TRUE(engine.has_value()) << engine.error().message;
    if (!engine) return {};
    const ModelInfo& info = (*engine)->info();
    EXPECT_EQ(info.architecture, "mistral3");
    EXPECT_EQ(info.quantization, "affine 4-bit, group 64, mixed");
    EXPECT_THAT(info.notes, ElementsAre(HasSubstr("vision tower is not used")));
    EXPECT_THAT(info.eos_ids, ElementsAre(2));
    const KvMemory kv(info.kv, 40);
    const SequenceStep step{.kv = kv.view(), .start = 0, .tokens = tokens, .logits_from = 0};
    const auto logits = (*engine)->Step({&step, 1});
    return {logits.begin(), logits.end()};
  };
  WriteConfig(config);
  const std::vector<float> expected = run();
  EXPECT_EQ(expected.size(), tokens.size() * static_cast<size_t>(spec.vocab));

  for (SynthTensor& tensor : tensors) {
    const std::string old_head = "language_model.lm_head", old_body = "language_model.model";
    if (tensor.name.starts_with(old_head))
      tensor.name = "lm_head" + tensor.name.substr(old_head.size());
    else if (tensor.name.starts_with(old_body))
      tensor.name = "model.language_model" + tensor.name.substr(old_body.size());
    else
      tensor.name = "model." + tensor.name;
  }
  WriteConfig(Replace(config, "language_model.lm_head", "lm_head"));
  EXPECT_EQ(run(), expected);

  // Both levels may say what concerns the folder; of text models that are none of ours, the name.
  WriteConfig(
      Replace(config, "\"text_config\": {", "\"eos_token_id\": [7, 8], \"text_config\": {"));
  ASSERT_TRUE(ReadModelConfig(dir_.path()).has_value());
  EXPECT_THAT(ReadModelConfig(dir_.path())->eos_ids, ElementsAre(7, 8));
  WriteConfig(Replace(config, "\"mistral\"", "\"ministral3\""));
  ASSERT_FALSE(Load().has_value());
  EXPECT_EQ(Load().error().code, ErrorCode::unsupported);
  EXPECT_THAT(Load().error().message, HasSubstr("text_config.model_type is \"ministral3\""));
  WriteConfig(Replace(config, "\"hidden_size\": 128", "\"hidden_size\": 0"));
  EXPECT_THAT(Load().error().message, HasSubstr("text_config.hidden_size is 0"));
  WriteConfig("{\"model_type\": \"mistral3\", \"text_config\": 5}");
  EXPECT_THAT(Load().error().message, HasSubstr("hidden_size is missing"));
}

TEST_F(LoadTest, BadGenerationConfigsAreRefused) {
  Write({});
  for (const char* text : {"{", "[]", R"({"temperature": "hot"})", R"({"temperature": -1})",
                           R"({"top_p": 2})", R"({"top_k": -1})", R"({"eos_token_id": {}})",
                           R"({"eos_token_id": [1, "a"]})", R"({"do_sample": 1})"}) {
    WriteText(dir_.path() / "generation_config.json", text);
    const auto engine = Load();
    ASSERT_FALSE(engine.has_value()) << text;
    EXPECT_EQ(engine.error().code, ErrorCode::bad_model);
    EXPECT_THAT(engine.error().message, HasSubstr("generation_config.json"));
  }
  WriteText(dir_.path() / "generation_config.json", R"({"do_sample": false, "temperature": 1.0})");
  auto engine = Load();
  ASSERT_TRUE(engine.has_value());
  EXPECT_FLOAT_EQ((*engine)->generation_defaults().temperature.value(), 0.0f);
}

TEST_F(LoadTest, HeadsAreFoundWhereTheConfigIsSilent) {
  for (bool tied : {true, false}) {
    const SynthSpec spec{.tied = tied};
    const std::string line =
        std::string(",\n  \"tie_word_embeddings\": ") + (tied ? "true" : "false");
    const int64_t embedding = int64_t{spec.vocab} * spec.hidden;
    Write(spec);
    auto said = Load();
    ASSERT_TRUE(said.has_value()) << said.error().message;
    WriteConfig(Replace(SynthConfigJson(spec), line, ""));
    auto silent = Load();
    ASSERT_TRUE(silent.has_value()) << silent.error().message;
    EXPECT_EQ((*silent)->info().parameters, (*said)->info().parameters);
    EXPECT_GE((*silent)->info().parameters, (tied ? 1 : 2) * embedding);
  }
}

// Tensors that do not fit the config, one at a time.
TEST_F(LoadTest, BadTensorsAreRefused) {
  const SynthSpec plain;
  const SynthSpec quantized{.hidden = 128, .feed_forward = 128, .bits = 4};
  struct Row {
    const char* what;
    SynthSpec spec;
    const char* tensor;
    std::function<void(SynthTensor&)> damage;
    std::vector<const char*> reasons;
  };
  const auto rename = [](SynthTensor& t) { t.name = "x." + t.name; };
  const Row rows[] = {
      {"norm missing", plain, "model.norm.weight", rename, {"model.norm.weight is missing"}},
      {"norm of integers",
       plain,
       "model.norm.weight",
       [](SynthTensor& t) { t.dtype = "I16"; },
       {"model.norm.weight", "I16", "BF16, F16 or F32"}},
      {"transposed",
       plain,
       "model.layers.1.mlp.up_proj.weight",
       [](SynthTensor& t) { std::swap(t.shape[0], t.shape[1]); },
       {"model.layers.1.mlp.up_proj.weight", "[64, 96]", "[96, 64]"}},
      {"of rank three",
       plain,
       "model.layers.1.mlp.up_proj.weight",
       [](SynthTensor& t) { t.shape.push_back(1); },
       {"[96, 64, 1]"}},
      {"weights of 16-bit integers",
       plain,
       "model.layers.0.self_attn.q_proj.weight",
       [](SynthTensor& t) { t.dtype = "U16"; },
       {"U16", "BF16, F16 or F32"}},
      {"q_norm missing",
       plain,
       "model.layers.0.self_attn.q_norm.weight",
       rename,
       {"q_norm.weight is missing"}},
      {"scales missing",
       quantized,
       "model.layers.0.mlp.gate_proj.scales",
       rename,
       {"model.layers.0.mlp.gate_proj.weight"}},
      {"biases missing",
       quantized,
       "model.layers.0.mlp.gate_proj.biases",
       rename,
       {"gate_proj.biases is missing"}},
      {"quantized weights as I32",
       quantized,
       "model.layers.0.mlp.gate_proj.weight",
       [](SynthTensor& t) { t.dtype = "I32"; },
       {"gate_proj.weight", "I32", "U32"}},
      {"scales of integers",
       quantized,
       "model.layers.0.mlp.gate_proj.scales",
       [](SynthTensor& t) { t.dtype = "U16"; },
       {"gate_proj.scales", "U16"}},
      {"biases of another type",
       quantized,
       "model.layers.0.mlp.gate_proj.biases",
       [](SynthTensor& t) { t.dtype = "F16"; },
       {"gate_proj.biases", "dtype of the scales"}},
      {"scales of another group",
       quantized,
       "model.embed_tokens.scales",
       [](SynthTensor& t) {
         t.shape = {t.shape[0] / 2, t.shape[1] * 2};
       },
       {"model.embed_tokens.scales", "[128, 4]", "[256, 2]"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.what);
    WriteConfig(SynthConfigJson(row.spec));
    std::vector<SynthTensor> tensors = SynthTensors(row.spec);
    bool found = false;
    for (SynthTensor& tensor : tensors)
      if (tensor.name == row.tensor) {
        row.damage(tensor);
        found = true;
      }
    ASSERT_TRUE(found);
    WriteText(dir_.path() / "model.safetensors", SafetensorsBytes(tensors));
    const auto engine = Load();
    ASSERT_FALSE(engine.has_value());
    EXPECT_EQ(engine.error().code, ErrorCode::bad_model);
    for (const char* reason : row.reasons) EXPECT_THAT(engine.error().message, HasSubstr(reason));
  }

  // Quantized tensors without a word of it in the config; a bias nobody asked for.
  WriteSynthModel(quantized, dir_.path());
  SynthSpec silent = quantized;
  silent.bits = 0;
  WriteConfig(SynthConfigJson(silent));
  EXPECT_THAT(Load().error().message, HasSubstr("config.json has no quantization"));
  std::vector<SynthTensor> tensors = SynthTensors(plain);
  tensors.push_back({"model.layers.0.mlp.up_proj.bias", "BF16", {96}, std::string(192, '\0')});
  WriteConfig(SynthConfigJson(plain));
  WriteText(dir_.path() / "model.safetensors", SafetensorsBytes(tensors));
  EXPECT_EQ(Load().error().code, ErrorCode::unsupported);
}

TEST_F(LoadTest, TensorsThatNobodyAsksForAreIgnored) {
  const SynthSpec spec{.model_type = "llama"};
  std::vector<SynthTensor> tensors = SynthTensors(spec);
  const std::string inv_freq = "model.layers.0.self_attn.rotary_emb.inv_freq";
  tensors.push_back({inv_freq, "F32", {8}, std::string(32, '\0')});
  // A tied head's copy of the embedding.
  tensors.push_back({"lm_head.weight", "BF16", {256, 64}, std::string(2 * 256 * 64, '\0')});
  WriteConfig(SynthConfigJson(spec));
  WriteText(dir_.path() / "model.safetensors", SafetensorsBytes(tensors));
  const auto engine = Load();
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  EXPECT_TRUE((*engine)->info().notes.empty());
}

TEST_F(LoadTest, BadOptionsAreErrors) {
  Write({});
  for (int threads : {0, -1, 1000000}) {
    const auto engine =
        Engine::Load(dir_.path(), {.threads = threads, .isa = BestIsa(), .on_progress = {}});
    ASSERT_FALSE(engine.has_value());
    EXPECT_EQ(engine.error().code, ErrorCode::bad_config);
  }
  EXPECT_FALSE(Engine::Load(dir_.path() / "none", {.on_progress = {}}).has_value());
}

// Bytes at odd addresses, and files in shards: the same bits as one aligned file.
TEST_F(LoadTest, AlignmentAndShardsDoNotMatter) {
  const std::vector<SynthSpec> specs = {
      {.tied = false},
      {.dtype = "f32"},
      {.hidden = 128, .feed_forward = 128, .bits = 4},
      {.hidden = 96, .feed_forward = 96, .bits = 6, .group = 32},
  };
  for (const SynthSpec& spec : specs) {
    const std::vector<TokenId> tokens = SynthTokens(1, 40, spec.vocab);
    const auto run = [&]() -> std::vector<float> {
      auto engine = Load();
      EXPECT_TRUE(engine.has_value()) << engine.error().message;
      const KvMemory kv((*engine)->info().kv, 40);
      const SequenceStep step{.kv = kv.view(), .start = 0, .tokens = tokens, .logits_from = 0};
      const auto logits = (*engine)->Step({&step, 1});
      return {logits.begin(), logits.end()};
    };
    Write(spec);
    const std::vector<float> expected = run();
    for (size_t pad : {1, 2, 3, 5, 7}) {
      WriteText(dir_.path() / "model.safetensors", SafetensorsBytes(SynthTensors(spec), pad));
      EXPECT_EQ(run(), expected) << "padded by " << pad;
    }
    SynthSpec sharded = spec;
    sharded.shards = 4;
    Write(sharded);
    EXPECT_EQ(run(), expected);
    std::filesystem::remove(dir_.path() / "model.safetensors.index.json");
  }
}

}  // namespace
}  // namespace perdure::engine
