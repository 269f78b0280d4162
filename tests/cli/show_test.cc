#include "cli/show.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "cli/command_line.h"
#include "cli/list.h"
#include "cli/model_report.h"
#include "engine/engine.h"
#include "protocol/heritage.h"
#include "tests/engine/synth_model.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;
using engine::SynthSpec;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

const fs::path kNano = fs::path(PERDURE_SOURCE_DIR) / "models/nano";

class ShowTest : public testing::Test {
 protected:
  // A model that lacks nothing.
  void Write(const SynthSpec& spec) {
    engine::WriteSynthModel(spec, dir_.path());
    for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
      fs::copy_file(kNano / name, dir_.path() / name, fs::copy_options::overwrite_existing);
  }
  ModelReportInputs Inputs() {
    ModelReportInputs in;
    in.model.name = "m";
    in.model.source = dir_.path();
    in.folder = dir_.path();
    in.memory = {.capacity = 8 * kGiB, .available = 4 * kGiB};
    return in;
  }

  engine::TempDir dir_;
};

std::vector<std::string> Keys(const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) keys.push_back(key);
  return keys;
}

TEST_F(ShowTest, TellsOfQuantizationOnLoad) {
  Write({.dtype = "bf16", .hidden = 64, .feed_forward = 128});
  ModelReportInputs in = Inputs();
  const Json plain = ModelReport(in);
  EXPECT_TRUE(plain["quantize"].is_null());
  in.model.quantize_bits = 4;
  const Json report = ModelReport(in);
  EXPECT_EQ(report["quantize"], "q4");
  EXPECT_THAT(report["quantization"].get<std::string>(), testing::StartsWith("bf16"));
  EXPECT_LT(report["weights"]["memory_bytes"].get<uint64_t>() * 2,
            plain["weights"]["memory_bytes"].get<uint64_t>());
  EXPECT_THAT(FormatShow(report), testing::ContainsRegex("quantized on load to +q4"));
}

// What scripts rely on; docs/api.md lists them.
TEST_F(ShowTest, KeysAreTheSameWhateverIsBroken) {
  const auto keys =
      ElementsAre("name", "source", "folder", "model_type", "architecture", "parameters",
                  "active_parameters", "quantization", "quantize", "weights", "vocabulary",
                  "tokenizer", "chat_templates", "context", "kv", "memory", "notes", "problems");
  const Json nothing = ModelReport(Inputs());
  EXPECT_THAT(Keys(nothing), keys);
  EXPECT_EQ(nothing["problems"].size(), 3u) << nothing["problems"];
  EXPECT_THAT(FormatShow(nothing), HasSubstr("What keeps the model from being served:\n- "));

  Write({});
  const Json whole = ModelReport(Inputs());
  EXPECT_THAT(Keys(whole), keys);
  EXPECT_TRUE(whole["problems"].empty()) << whole["problems"];
  EXPECT_THAT(Keys(whole["architecture"]),
              ElementsAre("layers", "hidden_size", "heads", "kv_heads", "head_dim", "feed_forward",
                          "experts", "experts_per_token", "expert_feed_forward"));
  EXPECT_THAT(Keys(whole["weights"]),
              ElementsAre("files", "disk_bytes", "memory_bytes", "formats"));
  EXPECT_THAT(Keys(whole["weights"]["formats"][0]),
              ElementsAre("format", "bits", "group", "tensors", "parameters", "disk_bytes"));
  EXPECT_THAT(Keys(whole["tokenizer"]), ElementsAre("file", "tokens"));
  EXPECT_THAT(Keys(whole["chat_templates"][0]), ElementsAre("name", "file"));
  EXPECT_THAT(Keys(whole["context"]), ElementsAre("model", "configured", "served", "bound"));
  EXPECT_THAT(Keys(whole["kv"]), ElementsAre("page_tokens", "bytes_max", "reason", "types"));
  EXPECT_THAT(Keys(whole["kv"]["types"][0]),
              ElementsAre("type", "bits", "bytes_per_token", "tokens_available", "ceiling"));
  EXPECT_THAT(Keys(whole["memory"]), ElementsAre("capacity_bytes", "available_bytes"));
}

