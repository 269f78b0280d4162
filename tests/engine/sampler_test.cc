// The sampler against a plain reference that sorts everything and computes in double, and its
// distribution, determinism and robustness.

#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "engine/philox.h"

namespace perdure::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

std::vector<float> RandomLogits(size_t n, uint64_t seed, float spread = 3.0f) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// Probabilities after penalties, temperature, top_k, top_p and min_p, by id.
std::map<TokenId, double> Reference(const std::vector<float>& logits, const SamplingParams& p,
                                    const std::vector<TokenId>& prompt,
                                    const std::vector<TokenId>& answer) {
  std::vector<double> l(logits.begin(), logits.end());
  std::set<TokenId> seen(prompt.begin(), prompt.end());
  seen.insert(answer.begin(), answer.end());
  for (TokenId id : seen) {
    double& x = l[size_t(id)];
    x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
  }
  std::map<TokenId, int> counts;
  for (TokenId id : answer) ++counts[id];
  for (const auto& [id, count] : counts)
    l[size_t(id)] -= p.frequency_penalty * count + p.presence_penalty;
  for (const auto& [id, bias] : p.logit_bias) l[size_t(id)] += bias;

  std::vector<TokenId> order(l.size());
  for (size_t i = 0; i < l.size(); ++i) order[i] = TokenId(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](TokenId a, TokenId b) { return l[size_t(a)] > l[size_t(b)]; });
  if (p.temperature == 0.0f) return {{order[0], 1.0}};
  if (p.top_k > 0 && size_t(p.top_k) < order.size()) order.resize(size_t(p.top_k));
  std::vector<double> w;
  double sum = 0.0;
  for (TokenId id : order) {
    w.push_back(std::exp((l[size_t(id)] - l[size_t(order[0])]) / p.temperature));
    sum += w.back();
  }
  size_t keep = order.size();
  if (p.top_p < 1.0f) {
    double mass = 0.0;
    for (keep = 0; keep < order.size();)
      if ((mass += w[keep++]) >= double(p.top_p) * sum) break;
  }
  std::map<TokenId, double> out;
  double kept = 0.0;
  for (size_t i = 0; i < keep; ++i)
    if (i == 0 || w[i] >= p.min_p) kept += w[i];
  for (size_t i = 0; i < keep; ++i)
    if (i == 0 || w[i] >= p.min_p) out[order[i]] = w[i] / kept;
  return out;
}

