#include "base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

#include "base/config_keys.h"
#include "base/limits.h"

namespace perdure {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::StartsWith;

using Variables = std::map<std::string, std::string>;

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    std::string pattern = (fs::temp_directory_path() / "perdure-config-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    variables_["HOME"] = folder_;
  }
  ~ConfigTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  // The path of a file with this text.
  std::string File(const std::string& text) {
    const fs::path path = folder_ / "perdure.toml";
    std::ofstream(path) << text;
    fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
    return path;
  }
  GetEnv Env() const {
    return [this](const std::string& name) -> std::optional<std::string> {
      const auto it = variables_.find(name);
      if (it == variables_.end()) return std::nullopt;
      return it->second;
    };
  }
  Result<Config> Load(const ConfigFlags& flags = {}) {
    warnings_.clear();
    return LoadConfig(flags, Env(), &warnings_);
  }
  Result<Config> LoadText(const std::string& text, ConfigFlags flags = {}) {
    flags.config = File(text);
    return Load(flags);
  }
  std::string ErrorOf(const std::string& text) {
    const auto config = LoadText(text);
    if (config) return "no error";
    EXPECT_EQ(config.error().code, ErrorCode::bad_config);
    return config.error().message;
  }

  fs::path folder_;
  Variables variables_;
  std::vector<std::string> warnings_;
};

std::vector<std::string> Names(const Config& config) {
  std::vector<std::string> names;
  for (const ModelConfig& m : config.models) names.push_back(m.name);
  return names;
}

TEST_F(ConfigTest, DefaultsServeNanoOnLoopback) {
  variables_["PERDURE_CONFIG"] = "/dev/null";  // this machine may have one
  const auto config = Load();
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->host, "127.0.0.1");
  EXPECT_EQ(config->port, 8000);
  ASSERT_THAT(Names(*config), ElementsAre("nano"));
  EXPECT_EQ(config->models[0].source, "nano");
  EXPECT_TRUE(config->models[0].is_default);
  EXPECT_TRUE(config->config_file.empty());
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(ConfigTest, FlagBeforeVariableBeforeFileBeforeDefault) {
  const std::string text = "[server]\nport = 1\n";
  ConfigFlags flags;
  EXPECT_EQ(LoadText(text, flags)->port, 1);
  variables_["MLX_SERVER_PORT"] = "2";
  EXPECT_EQ(LoadText(text, flags)->port, 2);
  variables_["PERDURE_PORT"] = "3";
  EXPECT_EQ(LoadText(text, flags)->port, 3);
  flags.port = 4;
  EXPECT_EQ(LoadText(text, flags)->port, 4);
}

