#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "cli/bench/measure.h"
#include "cli/bench/report.h"
#include "cli/bench/roofline.h"
#include "protocol/heritage.h"
#include "tests/cli/run_perdure.h"
#include "tests/engine/synth_model.h"

namespace perdure::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Roofline, CountsTheWorkOfAStep) {
  engine::ModelInfo info;
  info.vocab_size = 100;
  info.token_weights = 100 * 8 + 5000;
  info.token_bytes = 6000;
  info.kv = {.layers = 2, .kv_heads = 1, .head_dim = 4};
  engine::ModelConfig config;
  config.hidden_size = 8;
  config.layers = 2;
  config.heads = 3;
  config.head_dim = 4;
  const StepWork work = WorkOf(info, config, {.streams = 2, .cached = 10, .fresh = 3});
  EXPECT_DOUBLE_EQ(work.weight_ops, 2.0 * (5000 * 6 + 800 * 2));
  // Tokens attend to 11, 12 and 13 positions in each stream.
  EXPECT_DOUBLE_EQ(work.attention_ops, 4.0 * 2 * 3 * 4 * 2 * (11 + 12 + 13));
  // Keys and values of 4 half floats in two layers.
  EXPECT_DOUBLE_EQ(work.bytes, 6000 + 2 * 10 * (2 * 4 * 2 * 2));
  EXPECT_TRUE(work.int8);
  info.token_bytes = 2 * 5800;
  EXPECT_FALSE(WorkOf(info, config, {}).int8);
}

TEST(Roofline, TheTighterBoundHolds) {
  const MachineBounds bounds{
      .read_bytes_per_s = 10.0, .f32_flop_per_s = 100.0, .int8_op_per_s = 400.0};
  StepWork work{.weight_ops = 800.0, .attention_ops = 100.0, .bytes = 20.0, .int8 = true};
  EXPECT_DOUBLE_EQ(RooflineOf(work, bounds).seconds, 3.0);
  EXPECT_EQ(RooflineOf(work, bounds).bound, "int8 peak");
  work.int8 = false;
  EXPECT_DOUBLE_EQ(RooflineOf(work, bounds).seconds, 9.0);
  EXPECT_EQ(RooflineOf(work, bounds).bound, "f32 peak");
  work.bytes = 100.0;
  EXPECT_DOUBLE_EQ(RooflineOf(work, bounds).seconds, 10.0);
  EXPECT_EQ(RooflineOf(work, bounds).bound, "read bandwidth");
  EXPECT_EQ(RooflineOf(work, {}).seconds, 0.0) << "unknown bounds give none";
}

MeasurePlan SmallPlan() {
  return {.prompt = 40,
          .decode_context = 33,
          .streams = {1, 3},
          .continuation_cached = 50,
          .continuation_tokens = 4,
          .long_prompt = 70,
          .seconds_each = 0.0,
          .bound_rounds = 2,
          .bound_bytes = size_t{1} << 26,
          .profile = true};
}

std::vector<std::string> KeysOf(const Measurement& measured) {
  std::vector<std::string> keys;
  for (const Figure& figure : measured.figures) keys.push_back(figure.key);
  return keys;
}

