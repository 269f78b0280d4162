// The engine against mlx-lm in float32 (goldens/make_goldens.py): top-1 and Kullback–Leibler
// divergence over all positions of all cases. What separates the two is the rounding of KV to
// binary16 and the order of sums.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "engine/engine.h"
#include "kv_memory.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

constexpr int kPositions = 72;
constexpr uint64_t kTokensSeed = 77;

struct ParityCase {
  const char* name;
  SynthSpec spec;
};
const ParityCase kCases[] = {
    {"qwen3_bf16_tied", {.hidden = 64, .layers = 3, .heads = 4, .kv_heads = 2, .head_dim = 32}},
    {"qwen3_f16_untied_sharded",
     {.dtype = "f16",
      .hidden = 96,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 40,
      .tied = false,
      .shards = 3,
      .seed = 2}},
    {"qwen2_bf16_untied",
     {.model_type = "qwen2",
      .hidden = 96,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 16,
      .tied = false,
      .seed = 3}},
    {"qwen2_f32_tied",
     {.model_type = "qwen2",
      .dtype = "f32",
      .hidden = 64,
      .layers = 3,
      .heads = 4,
      .kv_heads = 4,
      .head_dim = 16,
      .seed = 4}},
    {"qwen3_4bit_tied",
     {.hidden = 128,
      .heads = 4,
      .kv_heads = 1,
      .head_dim = 64,
      .feed_forward = 192,
      .bits = 4,
      .seed = 5}},
    {"qwen3_4bit_mixed_untied",
     {.dtype = "f16",
      .hidden = 96,
      .head_dim = 32,
      .feed_forward = 160,
      .tied = false,
      .bits = 4,
      .group = 32,
      .overrides = {{"lm_head", 8},
                    {"model.layers.0.self_attn.v_proj", 6},
                    {"model.layers.1.mlp.down_proj", 0}},
      .seed = 6}},
    {"qwen2_8bit_untied",
     {.model_type = "qwen2",
      .hidden = 128,
      .heads = 8,
      .kv_heads = 2,
      .head_dim = 16,
      .feed_forward = 256,
      .tied = false,
      .bits = 8,
      .seed = 7}},
    {"qwen2_3bit_tied",
     {.model_type = "qwen2",
      .dtype = "f32",
      .hidden = 128,
      .head_dim = 32,
      .feed_forward = 128,
      .bits = 3,
      .group = 128,
      .seed = 8}},
};

std::vector<float> ReadGolden(const std::string& name) {
  std::ifstream file(
      std::string(PERDURE_SOURCE_DIR) + "/tests/engine/goldens/parity_" + name + ".bin",
      std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

std::vector<double> LogProbabilities(std::span<const float> logits) {
  const double maximum = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (float logit : logits) sum += std::exp(logit - maximum);
  std::vector<double> logprobs;
  for (float logit : logits) logprobs.push_back(logit - maximum - std::log(sum));
  return logprobs;
}

struct Score {
  int positions = 0;
  int equal_top = 0;
  double divergence = 0.0;  // summed over positions
  double largest = 0.0;     // difference of two logits
  void Add(const Score& other) {
    positions += other.positions;
    equal_top += other.equal_top;
    divergence += other.divergence;
    largest = std::max(largest, other.largest);
  }
};

Score Compare(std::span<const float> golden, std::span<const float> logits, size_t vocab) {
  Score score;
  for (size_t at = 0; at < golden.size(); at += vocab) {
    const auto p = golden.subspan(at, vocab), q = logits.subspan(at, vocab);
    ++score.positions;
    score.equal_top += std::max_element(p.begin(), p.end()) - p.begin() ==
                       std::max_element(q.begin(), q.end()) - q.begin();
    const std::vector<double> lp = LogProbabilities(p), lq = LogProbabilities(q);
    for (size_t i = 0; i < vocab; ++i) {
      score.divergence += std::exp(lp[i]) * (lp[i] - lq[i]);
      score.largest = std::max(score.largest, std::fabs(double(p[i]) - q[i]));
    }
  }
  return score;
}

TEST(ParityTest, EqualsMlxInFloat32) {
  Score all;
  for (const ParityCase& c : kCases) {
    SCOPED_TRACE(c.name);
    TempDir dir;
    WriteSynthModel(c.spec, dir.path());
    auto engine = Engine::Load(dir.path(), {.threads = 2, .isa = BestIsa(), .on_progress = {}});
    ASSERT_TRUE(engine.has_value()) << engine.error().message;
    const std::vector<TokenId> tokens = SynthTokens(kTokensSeed, kPositions, c.spec.vocab);
    const KvMemory kv((*engine)->info().kv, kPositions);
    const SequenceStep step{.kv = kv.view(), .start = 0, .tokens = tokens, .logits_from = 0};
    const auto logits = (*engine)->Step({&step, 1});
    const std::vector<float> golden = ReadGolden(c.name);
    ASSERT_EQ(golden.size(), logits.size());
    const Score score = Compare(golden, logits, static_cast<size_t>(c.spec.vocab));
    std::printf("%-26s top-1 %d/%d, mean KL %.2e, largest difference %.4f\n", c.name,
                score.equal_top, score.positions, score.divergence / score.positions,
                score.largest);
    EXPECT_LE(score.divergence / score.positions, 1e-4);
    all.Add(score);
  }
  ASSERT_GE(all.positions, 512);
  EXPECT_GE(all.equal_top, 0.995 * all.positions);
  EXPECT_LE(all.divergence / all.positions, 1e-4);
  std::printf("%-26s top-1 %d/%d, mean KL %.2e, largest difference %.4f\n", "all", all.equal_top,
              all.positions, all.divergence / all.positions, all.largest);
}

}  // namespace
}  // namespace perdure::engine