TEST_F(ConfigTest, SnapshotsAreOnUnlessTheyAreNotWanted) {
  const auto before = Load();
  ASSERT_TRUE(before);
  EXPECT_TRUE(before->snapshots.enabled);
  EXPECT_TRUE(before->snapshots.sync);
  EXPECT_EQ(before->snapshots.retention_days, 30);
  const auto config = LoadText(
      "[snapshots]\nenabled = false\ndurability = \"async\"\nkv_bytes_max = \"20GiB\"\n"
      "turns_bytes_max = 20000000\nretention_days = 7\nsaved_bytes_max = \"1GiB\"\n"
      "[server]\nupload_bytes_max = \"2GiB\"\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_FALSE(config->snapshots.enabled);
  EXPECT_FALSE(config->snapshots.sync);
  EXPECT_EQ(config->snapshots.kv_bytes_max, uint64_t{20} << 30);
  EXPECT_EQ(config->snapshots.turns_bytes_max, 20'000'000u);
  EXPECT_EQ(config->snapshots.retention_days, 7);
  EXPECT_EQ(before->snapshots.saved_bytes_max, uint64_t{16} << 30);
  EXPECT_EQ(config->snapshots.saved_bytes_max, uint64_t{1} << 30);
  EXPECT_EQ(before->upload_bytes_max, uint64_t{8} << 30);
  EXPECT_EQ(config->upload_bytes_max, uint64_t{2} << 30);
  for (const char* wrong : {"durability = \"fsync\"", "kv_bytes_max = \"1MiB\"",
                            "retention_days = 0", "turns_bytes_max = -1", "keep = true"})
    EXPECT_FALSE(LoadText(std::string("[snapshots]\n") + wrong + "\n")) << wrong;
}

TEST_F(ConfigTest, EveryKeyCanBeSetByItsVariable) {
  for (const ConfigKey& key : ConfigKeys()) {
    const std::string before = variables_["HOME"];
    variables_ = {{"HOME", before}};
    std::string value;
    switch (key.kind) {
      case ConfigKind::kText:
        value = key.name == "host" ? "127.0.0.9" : "scalar";
        break;
      case ConfigKind::kInteger:
      case ConfigKind::kNumber:
        value = "1";
        break;
      case ConfigKind::kBytes:
        value = "16MiB";
        break;
      case ConfigKind::kBoolean:
        value = "yes";
        break;
      case ConfigKind::kTexts:
      case ConfigKind::kPaths:
        value = "one, two";
        break;
      case ConfigKind::kPath:
        value = "~/there";
        break;
      case ConfigKind::kLogLevel:
        value = "WARNING";
        break;
      case ConfigKind::kQuantize:
        value = "q8";
        break;
      case ConfigKind::kActivations:
        value = "float32";
        break;
      case ConfigKind::kToolFormat:
        value = "hermes";
        break;
      case ConfigKind::kDurability:
        value = "async";
        break;
      case ConfigKind::kSecret:
        value = "secret";
        break;
      case ConfigKind::kKvCompression:
        value = "zstd";
        break;
    }
    variables_[std::string(key.variable)] = value;
    const auto config = Load();
    ASSERT_TRUE(config.has_value()) << key.variable << ": " << config.error().message;
    if (!key.alias.empty()) {
      variables_.erase(std::string(key.variable));
      variables_[std::string(key.alias)] = value;
      EXPECT_TRUE(Load().has_value()) << key.alias;
    }
    if (key.kind == ConfigKind::kText || key.kind == ConfigKind::kTexts ||
        key.kind == ConfigKind::kPath || key.kind == ConfigKind::kPaths)
      continue;
    variables_[std::string(key.variable)] = "nonsense";
    const auto bad = Load();
    ASSERT_FALSE(bad.has_value()) << key.variable;
    EXPECT_THAT(bad.error().message, StartsWith(std::string(key.variable) + ": "));
  }
}

TEST_F(ConfigTest, VariablesAreAsGiven) {
  variables_["PERDURE_API_KEYS"] = "one, two";
  variables_["PERDURE_BODY_BYTES_MAX"] = "2MiB";
  variables_["PERDURE_INSECURE"] = "0";
  variables_["MLX_DEFAULT_TEMPERATURE"] = "0.7";
  variables_["MLX_LOG_LEVEL"] = "INFO";
  variables_["PERDURE_HANG_TIMEOUT_S"] = "";  // as if unset
  const auto config = Load();
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_THAT(config->api_keys, ElementsAre("one", "two"));
  EXPECT_EQ(config->body_bytes_max, 2u << 20);
  EXPECT_EQ(config->default_temperature, 0.7f);
  EXPECT_EQ(config->hang_timeout_s, 60);
}

TEST_F(ConfigTest, HowLongModelsStay) {
  auto config = Load();
  ASSERT_TRUE(config.has_value());
  EXPECT_EQ(config->model_idle_timeout_s, 300) << "as in MLX Server Nano";
  EXPECT_TRUE(config->models[0].preload);
  EXPECT_FALSE(config->models[0].pinned);
  variables_["MLX_MODEL_IDLE_TIMEOUT"] = "60";
  config = LoadText(
      "[lifecycle]\nmemory_max = \"3GiB\"\narena_timeout_s = 7\nresidency_least_s = 0\n"
      "[models.a]\npinned = true\npreload = false\nidle_timeout_s = 0\n"
      "warm_up = true\n");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->model_idle_timeout_s, 60);
  EXPECT_EQ(config->memory_max, uint64_t{3} << 30);
  EXPECT_EQ(config->arena_timeout_s, 7);
  EXPECT_EQ(config->residency_least_s, 0);
  EXPECT_TRUE(config->models[0].pinned);
  EXPECT_FALSE(config->models[0].preload);
  EXPECT_EQ(config->models[0].idle_timeout_s, 0);
  EXPECT_TRUE(config->models[0].warm_up);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(ConfigTest, HowManyRequestsAndForHowLong) {
  auto config = Load();
  ASSERT_TRUE(config.has_value());
  EXPECT_EQ(config->request_timeout_s, 0);
  EXPECT_EQ(config->drain_delay_s, 0);
  EXPECT_FALSE(config->models[0].queue_max);
  EXPECT_FALSE(config->models[0].request_timeout_s);
  variables_["PERDURE_DRAIN_DELAY_S"] = "8";
  variables_["PERDURE_REQUEST_TIMEOUT_S"] = "90";
  config = LoadText(
      "[server]\nqueue_max = 10\nrequest_timeout_s = 60\ndrain_delay_s = 5\n"
      "[models.a]\nqueue_max = 3\nrequest_timeout_s = 0\n[models.b]\n");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->request_timeout_s, 90);
  EXPECT_EQ(config->drain_delay_s, 8);
  EXPECT_EQ(config->queue_max, 10);
  EXPECT_EQ(config->models[0].queue_max, 3);
  EXPECT_EQ(config->models[0].request_timeout_s, 0);
  EXPECT_FALSE(config->models[1].queue_max);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(ConfigTest, AliasesAreNamesOfModels) {
  const auto config = LoadText(
      "[aliases.writer]\nmodel = \"a\"\ntemperature = 1.5\ntop_k = 40\nmax_tokens = 77\n"
      "system_prompt = \"You write.\"\nchat_template_kwargs = { enable_thinking = false, n = 3 }\n"
      "[models.a]\nsource = \"nano\"\n[models.b]\nsource = \"nano\"\n");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  ASSERT_EQ(config->aliases.size(), 1u);
  const ModelAlias& alias = config->aliases[0];
  EXPECT_EQ(alias.name, "writer");
  EXPECT_EQ(alias.model, "a");
  EXPECT_EQ(alias.temperature, 1.5f);
  EXPECT_EQ(alias.top_k, 40);
  EXPECT_EQ(alias.max_tokens, 77);
  EXPECT_EQ(alias.system_prompt, "You write.");
  std::string kwargs = alias.chat_template_kwargs;
  std::erase_if(kwargs, [](char c) { return c == ' ' || c == '\n'; });
  EXPECT_EQ(kwargs, "{\"enable_thinking\":false,\"n\":3}");
  ConfigFlags flags;
  flags.models = {"b"};
  EXPECT_THAT(LoadText("[aliases.x]\nmodel = \"a\"\n[models.a]\nsource = \"nano\"\n"
                       "[models.b]\nsource = \"nano\"\n",
                       flags)
                  ->aliases,
              IsEmpty())
      << "its model is not served";
  EXPECT_THAT(ErrorOf("[aliases.a]\nmodel = \"a\"\n[models.a]\nsource = \"nano\"\n"),
              HasSubstr("aliases.a has the name of a model"));
  EXPECT_THAT(ErrorOf("[aliases.x]\nmodel = \"c\"\n[models.a]\nsource = \"nano\"\n"),
              HasSubstr("no model of this service"));
  EXPECT_THAT(ErrorOf("[aliases.x]\ntop_k = 3\n"), HasSubstr("has no model"));
  EXPECT_THAT(ErrorOf("[aliases.x]\nmodel = \"a\"\ntemprature = 3\n"), HasSubstr("temperature"));
  EXPECT_THAT(ErrorOf("[aliases.x]\nmodel = \"a\"\nchat_template_kwargs = 3\n"),
              HasSubstr("must be a table"));
}

TEST_F(ConfigTest, ThePredecessorsVariablesSetConversationsAndTheirCache) {
  const auto before = Load();
  ASSERT_TRUE(before.has_value());
  // Its defaults are these.
  EXPECT_EQ(before->conversations, ConversationSettings());
  EXPECT_TRUE(before->conversations.enabled);
  EXPECT_TRUE(before->conversations.auto_detect);
  EXPECT_EQ(before->conversations.conversations_max, 100);
  EXPECT_EQ(before->conversations.idle_timeout_s, 3600);
  EXPECT_EQ(before->conversations.detection_threshold, 0.8f);
  EXPECT_EQ(before->cache, CacheChoice());
  variables_["MLX_CONVERSATION_CACHE_ENABLED"] = "false";
  variables_["MLX_AUTO_DETECT_CONVERSATIONS"] = "false";
  variables_["MLX_MAX_CONVERSATIONS"] = "7";
  variables_["MLX_CONVERSATION_IDLE_TIMEOUT"] = "60";
  variables_["MLX_CONVERSATION_DETECTION_THRESHOLD"] = "0.5";
  variables_["MLX_CACHE_TYPE"] = "rotating_kv";
  const auto config = Load();
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_FALSE(config->conversations.enabled);
  EXPECT_FALSE(config->conversations.auto_detect);
  EXPECT_EQ(config->conversations.conversations_max, 7);
  EXPECT_EQ(config->conversations.idle_timeout_s, 60);
  EXPECT_EQ(config->conversations.detection_threshold, 0.5f);
  EXPECT_EQ(config->cache.settings.type, "rotating_kv");
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(ConfigTest, CacheTypesOfItsOwn) {
  const auto config = LoadText(R"(
[cache]
type = "long"
shared_prompts = ["prompts/one.txt", "/two.txt"]
[cache_types.long]
type = "kv"
then = [{ at = 4096, type = "rotating_kv", max_size = 2048, bits = 8 }, { at = 8192, type = "small" }]
[cache_types.small]
type = "quantized_kv"
compression_ratio = 0.25
optimization_interval = 100
[models.m]
source = "nano"
cache_type = "small"
)");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  ASSERT_EQ(config->cache_types.size(), 2u);
  const NamedCacheType& longer = config->cache_types[0];
  EXPECT_EQ(longer.name, "long");
  EXPECT_EQ(longer.choice.settings.type, "kv");
  ASSERT_EQ(longer.choice.then.size(), 2u);
  EXPECT_EQ(longer.choice.then[0].at, 4096);
  EXPECT_EQ(longer.choice.then[0].settings.max_size, 2048);
  EXPECT_EQ(longer.choice.then[0].settings.bits, 8);
  EXPECT_EQ(longer.choice.then[1].settings.type, "small");
  EXPECT_EQ(config->cache_types[1].choice.settings.compression_ratio, 0.25f);
  EXPECT_EQ(config->cache_types[1].choice.settings.optimization_interval, 100);
  EXPECT_EQ(config->models[0].cache_type, "small");
  EXPECT_THAT(config->shared_prompts,
              ElementsAre(std::string(folder_) + "/prompts/one.txt", "/two.txt"));
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(ConfigTest, CacheTypesThatAreWrong) {
  const auto error = [&](const std::string& text) {
    const auto config = LoadText(text);
    return config ? "none" : config.error().message;
  };
  EXPECT_THAT(error("[cache_types.x]\nsize = 3\n"), HasSubstr(":2: unknown key \"size\""));
  EXPECT_THAT(error("[cache_types.x]\nmax_size = \"a\"\n"), HasSubstr(":2: max_size: "));
  EXPECT_THAT(error("[cache_types.x]\nthen = 3\n"), HasSubstr("then must be a list"));
  EXPECT_THAT(error("[cache_types.x]\nthen = [3]\n"), HasSubstr("then must be a list"));
  EXPECT_THAT(error("[cache_types.x]\nthen = [{type = \"kv\"}]\n"), HasSubstr("needs `at`"));
  EXPECT_THAT(error("[cache_types.x]\nthen = [{at = 1, then = []}]\n"), HasSubstr("unknown key"));
  EXPECT_THAT(error("[cache_types]\nx = 3\n"), HasSubstr("cache_types.x must be a table"));
  EXPECT_THAT(error("cache_types = 3\n"), HasSubstr("cache_types must be"));
  EXPECT_THAT(error("[cache]\nmax_size = 0\n"), HasSubstr("max_size: 0 is not"));
}

TEST_F(ConfigTest, AnUnknownCacheTypeIsSaid) {
  ASSERT_TRUE(LoadText("[cache]\ntype = \"rotating\"\n[models.nano]\ncache_type = \"q\"\n"));
  ASSERT_EQ(warnings_.size(), 2u);
  EXPECT_THAT(warnings_[0],
              HasSubstr("cache.type: there is no cache type \"rotating\", so it is kv"));
  EXPECT_THAT(warnings_[1], HasSubstr("models.nano.cache_type: "));
}

TEST_F(ConfigTest, TheModelCacheIsThatOfHuggingfaceHub) {
  const auto dir = [&] { return Load()->model_cache_dir.string(); };
  const std::string home = folder_;
  EXPECT_EQ(dir(), home + "/.cache/huggingface/hub");
  variables_["XDG_CACHE_HOME"] = "/xdg";
  EXPECT_EQ(dir(), "/xdg/huggingface/hub");
  variables_["HF_HOME"] = "~/hf";
  EXPECT_EQ(dir(), home + "/hf/hub");
  variables_["HUGGINGFACE_HUB_CACHE"] = "/older";
  EXPECT_EQ(dir(), "/older");
  variables_["HF_HUB_CACHE"] = "/cache";
  EXPECT_EQ(dir(), "/cache");
  variables_["PERDURE_MODEL_CACHE_DIR"] = "/ours";
  EXPECT_EQ(dir(), "/ours");
}

TEST_F(ConfigTest, TheRuntimeFolder) {
  variables_["XDG_RUNTIME_DIR"] = "/run/user/7";
  EXPECT_EQ(Load()->runtime_dir, "/run/user/7/perdure");
  EXPECT_EQ(*FindRuntimeDir({}, Env()), "/run/user/7/perdure");
  variables_["PERDURE_RUNTIME_DIR"] = "/r";
  EXPECT_EQ(Load()->runtime_dir, "/r");
  EXPECT_EQ(*FindRuntimeDir({}, Env()), "/r");
  ConfigFlags flags;
  flags.runtime_dir = "/flag";
  EXPECT_EQ(*FindRuntimeDir(flags, Env()), "/flag");
  variables_.erase("PERDURE_RUNTIME_DIR");
  variables_.erase("XDG_RUNTIME_DIR");
  EXPECT_EQ(Load()->runtime_dir,
            geteuid() == 0 ? "/run/perdure" : "/tmp/perdure-" + std::to_string(geteuid()));
}

TEST_F(ConfigTest, TheRuntimeFolderOfAServiceIsFoundInItsFile) {
  variables_["XDG_RUNTIME_DIR"] = "/run/user/7";
  ConfigFlags flags;
  flags.config = File("[paths]\nruntime_dir = \"run\"\n");
  EXPECT_EQ(*FindRuntimeDir(flags, Env()), folder_ / "run");
  EXPECT_EQ(*FindRuntimeDir(flags, Env()), Load(flags)->runtime_dir);
  variables_["PERDURE_RUNTIME_DIR"] = "/r";
  EXPECT_EQ(*FindRuntimeDir(flags, Env()), "/r");
  EXPECT_EQ(*FindRuntimeDir(flags, Env()), Load(flags)->runtime_dir);
  variables_.erase("PERDURE_RUNTIME_DIR");
  flags.config.reset();
  fs::create_directories(folder_ / ".config/perdure");
  fs::rename(folder_ / "perdure.toml", folder_ / ".config/perdure/perdure.toml");
  EXPECT_EQ(*FindRuntimeDir(flags, Env()), folder_ / ".config/perdure/run");

  // A file that cannot be read must not lead to another service.
  flags.config = folder_ / "missing.toml";
  EXPECT_THAT(FindRuntimeDir(flags, Env()).error().message, HasSubstr("missing.toml"));
  flags.config = File("[paths\n");
  EXPECT_THAT(FindRuntimeDir(flags, Env()).error().message, HasSubstr("perdure.toml:1"));
  flags.runtime_dir = "/flag";
  EXPECT_EQ(*FindRuntimeDir(flags, Env()), "/flag");
}

TEST_F(ConfigTest, PathsInTheFileAreRelativeToIt) {
  const auto config = LoadText(
      "[paths]\nstate_dir = \"state\"\n[models.a]\npath = \"models/a\"\n"
      "[models.b]\nsource = \"./b\"\n[models.c]\nsource = \"org/c\"\n");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->state_dir, folder_ / "state");
  EXPECT_EQ(config->models[0].source, folder_ / "models/a");
  EXPECT_EQ(config->models[1].source, folder_ / "b");
  EXPECT_EQ(config->models[2].source, "org/c");
}

TEST_F(ConfigTest, ModelsKeepTheOrderOfTheFile) {
  const auto config = LoadText(
      "[models.zebra]\nsource = \"nano\"\nthreads = 3\nkv_bytes_max = \"2GiB\"\n"
      "max_sequences = 2\ndefault_temperature = 1\nactivations = \"float32\"\n"
      "[models.\"org/ape\"]\n[models.bee]\nsource = \"o/n@v1\"\ndefault = true\n");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_THAT(Names(*config), ElementsAre("zebra", "org/ape", "bee"));
  EXPECT_EQ(config->models[0].threads, 3);
  EXPECT_EQ(config->models[0].kv_bytes_max, uint64_t{2} << 30);
  EXPECT_EQ(config->models[0].max_sequences, 2);
  EXPECT_EQ(config->models[0].default_temperature, 1.0f);
  EXPECT_EQ(config->models[0].activations, "float32");
  EXPECT_EQ(config->models[1].activations, "");
  EXPECT_FALSE(config->models[0].is_default);
  EXPECT_EQ(config->models[1].source, "org/ape");
  EXPECT_TRUE(config->models[2].is_default);
}

TEST_F(ConfigTest, QuantizationOnLoadIsOneOfTwo) {
  const auto config = LoadText(
      "[models.a]\nquantize = \"q4\"\n[models.b]\nquantize = \"q8\"\n[models.c]\n"
      "[models.d]\nquantize = \"\"\n");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  std::vector<int> bits;
  for (const ModelConfig& model : config->models) bits.push_back(model.quantize_bits);
  EXPECT_THAT(bits, ElementsAre(4, 8, 0, 0));
  for (const char* wrong : {"\"q5\"", "4", "\"Q4\"", "true"}) {
    const auto refused = LoadText(std::string("[models.a]\nquantize = ") + wrong + "\n");
    ASSERT_FALSE(refused.has_value()) << wrong;
    EXPECT_THAT(refused.error().message, HasSubstr("is not \"q8\", \"q4\" or \"\""));
  }
}

TEST_F(ConfigTest, ActivationsAreOneOfTwo) {
  for (const char* right : {"int8", "float32", ""}) {
    const auto config = LoadText(std::string("[models.a]\nactivations = \"") + right + "\"\n");
    ASSERT_TRUE(config.has_value()) << config.error().message;
    EXPECT_EQ(config->models[0].activations, right);
  }
  for (const char* wrong : {"\"int4\"", "8", "\"Int8\"", "false"}) {
    const auto refused = LoadText(std::string("[models.a]\nactivations = ") + wrong + "\n");
    ASSERT_FALSE(refused.has_value()) << wrong;
    EXPECT_THAT(refused.error().message, HasSubstr("is not \"int8\", \"float32\" or \"\""));
  }
}

TEST_F(ConfigTest, ToolFormatsAreThoseThatThereAre) {
  for (const char* right : {"hermes", "qwen3_coder", "none", ""}) {
    const auto config = LoadText(std::string("[models.a]\ntool_format = \"") + right + "\"\n");
    ASSERT_TRUE(config.has_value()) << config.error().message;
    EXPECT_EQ(config->models[0].tool_format, right);
  }
  for (const char* wrong : {"\"Hermes\"", "1", "\"xml\"", "true"}) {
    const auto refused = LoadText(std::string("[models.a]\ntool_format = ") + wrong + "\n");
    ASSERT_FALSE(refused.has_value()) << wrong;
    EXPECT_THAT(refused.error().message, HasSubstr("none, hermes, qwen3_coder, mistral"));
  }
}

TEST_F(ConfigTest, PreparedWeightsHaveASwitchAndABound) {
  const auto defaults = LoadText("");
  ASSERT_TRUE(defaults.has_value()) << defaults.error().message;
  EXPECT_TRUE(defaults->prepared_weights);
  EXPECT_EQ(defaults->prepared_weights_max, 0u);
  const auto config =
      LoadText("[supervisor]\nprepared_weights = false\nprepared_weights_max = \"3GiB\"\n");
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_FALSE(config->prepared_weights);
  EXPECT_EQ(config->prepared_weights_max, uint64_t{3} << 30);
}

TEST_F(ConfigTest, TheContextOfAModelIsItsOwnElseTheGeneralOne) {
  const std::string text =
      "[generation]\nmax_context = 1000\n[models.a]\n[models.b]\nmax_context = 2000\n";
  EXPECT_EQ(LoadText(text)->models[0].max_context, 1000);
  EXPECT_EQ(LoadText(text)->models[1].max_context, 2000);
  variables_["PERDURE_MAX_CONTEXT"] = "3000";
  EXPECT_EQ(LoadText(text)->models[0].max_context, 3000);
  ConfigFlags flags;
  flags.max_context = 4000;
  flags.models = {"a", "b", "nano"};
  EXPECT_EQ(LoadText(text, flags)->models[0].max_context, 4000);
  EXPECT_EQ(LoadText(text, flags)->models[1].max_context, 2000);
  EXPECT_EQ(LoadText(text, flags)->models[2].max_context, 4000);
  flags.max_context = -1;
  EXPECT_THAT(LoadText(text, flags).error().message, HasSubstr("--max-context: -1 is not"));
}

TEST_F(ConfigTest, ModelFlagsChooseAndAdd) {
  fs::create_directories(folder_ / "x/qwen");
  fs::create_directories(folder_ / "y/qwen");
  const std::string text = "[models.a]\nsource = \"nano\"\n[models.b]\nsource = \"nano\"\n";
  ConfigFlags flags;
  flags.models = {"b", folder_ / "x/qwen", (folder_ / "y/qwen/").string(), "org/name", "nano"};
  const auto config = LoadText(text, flags);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_THAT(Names(*config), ElementsAre("b", "qwen", "qwen-2", "org/name", "nano"));
  EXPECT_TRUE(config->models[0].is_default);
  EXPECT_EQ(config->models[1].source, folder_ / "x/qwen");

  flags.models = {"a", "a"};
  EXPECT_THAT(LoadText(text, flags).error().message, HasSubstr("--model a is given twice"));
  flags.models = {folder_ / "x/qwen", (folder_ / "x/qwen/.").string()};
  EXPECT_FALSE(LoadText(text, flags).has_value());
  flags.models = {"org/na me"};
  EXPECT_FALSE(LoadText(text, flags).has_value());
  flags.models = {};
  variables_["PERDURE_MODELS"] = "b,nano";
  EXPECT_THAT(Names(*LoadText(text, flags)), ElementsAre("b", "nano"));
}

TEST_F(ConfigTest, BeyondLoopbackNeedsAKeyOrInsecure) {
  for (const char* host :
       {"0.0.0.0", "::", "192.168.0.1", "example.org", "127.0.0.1.example.org"}) {
    ConfigFlags flags;
    flags.host = host;
    const auto refused = Load(flags);
    ASSERT_FALSE(refused.has_value()) << host;
    EXPECT_THAT(refused.error().message, HasSubstr("--insecure"));
    flags.insecure = true;
    EXPECT_TRUE(Load(flags).has_value()) << host;
    flags.insecure = false;
    variables_["PERDURE_API_KEYS"] = "secret";
    EXPECT_TRUE(Load(flags).has_value()) << host;
    variables_.erase("PERDURE_API_KEYS");
  }
  for (const char* host : {"localhost", "::1", "[::1]", "127.0.0.1", "127.1.2.3"}) {
    ConfigFlags flags;
    flags.host = host;
    EXPECT_TRUE(Load(flags).has_value()) << host;
  }
}

TEST_F(ConfigTest, AFileThatOthersMayWriteIsRefused) {
  ConfigFlags flags;
  flags.config = File("[server]\nport = 1\n");
  fs::permissions(*flags.config, fs::perms::others_write, fs::perm_options::add);
  EXPECT_THAT(Load(flags).error().message, HasSubstr("chmod o-w"));
}

TEST_F(ConfigTest, DevNullIsNoFileWhateverTheUsualPlacesHave) {
  ConfigFlags flags;
  flags.config = "/dev/null";
  const auto config = Load(flags);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->config_file, "");
}

// It would be a bad one for /tmp.
TEST_F(ConfigTest, WhatIsNoFileGetsNoAdviceForFiles) {
  ConfigFlags flags;
  flags.config = File("") + ".folder";
  fs::create_directory(*flags.config);
  fs::permissions(*flags.config, fs::perms::all);
  for (const std::string& path : {*flags.config, std::string("/dev/zero")}) {
    flags.config = path;
    const std::string message = Load(flags).error().message;
    EXPECT_THAT(message, HasSubstr(path));
    EXPECT_THAT(message, testing::Not(HasSubstr("chmod")));
  }
}

TEST_F(ConfigTest, KeysThatOthersMayReadAreAWarning) {
  ConfigFlags flags;
  flags.config = File("[server]\napi_keys = [\"secret\"]\n");
  fs::permissions(*flags.config, fs::perms::others_read, fs::perm_options::add);
  ASSERT_TRUE(Load(flags).has_value());
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0], HasSubstr("chmod o-r"));
}