TEST_F(ShowTest, TellsOfAQuantizedModelInShards) {
  SynthSpec spec{.feed_forward = 128, .tied = false, .bits = 4, .shards = 3};
  spec.overrides = {{"lm_head", 8}};
  Write(spec);
  const Json report = ModelReport(Inputs());
  EXPECT_TRUE(report["problems"].empty()) << report["problems"];
  EXPECT_EQ(report["model_type"], "qwen3");
  EXPECT_EQ(report["weights"]["files"], 3);
  EXPECT_THAT(report["quantization"].get<std::string>(),
              AllOf(HasSubstr("affine 4-bit, group 64"), HasSubstr("1 tensor affine 8-bit")));
  EXPECT_EQ(report["tokenizer"]["file"], "tokenizer.json");
  EXPECT_EQ(report["tokenizer"]["tokens"], 2048);
  EXPECT_EQ(report["chat_templates"][0]["name"], "default");
  // 2 layers, 2 heads of 16 for keys and values, 16 bits each.
  const Json& kv = report["kv"]["types"][0];
  EXPECT_EQ(kv["type"], "kv");
  EXPECT_EQ(kv["bytes_per_token"], 2 * 2 * 2 * 16 * 2);
  EXPECT_EQ(kv["tokens_available"],
            (4 * kGiB - report["weights"]["memory_bytes"].get<uint64_t>()) / 256);
  const std::string text = FormatShow(report);
  EXPECT_THAT(text,
              HasSubstr("architecture    qwen3: 2 layers of 64, 4 heads of 16 (2 for keys and "
                        "values), feed-forward 128\n"));
  EXPECT_THAT(text, HasSubstr("4,096 would be served now (bounded by the model)"));
  EXPECT_THAT(text, HasSubstr("\nrotating_kv "));
  EXPECT_THAT(text, Not(HasSubstr("What keeps")));
}

TEST_F(ShowTest, NamesTheQuantizationAsTheEngineDoes) {
  for (const char* mode : {"affine", "mxfp4"}) {
    Write({.feed_forward = 128, .bits = 4, .mode = mode});
    const auto engine = engine::Engine::Load(dir_.path(), engine::EngineOptions());
    ASSERT_TRUE(engine.has_value()) << engine.error().message;
    EXPECT_THAT(ModelReport(Inputs())["quantization"].get<std::string>(),
                testing::StartsWith((*engine)->info().quantization + "; "));
  }
}

TEST_F(ShowTest, TheContextIsWhatAWorkerWouldServe) {
  Write({});
  ModelReportInputs in = Inputs();
  in.model.max_context = 1000;
  Json report = ModelReport(in);
  EXPECT_EQ(report["context"],
            (Json{{"model", 4096}, {"configured", 1000}, {"served", 1000}, {"bound", "config"}}));
  in.model.max_context = 5000;
  report = ModelReport(in);
  EXPECT_EQ(report["context"]["served"], 4096);
  ASSERT_EQ(report["notes"].size(), 1u);
  EXPECT_THAT(FormatShow(report), HasSubstr("Notes:\n- max_context is 5000, but"));

  in = Inputs();
  // A quarter of a MiB: 1,024 tokens.
  in.memory.available = report["weights"]["memory_bytes"].get<uint64_t>() + (1 << 19);
  report = ModelReport(in);
  EXPECT_EQ(report["context"]["served"], 1024);
  EXPECT_EQ(report["context"]["bound"], "memory");
  in.model.kv_bytes_max = 2 << 20;
  EXPECT_EQ(ModelReport(in)["context"]["served"], 4096);

  in.memory.available = 1000;
  report = ModelReport(in);
  EXPECT_TRUE(report["context"]["served"].is_null());
  ASSERT_EQ(report["problems"].size(), 1u);
  EXPECT_THAT(report["problems"][0].get<std::string>(), HasSubstr("the weights take"));
  EXPECT_EQ(report["kv"]["types"][0]["tokens_available"], 0);
}

TEST_F(ShowTest, FilesThatAreMissingOrBrokenAreNamed) {
  Write({.shards = 2});
  fs::remove(dir_.path() / "model-00002-of-00002.safetensors");
  engine::WriteText(dir_.path() / "tokenizer.json", "{");
  engine::WriteText(dir_.path() / "chat_template.jinja", "{% if %}");
  const std::string text = FormatShow(ModelReport(Inputs()));
  EXPECT_THAT(text, HasSubstr("model-00002-of-00002.safetensors"));
  EXPECT_THAT(text, HasSubstr("tokenizer.json"));
  EXPECT_THAT(text, HasSubstr("chat_template.jinja"));
  EXPECT_THAT(text, HasSubstr("4,096 tokens")) << "config.json is read all the same";
}