TEST(PhiloxTest, EqualsThePublishedVectors) {
  // Of the Random123 library's known answers for philox4x32-10.
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(SamplerTest, GreedyTakesTheLargestAndTheLowestIdOnTies) {
  Sampler sampler;
  const SamplingParams greedy{.temperature = 0.0f, .logit_bias = {}};
  EXPECT_EQ(sampler.Sample(std::vector<float>{1, 5, 5, 2}, greedy, {}, {}).id, 1);
  EXPECT_EQ(sampler.Sample(std::vector<float>{-kInfinity, -kInfinity}, greedy, {}, {}).id, 0);
  EXPECT_EQ(sampler.Sample(std::vector<float>{7}, greedy, {}, {}).id, 0);
  EXPECT_FLOAT_EQ(sampler.Sample(std::vector<float>{7}, greedy, {}, {}).logprob, 0.0f);
}

// Seeds make a sample of the distribution: frequencies against the reference, and nothing outside
// of its support.
TEST(SamplerTest, DrawsFromTheReferenceDistribution) {
  struct Row {
    const char* name;
    SamplingParams params;
  };
  const Row rows[] = {
      {"plain", {.logit_bias = {}}},
      {"hot", {.temperature = 2.0f, .logit_bias = {}}},
      {"cold", {.temperature = 0.3f, .logit_bias = {}}},
      {"top_k", {.top_k = 5, .logit_bias = {}}},
      {"top_k above the vocabulary", {.top_k = 5000, .logit_bias = {}}},
      {"top_p", {.top_p = 0.7f, .logit_bias = {}}},
      {"top_p of a flat distribution", {.temperature = 50.0f, .top_p = 0.95f, .logit_bias = {}}},
      {"top_p 0", {.top_p = 0.0f, .logit_bias = {}}},
      {"min_p", {.min_p = 0.05f, .logit_bias = {}}},
      {"min_p 1", {.min_p = 1.0f, .logit_bias = {}}},
      {"all three",
       {.temperature = 1.5f, .top_k = 40, .top_p = 0.9f, .min_p = 0.02f, .logit_bias = {}}},
      {"penalties",
       {.top_k = 20,
        .repetition_penalty = 1.3f,
        .frequency_penalty = 0.5f,
        .presence_penalty = 0.7f,
        .logit_bias = {{3, 4.0f}, {4, -100.0f}}}},
      {"negative penalties",
       {.repetition_penalty = 0.8f,
        .frequency_penalty = -0.2f,
        .presence_penalty = -0.1f,
        .logit_bias = {{3, 1.0f}, {3, 1.0f}}}},
  };
  Sampler sampler;
  const std::vector<TokenId> prompt = {1, 2, 3, 3, 9}, answer = {3, 7, 7, 7, 12};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    for (size_t vocab : {20, 1000}) {
      const std::vector<float> logits = RandomLogits(vocab, vocab);
      const auto expected = Reference(logits, row.params, prompt, answer);
      std::map<TokenId, int> drawn;
      constexpr int kDraws = 4000;
      SamplingParams params = row.params;
      for (int i = 0; i < kDraws; ++i) {
        params.seed = static_cast<uint64_t>(i) * 7919;
        ++drawn[sampler.Sample(logits, params, prompt, answer).id];
      }
      double chi = 0.0;
      int cells = 0;
      for (const auto& [id, count] : drawn)
        EXPECT_TRUE(expected.contains(id)) << "id " << id << " of vocabulary " << vocab;
      for (const auto& [id, probability] : expected) {
        const double mean = probability * kDraws;
        if (mean < 5.0) continue;
        ++cells;
        chi += (drawn[id] - mean) * (drawn[id] - mean) / mean;
      }
      // Mean cells, deviation sqrt(2 · cells): six of them is beyond chance.
      EXPECT_LT(chi, cells + 6.0 * std::sqrt(2.0 * cells) + 10.0) << "vocabulary " << vocab;
    }
  }
}

// The draw of a walk down all tokens in order, in double.
TokenId DrawInOrder(const std::vector<float>& logits, const SamplingParams& p, uint64_t position) {
  std::vector<TokenId> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = TokenId(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](TokenId a, TokenId b) { return logits[size_t(a)] > logits[size_t(b)]; });
  std::vector<double> weights;
  double all = 0.0, kept = 0.0;
  for (TokenId id : order) {
    const double distance = double{logits[size_t(id)]} - logits[size_t(order[0])];
    weights.push_back(std::exp(distance / p.temperature));
    all += weights.back();
  }
  size_t count = 0;
  while (count < order.size() && (count == 0 || weights[count] >= double{p.min_p})) {
    kept += weights[count++];
    if (p.top_p < 1.0f && kept >= double{p.top_p} * all) break;
  }
  const double target = UniformAt(p.seed, position) * kept;
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i)
    if ((sum += weights[i]) > target) return order[i];
  return order[count - 1];
}