TEST_F(ConfigTest, AFileThatIsNamedMustExist) {
  ConfigFlags flags;
  flags.config = folder_ / "missing.toml";
  EXPECT_THAT(Load(flags).error().message, HasSubstr("missing.toml"));
  flags.config.reset();
  variables_["PERDURE_CONFIG"] = folder_ / "missing.toml";
  EXPECT_FALSE(Load(flags).has_value());
  variables_.erase("PERDURE_CONFIG");
  EXPECT_TRUE(Load(flags).has_value());
}

TEST_F(ConfigTest, TheUsualPlaceIsRead) {
  fs::create_directories(folder_ / ".config/perdure");
  std::ofstream(folder_ / ".config/perdure/perdure.toml") << "[server]\nport = 77\n";
  const auto config = Load();
  EXPECT_EQ(config->port, 77);
  EXPECT_EQ(config->config_file, folder_ / ".config/perdure/perdure.toml");
}

// --- Keys that have tables -----------------------------------------------------------------------

TEST_F(ConfigTest, KeysMayHaveTables) {
  const auto config = LoadText(
      "[server]\napi_keys = [\"plain\"]\n"
      "[keys.bert]\nkey = \"of-bert\"\nstore = false\n"
      "[keys.anna]\nkey = \"of-anna\"\nretention_days = 7\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_THAT(config->api_keys, ElementsAre("plain"));
  EXPECT_THAT(AllApiKeys(*config), ElementsAre("plain", "of-anna", "of-bert"));
  ASSERT_EQ(config->keys.size(), 2u);
  EXPECT_EQ(config->keys[0].name, "anna");
  EXPECT_EQ(config->keys[0].retention_days, 7);
  EXPECT_TRUE(config->keys[0].store);
  EXPECT_EQ(config->keys[1].retention_days, 0);
  EXPECT_FALSE(config->keys[1].store);
}

TEST_F(ConfigTest, AKeyWithATableIsAKey) {
  EXPECT_TRUE(LoadText("[server]\nhost = \"0.0.0.0\"\n[keys.a]\nkey = \"secret\"\n"));
  ConfigFlags flags;
  flags.config = File("[keys.a]\nkey = \"secret\"\n");
  fs::permissions(*flags.config, fs::perms::others_read, fs::perm_options::add);
  ASSERT_TRUE(Load(flags).has_value());
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_THAT(warnings_[0], HasSubstr("chmod o-r"));
}

TEST_F(ConfigTest, AKeyThatStandsInTwoPlacesIsAnErrorThatNamesThemAndNotTheKey) {
  const auto expect = [&](const std::string& message, const char* one, const char* other) {
    EXPECT_THAT(message, HasSubstr(one));
    EXPECT_THAT(message, HasSubstr(other));
    EXPECT_EQ(message.find("secret"), std::string::npos) << message;
  };
  expect(ErrorOf("[keys.a]\nkey = \"secret\"\n[keys.b]\nkey = \"secret\"\n"), "keys.a", "keys.b");
  const std::string twice =
      "[server]\napi_keys = [\"x\", \"secret\"]\n[keys.a]\nkey = \"secret\"\n";
  expect(ErrorOf(twice), "server.api_keys", "keys.a");
  variables_["PERDURE_API_KEYS"] = "secret";
  expect(ErrorOf("[keys.a]\nkey = \"secret\"\n"), "PERDURE_API_KEYS", "keys.a");
  variables_["PERDURE_API_KEYS"] = "other";
  EXPECT_TRUE(LoadText(twice)) << "the variable goes before the file";
}

TEST_F(ConfigTest, AKeysErrorsDoNotRepeatIt) {
  for (const char* wrong : {"key = \"se cret\"", "key = \"secret\\u0007\"", "key = [\"secret\"]"}) {
    const std::string message = ErrorOf(std::string("[keys.a]\n") + wrong + "\n");
    EXPECT_THAT(message, HasSubstr("perdure.toml:2: key: "));
    EXPECT_EQ(message.find("cret"), std::string::npos) << message;
  }
}

TEST_F(ConfigTest, AModelMayKeepItsConversationsForAnotherTime) {
  const auto config = LoadText("[models.a]\nretention_days = 3\n[models.b]\n");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->models[0].retention_days, 3);
  EXPECT_EQ(config->models[1].retention_days, 0) << "as [snapshots] says";
}