TEST(Bench, MeasuresEveryFigureBesideItsBound) {
  const engine::TempDir dir;
  engine::WriteSynthModel({.feed_forward = 128, .bits = 4}, dir.path());
  std::vector<std::string> steps;
  engine::EngineOptions options;
  options.threads = 2;
  const auto measured = Measure(dir.path(), options, SmallPlan(),
                                [&](const std::string& step) { steps.push_back(step); });
  ASSERT_TRUE(measured) << measured.error().message;
  EXPECT_THAT(KeysOf(*measured), ElementsAre("prefill", "decode", "decode", "continuation",
                                             "long_prefill", "long_decode"));
  EXPECT_THAT(steps,
              ElementsAre("loading", "the machine's bounds", "prefill 40", "decode, 1 stream",
                          "decode, 3 streams", "4 new tokens on 50", "prefill 70", "decode at 70"));
  EXPECT_EQ(measured->bounds.size(), 7u) << "before the first figure and after each";
  EXPECT_EQ(measured->figures[2].shape.streams, 3);
  EXPECT_TRUE(measured->notes.empty());
  for (const Figure& figure : measured->figures) {
    EXPECT_GE(figure.repetitions, 1);
    EXPECT_LE(figure.best_s, figure.median_s);
    EXPECT_GT(figure.bound.seconds, 0.0);
    double phases_s = 0.0;
    for (const auto& phase : figure.phases) phases_s += phase.seconds;
    EXPECT_GT(phases_s, 0.0);
    EXPECT_LE(phases_s, figure.profiled_s);
  }
  EXPECT_EQ(measured->memory.weight_bytes, measured->info.weight_bytes);
  EXPECT_GT(measured->memory.resident_bytes, measured->memory.anonymous_bytes / 2);

  const Json report = BenchJson("tiny", *measured);
  EXPECT_EQ(report["model"]["name"], "tiny");
  EXPECT_EQ(report["machine"]["threads"], 2);
  EXPECT_EQ(report["figures"].size(), 6u);
  const std::string text = FormatBench(report);
  EXPECT_THAT(text, HasSubstr("\ndecode, 3 streams  "));
  EXPECT_THAT(text, HasSubstr("PHASE"));
}

TEST(Bench, LeavesOutWhatTheContextHasNoRoomFor) {
  const engine::TempDir dir;
  engine::WriteSynthModel({.config = R"({"max_position_embeddings": 45})"}, dir.path());
  const auto measured = Measure(dir.path(), {}, SmallPlan(), [](const std::string&) {});
  ASSERT_TRUE(measured) << measured.error().message;
  EXPECT_THAT(KeysOf(*measured), ElementsAre("prefill", "decode", "decode"));
  EXPECT_THAT(measured->notes,
              ElementsAre("4 new tokens on 50 is left out: it takes 54 positions, the model has 45",
                          "the long prompt is left out: it takes 71 positions, the model has 45"));
}

TEST(Bench, AModelThatCannotBeLoadedIsAnError) {
  const engine::TempDir dir;
  const auto measured = Measure(dir.path(), {}, {}, [](const std::string&) {});
  ASSERT_FALSE(measured);
  EXPECT_THAT(measured.error().message, HasSubstr("config.json"));
}

TEST(BenchProcess, TheBuiltInModelAsJson) {
  const engine::TempDir home;
  const Output output = RunPerdure(home.path(), "bench nano --json --threads 1 --seconds 0");
  ASSERT_EQ(output.code, protocol::kExitOk) << output.text;
  const Json report = Json::parse(output.text);
  EXPECT_EQ(report["model"]["name"], "nano");
  EXPECT_EQ(report["machine"]["threads"], 1);
  for (const char* bound : {"read_bytes_per_s", "int8_op_per_s", "f32_flop_per_s"})
    EXPECT_GT(report["machine"][bound]["lowest"].get<double>(), 0.0) << bound;
  EXPECT_GT(report["load"]["seconds"].get<double>(), 0.0);
  EXPECT_GT(report["memory"]["kv_bytes"].get<uint64_t>(), 0u);
  ASSERT_FALSE(report["figures"].empty());
  for (const Json& figure : report["figures"]) {
    for (const char* key : {"key", "name", "streams", "cached_tokens", "new_tokens", "repetitions",
                            "seconds", "tokens_per_s", "bound"})
      EXPECT_TRUE(figure.contains(key)) << key;
    EXPECT_GT(figure["tokens_per_s"]["median"].get<double>(), 0.0);
    EXPECT_GT(figure["bound"]["fraction"].get<double>(), 0.0);
  }
}

TEST(BenchProcess, ErrorsSayWhatToDo) {
  const engine::TempDir home;
  const Output missing = RunPerdure(home.path(), "bench no/such");
  EXPECT_EQ(missing.code, protocol::kExitUsage);
  EXPECT_THAT(missing.text, HasSubstr("no/such"));
  EXPECT_EQ(RunPerdure(home.path(), "bench nano --threads 0").code, protocol::kExitUsage);
  EXPECT_EQ(RunPerdure(home.path(), "bench ").code, protocol::kExitUsage);
}

}  // namespace
}  // namespace perdure::cli