// Nuclei of one to nearly all tokens, of vocabularies that are no whole blocks.
TEST(SamplerTest, NucleusIsDrawnFromInOrder) {
  Sampler sampler;
  const SamplingParams kinds[] = {
      {.top_p = 0.1f, .logit_bias = {}},
      {.top_p = 0.95f, .logit_bias = {}},
      {.temperature = 0.6f, .top_p = 0.9f, .logit_bias = {}},
      {.temperature = 5.0f, .top_p = 0.99f, .logit_bias = {}},
      {.temperature = 40.0f, .top_p = 0.5f, .logit_bias = {}},
      {.min_p = 0.05f, .logit_bias = {}},
      {.temperature = 2.0f, .min_p = 1e-4f, .logit_bias = {}},
      {.temperature = 1.5f, .top_p = 0.97f, .min_p = 0.01f, .logit_bias = {}},
      {.temperature = 0.02f, .top_p = 0.999f, .logit_bias = {}},
  };
  for (size_t vocab : {1, 3, 255, 257, 5003, 60001}) {
    std::vector<float> logits = RandomLogits(vocab, vocab, 2.5f);
    if (vocab > 5000)  // ties, where the lowest id comes first
      for (float& logit : logits) logit = std::round(logit * 64.0f) / 64.0f;
    for (SamplingParams params : kinds)
      for (uint64_t i = 0; i < (vocab > 10000 ? 10 : 60); ++i) {
        params.seed = 1000 * vocab + i;
        EXPECT_EQ(sampler.Sample(logits, params, {}, {}).id, DrawInOrder(logits, params, 0))
            << "vocabulary " << vocab << ", temperature " << params.temperature << ", top_p "
            << params.top_p << ", min_p " << params.min_p << ", seed " << params.seed;
      }
  }
}

