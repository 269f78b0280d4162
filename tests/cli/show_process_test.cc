#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "protocol/heritage.h"
#include "tests/cli/run_perdure.h"
#include "tests/engine/synth_model.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(ShowProcess, TheBuiltInModel) {
  const engine::TempDir home;
  const Output text = RunPerdure(home.path(), "show nano");
  EXPECT_EQ(text.code, protocol::kExitOk) << text.text;
  EXPECT_THAT(text.text, HasSubstr("architecture    qwen3: "));
  EXPECT_THAT(text.text, HasSubstr("\nkv "));
  const Output json = RunPerdure(home.path(), "show nano --json");
  const Json report = Json::parse(json.text);
  EXPECT_EQ(report["name"], "nano");
  EXPECT_GT(report["parameters"], 1'000'000);
  EXPECT_GT(report["context"]["served"], 0);
  EXPECT_THAT(RunPerdure(home.path(), "list").text, HasSubstr("nano  built-in  qwen3"));
}

TEST(ShowProcess, AConfiguredModelInShards) {
  const engine::TempDir home;
  const fs::path folder = home.path() / "m";
  fs::create_directory(folder);
  engine::WriteSynthModel({.feed_forward = 128, .bits = 4, .shards = 3}, folder);
  engine::WriteText(
      home.path() / "perdure.toml",
      "[server]\nhost = \"0.0.0.0\"\n[models.mine]\npath = \"m\"\nmax_context = 77\n");
  const std::string config = " --config '" + (home.path() / "perdure.toml").string() + "'";
  Output output = RunPerdure(home.path(), "show mine --json" + config);
  EXPECT_EQ(output.code, protocol::kExitBadModel) << "it has no tokenizer";
  const Json report = Json::parse(output.text);
  EXPECT_EQ(report["folder"], folder.string());
  EXPECT_EQ(report["weights"]["files"], 3);
  EXPECT_EQ(report["context"]["configured"], 77);
  ASSERT_EQ(report["problems"].size(), 1u);
  EXPECT_THAT(report["problems"][0].get<std::string>(), HasSubstr("tokenizer.json"));
  output = RunPerdure(home.path(), "show '" + folder.string() + "'" + config);
  EXPECT_THAT(output.text, HasSubstr("affine 4-bit, group 64"));
  EXPECT_THAT(RunPerdure(home.path(), "show nothing/here").text, HasSubstr("nothing/here"));
  EXPECT_EQ(RunPerdure(home.path(), "show nothing/here").code, protocol::kExitUsage);
}

TEST(PsProcess, LooksWhereTheConfigSays) {
  const engine::TempDir home;
  fs::create_directories(home.path() / ".config/perdure");
  engine::WriteText(home.path() / ".config/perdure/perdure.toml",
                    "[paths]\nruntime_dir = \"/nowhere/special\"\n");
  const std::string usual_places = "PERDURE_CONFIG= PERDURE_RUNTIME_DIR=";
  const Output output = RunPerdure(home.path(), "ps", usual_places);
  EXPECT_EQ(output.code, protocol::kExitSystem);
  EXPECT_THAT(output.text, HasSubstr("no service is running at /nowhere/special"));
  engine::WriteText(home.path() / ".config/perdure/perdure.toml", "[paths\n");
  EXPECT_THAT(RunPerdure(home.path(), "ps", usual_places).text, HasSubstr("--runtime-dir"));
}

}  // namespace
}  // namespace perdure::cli