struct BadCase {
  const char* name;
  const char* text;
  const char* expected;  // part of the message
};

class BadConfigTest : public ConfigTest, public testing::WithParamInterface<BadCase> {};

TEST_P(BadConfigTest, IsAClearError) {
  const std::string message = ErrorOf(GetParam().text);
  EXPECT_THAT(message, HasSubstr(GetParam().expected));
  EXPECT_THAT(message, HasSubstr("perdure.toml:"));
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BadConfigTest,
    testing::Values(
        BadCase{"UnknownKey", "[server]\nprot = 1\n",
                "perdure.toml:2: unknown key \"prot\" below [server]; did you mean \"port\"?"},
        BadCase{"UnknownKeyFarFromAll", "[server]\nzzzzzzzzzzzz = 1\n", "known are host, port"},
        BadCase{"UnknownTable", "\n[servr]\n", "unknown table \"servr\"; did you mean \"server\"?"},
        BadCase{"KeyOfAnotherTable", "[paths]\nport = 1\n", "port belongs below [server]"},
        BadCase{"KeyOutsideTables", "port = 1\n", "port belongs below [server]"},
        BadCase{"UnknownModelKey", "[models.a]\nsorce = \"x\"\n", "did you mean \"source\"?"},
        BadCase{"DuplicateKey", "[server]\nport = 1\nport = 2\n", "perdure.toml:3"},
        BadCase{"DuplicateModel", "[models.a]\n[models.a]\n", "perdure.toml:2"},
        BadCase{"NotToml", "[server\n", "perdure.toml:1"},
        BadCase{"WrongType", "[server]\nport = \"80\"\n", "\"80\" is not an integer"},
        BadCase{"TypeThatNothingTakes", "[server]\nport = 1979-05-27\n", "not allowed"},
        BadCase{"OutOfRange", "[server]\nport = 65536\n",
                "65536 is not an integer from 0 to 65535"},
        BadCase{"Negative", "[server]\nqueue_max = -1\n", "-1 is not"},
        BadCase{"Huge", "[server]\nqueue_max = 9223372036854775807\n", "is not an integer from"},
        BadCase{"NotANumber", "[generation]\ndefault_temperature = nan\n", "is not a number from"},
        BadCase{"BadLevel", "[server]\nlog_level = \"loud\"\n", "debug, info, warning"},
        BadCase{"BadSize", "[server]\nbody_bytes_max = \"2 elephants\"\n", "is not a size"},
        BadCase{"HugeSize", "[server]\nbody_bytes_max = \"99999999999TiB\"\n", "is not a size"},
        BadCase{"KeysAreTexts", "[server]\napi_keys = [1]\n", "not allowed"},
        BadCase{"EmptyKey", "[server]\napi_keys = [\"\"]\n", "must not be empty"},
        BadCase{"KeysIsNoTable", "keys = 1\n", "keys must be [keys.NAME] tables"},
        BadCase{"KeyIsNoTable", "[keys]\na = 1\n", "keys.a must be a table"},
        BadCase{"KeyWithoutAKey", "[keys.a]\nstore = true\n", "[keys.a] has no key"},
        BadCase{"KeyIsEmpty", "[keys.a]\nkey = \"\"\n", "key: a key is text"},
        BadCase{"KeyHasAnotherKey", "[keys.a]\nkey = \"k\"\nstored = true\n",
                "unknown key \"stored\" below [keys.a]; did you mean \"store\"?"},
        BadCase{"KeyName", "[keys.\"\"]\nkey = \"k\"\n", "1 to 64 bytes"},
        BadCase{"KeyIsKeptForNoTime", "[keys.a]\nkey = \"k\"\nretention_days = 0\n",
                "0 is not an integer from 1 to 36500"},
        BadCase{"ModelWithoutAQueue", "[models.a]\nqueue_max = 0\n",
                "0 is not an integer from 1 to 4096"},
        BadCase{"ModelWithTimeBelowZero", "[models.a]\nrequest_timeout_s = -1\n",
                "-1 is not an integer from 0 to 86400"},
        BadCase{"RequestsOfMoreThanADay", "[server]\nrequest_timeout_s = 86401\n",
                "86401 is not an integer from 0 to 86400"},
        BadCase{"DrainDelayOfMoreThanAnHour", "[server]\ndrain_delay_s = 3601\n",
                "3601 is not an integer from 0 to 3600"},
        BadCase{"ModelIsKeptForNoTime", "[models.a]\nretention_days = 0\n",
                "0 is not an integer from 1 to 36500"},
        BadCase{"KeyIsKeptForText", "[keys.a]\nkey = \"k\"\nretention_days = \"7\"\n",
                "is not an integer"},
        BadCase{"ControlCharacter", "[server]\nhost = \"a\\u0007\"\n", "control characters"},
        BadCase{"ServerIsNoTable", "server = 1\n", "server must be a table"},
        BadCase{"ModelsIsNoTable", "models = 1\n", "models must be"},
        BadCase{"ModelIsNoTable", "[models]\na = 1\n", "models.a must be a table"},
        BadCase{"ModelName", "[models.\"../x\"]\n", "cannot be a model's name"},
        BadCase{"EmptyModelName", "[models.\"\"]\n", "cannot be a model's name"},
        BadCase{"SourceAndPath", "[models.a]\nsource = \"nano\"\npath = \"/x\"\n", "both"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST_F(ConfigTest, ErrorsOfTheWhole) {
  EXPECT_THAT(ErrorOf("[models.a]\ndefault = true\n[models.b]\ndefault = true\n"),
              HasSubstr("more than one model"));
  std::string many;
  for (int i = 0; i <= limits::kModelsMax; ++i) many += "[models.m" + std::to_string(i) + "]\n";
  EXPECT_THAT(ErrorOf(many), HasSubstr("65 models"));
  EXPECT_THAT(ErrorOf("[server]\nhost = \"\"\n"), HasSubstr("is no host"));
}

TEST_F(ConfigTest, TheAnnotatedFileHasEveryKeyAtItsDefault) {
  const fs::path path = fs::path(PERDURE_SOURCE_DIR) / "etc/perdure.toml";
  ConfigFlags flags;
  flags.config = path;
  variables_["PERDURE_CONFIG"] = "/dev/null";  // this machine may have one
  const auto config = Load(flags), defaults = Load();
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->host, defaults->host);
  EXPECT_EQ(config->port, defaults->port);
  EXPECT_EQ(config->api_keys, defaults->api_keys);
  EXPECT_EQ(config->allowed_hosts, defaults->allowed_hosts);
  EXPECT_EQ(config->insecure, defaults->insecure);
  EXPECT_EQ(config->body_bytes_max, defaults->body_bytes_max);
  EXPECT_EQ(config->connections_max, defaults->connections_max);
  EXPECT_EQ(config->queue_max, defaults->queue_max);
  EXPECT_EQ(config->header_timeout_s, defaults->header_timeout_s);
  EXPECT_EQ(config->idle_timeout_s, defaults->idle_timeout_s);
  EXPECT_EQ(config->sse_comment_s, defaults->sse_comment_s);
  EXPECT_EQ(config->slow_client_timeout_s, defaults->slow_client_timeout_s);
  EXPECT_EQ(config->drain_timeout_s, defaults->drain_timeout_s);
  EXPECT_EQ(config->drain_delay_s, defaults->drain_delay_s);
  EXPECT_EQ(config->request_timeout_s, defaults->request_timeout_s);
  EXPECT_EQ(config->log_level, defaults->log_level);
  EXPECT_EQ(config->default_max_tokens, defaults->default_max_tokens);
  EXPECT_EQ(config->max_context, defaults->max_context);
  EXPECT_EQ(config->default_temperature, defaults->default_temperature);
  EXPECT_EQ(config->state_dir, defaults->state_dir);
  EXPECT_EQ(config->runtime_dir, defaults->runtime_dir);
  EXPECT_EQ(config->model_cache_dir, defaults->model_cache_dir);
  EXPECT_EQ(config->hang_timeout_s, defaults->hang_timeout_s);
  EXPECT_EQ(config->load_timeout_s, defaults->load_timeout_s);
  EXPECT_EQ(config->cooldown_s, defaults->cooldown_s);
  EXPECT_EQ(config->prefill_tokens_per_step, defaults->prefill_tokens_per_step);
  EXPECT_EQ(config->isa, defaults->isa);
  EXPECT_EQ(config->cache.settings.type, "kv");
  EXPECT_EQ(config->shared_prompts, defaults->shared_prompts);
  EXPECT_EQ(config->conversations, defaults->conversations);
  EXPECT_EQ(Names(*config), Names(*defaults));

  std::ifstream file(path);
  std::stringstream stream;
  stream << file.rdbuf();
  const std::string text = stream.str();
  for (const ConfigKey& key : ConfigKeys()) {
    EXPECT_TRUE(std::regex_search(text, std::regex("\n(# )?" + std::string(key.name) + " = ")))
        << key.name;
    EXPECT_THAT(text, HasSubstr(std::string(key.variable)));
    EXPECT_THAT(text, HasSubstr(std::string(key.alias)));
  }
  for (const KeyKey& key : KeyKeys()) {
    EXPECT_TRUE(std::regex_search(text, std::regex("\n# " + std::string(key.name) + " = ")))
        << key.name;
  }
  for (const AliasKey& key : AliasKeys()) {
    EXPECT_TRUE(std::regex_search(text, std::regex("\n# " + std::string(key.name) + " = ")))
        << key.name;
  }
  for (const ModelKey& key : ModelKeys()) {
    if (key.name == "path") continue;  // told beside source
    EXPECT_TRUE(std::regex_search(text, std::regex("\n# " + std::string(key.name) + " = ")))
        << key.name;
  }
  // What stands behind a # is valid too.
  const std::string all = std::regex_replace(
      text,
      std::regex("(^|\n)# (\\[models\\.|\\[cache_types\\.|\\[keys\\.|\\[aliases\\.|[a-z_]+ = )"),
      "$1$2");
  const auto uncommented = LoadText(all);
  ASSERT_TRUE(uncommented.has_value()) << uncommented.error().message;
  EXPECT_THAT(Names(*uncommented), ElementsAre("example"));
  EXPECT_EQ(uncommented->default_temperature, 0.7f);
}

TEST(ParseBytes, Units) {
  EXPECT_EQ(*ParseBytes("0"), 0u);
  EXPECT_EQ(*ParseBytes("12"), 12u);
  EXPECT_EQ(*ParseBytes("12B"), 12u);
  EXPECT_EQ(*ParseBytes("3KiB"), 3072u);
  EXPECT_EQ(*ParseBytes("3 kb"), 3000u);
  EXPECT_EQ(*ParseBytes("2GiB"), uint64_t{2} << 30);
  EXPECT_EQ(*ParseBytes("1TB"), 1'000'000'000'000u);
  for (const char* text : {"", "B", "-1", "1.5GiB", "1GiBB", "1 G", "0x10", "99999999999999999999"})
    EXPECT_FALSE(ParseBytes(text).has_value()) << text;
}

TEST(NearestWord, FindsSlipsOnly) {
  constexpr std::string_view kWords[] = {"host", "port", "log_level"};
  EXPECT_EQ(NearestWord("prot", kWords), "port");
  EXPECT_EQ(NearestWord("loglevel", kWords), "log_level");
  EXPECT_EQ(NearestWord("something_else", kWords), "");
  EXPECT_EQ(NearestWord(std::string(100'000, 'x'), kWords), "");
}

}  // namespace
}  // namespace perdure