class ListTest : public testing::Test {
 protected:
  ListTest() {
    config_.model_cache_dir = dir_.path() / "hub";
    ModelConfig nano;
    nano.name = nano.source = "nano";
    config_.models.push_back(nano);
  }
  // The cached model's snapshot.
  fs::path AddCached(const std::string& repo, const std::string& config_json) {
    const std::string commit(40, 'a');
    const fs::path folder = config_.model_cache_dir / ("models--" + repo);
    fs::create_directories(folder / "refs");
    fs::create_directories(folder / "snapshots" / commit);
    engine::WriteText(folder / "refs/main", commit);
    engine::WriteText(folder / "snapshots" / commit / "config.json", config_json);
    return folder / "snapshots" / commit;
  }
  Json List() {
    return ModelList(config_, [](const std::string& name) -> std::optional<std::string> {
      if (name == "PERDURE_BUILTIN_MODELS") return kNano.parent_path().string();
      return std::nullopt;
    })["models"];
  }

  engine::TempDir dir_;
  Config config_;
};

TEST_F(ListTest, TheConfiguredThenTheCached) {
  const fs::path qwen = AddCached("org--qwen", R"({"model_type": "qwen3"})");
  engine::WriteText(qwen / "model.safetensors", std::string(1000, ' '));
  AddCached("a--clip", R"({"model_type": "clip"})");
  const Json models = List();
  ASSERT_EQ(models.size(), 3u);
  EXPECT_EQ(models[0]["name"], "nano");
  EXPECT_EQ(models[0]["origin"], "built-in");
  EXPECT_TRUE(models[0]["problem"].is_null());
  EXPECT_EQ(models[1]["name"], "a/clip");
  EXPECT_EQ(models[1]["model_type"], "clip");
  EXPECT_THAT(models[1]["problem"].get<std::string>(), HasSubstr("clip"));
  EXPECT_EQ(models[2]["name"], "org/qwen");
  EXPECT_EQ(models[2]["origin"], "cache");
  EXPECT_EQ(models[2]["folder"], qwen.string());
  EXPECT_EQ(models[2]["disk_bytes"], 1000);
  EXPECT_THAT(FormatList(Json{{"models", models}}), HasSubstr("org/qwen  cache     qwen3  1000 B"));
}

TEST_F(ListTest, AConfiguredModelStandsThereOnce) {
  AddCached("org--qwen", R"({"model_type": "qwen3"})");
  config_.models[0].name = "mine";
  config_.models[0].source = "org/qwen";
  ModelConfig lost;
  lost.name = "lost";
  lost.source = "org/lost";
  config_.models.push_back(lost);
  const Json models = List();
  ASSERT_EQ(models.size(), 3u);
  EXPECT_EQ(models[0]["name"], "mine");
  EXPECT_EQ(models[0]["origin"], "config");
  EXPECT_TRUE(models[1]["folder"].is_null());
  EXPECT_THAT(models[1]["problem"].get<std::string>(), HasSubstr("org/lost"));
  EXPECT_EQ(models[2]["name"], "nano");
}

TEST(CommandLine, ShowAndList) {
  const auto parse = [](std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "perdure");
    return ParseCommandLine(static_cast<int>(arguments.size()), arguments.data());
  };
  const auto show = parse({"show", "org/name", "--json", "--max-context", "4096"});
  ASSERT_TRUE(show.command_line);
  EXPECT_EQ(show.command_line->command, Command::kShow);
  EXPECT_EQ(show.command_line->model, "org/name");
  EXPECT_EQ(show.command_line->flags.max_context, 4096);
  EXPECT_TRUE(show.command_line->flags.models.empty());
  EXPECT_TRUE(show.command_line->json);
  EXPECT_EQ(parse({"list"}).command_line->command, Command::kList);
  EXPECT_EQ(parse({"ps", "--config", "x"}).command_line->flags.config, "x");
  EXPECT_EQ(parse({"show"}).exit_code, protocol::kExitUsage);
  EXPECT_EQ(parse({"show", "a", "b"}).exit_code, protocol::kExitUsage);
}

}  // namespace
}  // namespace perdure::cli