TEST(SamplerTest, SupportIsExactlyTheReference) {
  std::mt19937_64 random(5);
  Sampler sampler;
  for (int round = 0; round < 300; ++round) {
    const size_t vocab = 1 + random() % 600;
    std::vector<float> logits = RandomLogits(vocab, random());
    // Ties: the lowest ids win.
    for (float& logit : logits) logit = std::round(logit * 2.0f) / 2.0f;
    SamplingParams params{.logit_bias = {}};
    params.temperature = 1.0f;
    params.top_k = static_cast<int>(random() % 40);
    const auto expected = Reference(logits, params, {}, {});
    for (int draw = 0; draw < 20; ++draw) {
      params.seed = random();
      EXPECT_TRUE(expected.contains(sampler.Sample(logits, params, {}, {}).id));
    }
    // top_k 1 is greedy.
    params.top_k = 1;
    const TokenId best = sampler.Sample(logits, params, {}, {}).id;
    EXPECT_EQ(best, std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
}

TEST(SamplerTest, LogprobsAreOfTheModelsOwnDistribution) {
  const std::vector<float> logits = RandomLogits(5000, 1);
  double sum = 0.0;
  for (float logit : logits) sum += std::exp(double(logit));
  Sampler sampler;
  SamplingParams params{.temperature = 3.0f,
                        .top_k = 50,
                        .repetition_penalty = 1.5f,
                        .logit_bias = {{17, 100.0f}},
                        .seed = 4};
  const SampledToken token = sampler.Sample(logits, params, std::vector<TokenId>{17}, {});
  EXPECT_EQ(token.id, 17);
  EXPECT_NEAR(token.logprob, logits[17] - std::log(sum), 1e-5);

  const std::vector<SampledToken> top = sampler.Top(logits, 20);
  ASSERT_EQ(top.size(), 20u);
  for (size_t i = 0; i < top.size(); ++i) {
    EXPECT_NEAR(top[i].logprob, logits[size_t(top[i].id)] - std::log(sum), 1e-5);
    if (i > 0) {
      EXPECT_GE(top[i - 1].logprob, top[i].logprob);
    }
  }
  EXPECT_EQ(top[0].id, std::max_element(logits.begin(), logits.end()) - logits.begin());
  EXPECT_TRUE(sampler.Top(logits, 0).empty());
  EXPECT_EQ(sampler.Top(std::vector<float>{1, 2}, 20).size(), 2u);
}

TEST(SamplerTest, DependsOnSeedAndPositionAlone) {
  const std::vector<float> logits = RandomLogits(1000, 2, 0.5f);
  Sampler used, fresh;
  SamplingParams params{.logit_bias = {}, .seed = 99};
  std::vector<TokenId> tokens;
  std::set<TokenId> distinct;
  for (int i = 0; i < 200; ++i) {
    const TokenId id = used.Sample(logits, params, {}, tokens).id;
    // As the last tokens of a prompt, from another sampler: the same draw.
    EXPECT_EQ(fresh.Sample(logits, params, tokens, {}).id, id);
    used.Sample(logits, {.temperature = 0.0f, .logit_bias = {}}, {}, {});
    tokens.push_back(id);
    distinct.insert(id);
  }
  EXPECT_GT(distinct.size(), 100u);
  params.seed = 100;
  int equal = 0;
  for (size_t i = 0; i < tokens.size(); ++i)
    equal += used.Sample(logits, params, {}, std::span(tokens).first(i)).id == tokens[i];
  EXPECT_LT(equal, 20);
}

TEST(SamplerTest, StrangeNumbersDoNoHarm) {
  Sampler sampler;
  const std::vector<std::vector<float>> all = {
      {kNaN, kNaN, kNaN},
      {-kInfinity, -kInfinity, -kInfinity},
      {kNaN, 1.0f, -kInfinity},
      {kInfinity, kInfinity, 0.0f},
      {3e38f, -3e38f, 0.0f},
      {0.0f, -0.0f, 0.0f},
      std::vector<float>(300000, kNaN),
  };
  const SamplingParams params[] = {
      {.temperature = 0.0f, .logit_bias = {}},
      {.logit_bias = {}},
      {.temperature = 1e-30f, .logit_bias = {}},
      {.temperature = 1e30f, .top_p = 0.5f, .logit_bias = {}},
      {.top_k = 2, .top_p = 0.9f, .min_p = 0.1f, .logit_bias = {}},
      {.top_k = -3, .top_p = -1.0f, .logit_bias = {}},
      {.repetition_penalty = 1e-3f,
       .frequency_penalty = 1e30f,
       .logit_bias = {{-5, 1.0f}, {1 << 30, 2.0f}, {0, kNaN}, {1, -kInfinity}, {2, kInfinity}}},
  };
  const std::vector<TokenId> tokens = {0, 1, -7, 2, 1 << 30};
  for (const auto& logits : all)
    for (const SamplingParams& p : params) {
      const SampledToken token = sampler.Sample(logits, p, tokens, tokens);
      EXPECT_GE(token.id, 0);
      EXPECT_LT(static_cast<size_t>(token.id), logits.size());
      EXPECT_TRUE(std::isfinite(token.logprob));
      EXPECT_LE(token.logprob, 0.0f);
    }
  EXPECT_EQ(sampler.Sample(all[2], params[1], {}, {}).id, 1);
}

TEST(SamplerTest, BiasCanForbidAndForce) {
  Sampler sampler;
  const std::vector<float> logits = RandomLogits(100, 3);
  for (uint64_t seed = 0; seed < 200; ++seed) {
    EXPECT_EQ(sampler.Sample(logits, {.logit_bias = {{42, 100.0f}}, .seed = seed}, {}, {}).id, 42);
    std::vector<std::pair<TokenId, float>> forbid;
    for (TokenId id = 0; id < 99; ++id) forbid.emplace_back(id, -kInfinity);
    EXPECT_EQ(sampler.Sample(logits, {.logit_bias = forbid, .seed = seed}, {}, {}).id, 99);
  }
}

TEST(SamplerTest, HugeVocabulariesOfTies) {
  Sampler sampler;
  const std::vector<float> flat(500000, 1.0f);
  std::set<TokenId> drawn;
  for (uint64_t seed = 0; seed < 50; ++seed)
    drawn.insert(sampler.Sample(flat, {.top_k = 10, .logit_bias = {}, .seed = seed}, {}, {}).id);
  EXPECT_LT(*drawn.rbegin(), 10);
  drawn.clear();
  for (uint64_t seed = 0; seed < 20; ++seed)
    drawn.insert(sampler.Sample(flat, {.top_p = 0.5f, .logit_bias = {}, .seed = seed}, {}, {}).id);
  EXPECT_LT(*drawn.rbegin(), 250001);
  EXPECT_GT(*drawn.rbegin(), 100000);
}

}  // namespace
}  // namespace perdure::engine
