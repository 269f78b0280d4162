// How far quantized KV moves a model's distributions: engines whose logits are known, and a model.
#include "worker/divergence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "base/limits.h"
#include "engine/kv_view.h"
#include "tests/engine/kv_memory.h"
#include "tests/engine/synth_model.h"
#include "tests/worker/ids.h"

namespace perdure::worker {
namespace {

using engine::KvPrecision;
using Row = std::vector<float>;

constexpr engine::KvShape kKv{1, 1, 64};
constexpr KvPrecision kPrecisions[] = {KvPrecision::kF16, KvPrecision::kQ8, KvPrecision::kQ4};

// Says what the test has it say, and keeps each token in its page: who finds another one there
// fails.
class ScriptedEngine : public engine::Engine {
 public:
  using LogitsOf = std::function<Row(int position, KvPrecision precision)>;
  ScriptedEngine(int vocab, LogitsOf logits_of) : logits_of_(std::move(logits_of)) {
    info_.vocab_size = vocab;
    info_.kv = kKv;
  }
  const engine::ModelInfo& info() const override { return info_; }
  const engine::GenerationDefaults& generation_defaults() const override { return defaults_; }
  std::span<const float> Step(std::span<const engine::SequenceStep> sequences) override {
    EXPECT_EQ(sequences.size(), 1u);
    const engine::SequenceStep& step = sequences[0];
    EXPECT_LE(step.tokens.size(), limits::kDivergenceTokensPerStep);
    if (step.start == 0) {
      seen_.clear();
      passes.push_back(step.kv.PrecisionOf(0));
    }
    EXPECT_EQ(static_cast<size_t>(step.start), seen_.size());
    for (size_t i = 0; i < seen_.size(); ++i) {
      TokenId kept = -1;
      std::memcpy(&kept, Place(step.kv, i), sizeof kept);
      EXPECT_EQ(kept, seen_[i]) << "position " << i;
    }
    logits_.clear();
    for (size_t i = 0; i < step.tokens.size(); ++i) {
      std::memcpy(Place(step.kv, seen_.size()), &step.tokens[i], sizeof(TokenId));
      if (static_cast<int>(i) >= step.logits_from) {
        const auto position = static_cast<int>(seen_.size());
        const Row row =
            logits_of_(position, step.kv.PrecisionOf(seen_.size() / engine::kPageTokens));
        logits_.insert(logits_.end(), row.begin(), row.end());
        compared.push_back(position);
      }
      seen_.push_back(step.tokens[i]);
    }
    return logits_;
  }
  const Ids& seen() const { return seen_; }

  std::vector<KvPrecision> passes;
  std::vector<int> compared;  // positions, in all passes

 private:
  static std::byte* Place(const engine::KvView& kv, size_t position) {
    return kv.pages[position / engine::kPageTokens] +
           position % engine::kPageTokens * sizeof(TokenId);
  }

  const LogitsOf logits_of_;
  engine::ModelInfo info_;
  const engine::GenerationDefaults defaults_;
  Row logits_;
  Ids seen_;
};

std::optional<CacheDivergence> Measure(engine::Engine* engine, Ids tokens) {
  DivergenceMeasure measure(engine, std::move(tokens));
  for (int steps = 0; !measure.Step(); ++steps) {
    EXPECT_FALSE(measure.result()) << "before it is over";
    if (steps > 1000) {
      ADD_FAILURE() << "it does not end";
      break;
    }
  }
  return measure.result();
}

// Straight from the definition.
double Reference(const Row& p_logits, const Row& q_logits) {
  const auto probabilities = [](const Row& logits) {
    const long double top = *std::ranges::max_element(logits);
    std::vector<long double> p;
    long double sum = 0;
    for (const float logit : logits) sum += p.emplace_back(std::exp(logit - top));
    for (long double& each : p) each /= sum;
    return p;
  };
  const auto p = probabilities(p_logits), q = probabilities(q_logits);
  long double sum = 0;
  for (size_t i = 0; i < p.size(); ++i)
    if (p[i] > 0) sum += p[i] * std::log(p[i] / q[i]);
  return static_cast<double>(sum);
}

Row RandomLogits(int vocab, int position, int variant, float spread) {
  std::mt19937 random(static_cast<unsigned>(position * 8 + variant));
  std::normal_distribution<float> normal(0.0f, spread);
  Row row(static_cast<size_t>(vocab));
  for (float& logit : row) logit = normal(random);
  return row;
}
// Those of 16 bits, and a bit of noise: more with 4 bits than with 8.
Row NearLogits(int vocab, int position, KvPrecision precision) {
  Row row = RandomLogits(vocab, position, 0, 3.0f);
  const float noise = precision == KvPrecision::kF16  ? 0.0f
                      : precision == KvPrecision::kQ8 ? 0.05f
                                                      : 0.5f;
  const Row other = RandomLogits(vocab, position, static_cast<int>(precision) + 1, noise);
  for (size_t i = 0; i < row.size(); ++i) row[i] += other[i];
  return row;
}

// --- The number --------------------------------------------------------------------------------

TEST(DivergenceTest, EqualLogitsDoNotDiverge) {
  constexpr int kVocab = 100;
  ScriptedEngine engine(
      kVocab, [](int position, KvPrecision) { return RandomLogits(kVocab, position, 0, 5.0f); });
  const auto result = Measure(&engine, Text(128, 1));
  ASSERT_TRUE(result);
  EXPECT_NEAR(result->bits8, 0.0, 1e-12);
  EXPECT_NEAR(result->bits4, 0.0, 1e-12);
}

TEST(DivergenceTest, IsTheMeanOfItsPositions) {
  constexpr int kVocab = 300;
  ScriptedEngine engine(kVocab, [](int position, KvPrecision precision) {
    return NearLogits(kVocab, position, precision);
  });
  const auto result = Measure(&engine, Text(200, 1));
  ASSERT_TRUE(result);
  EXPECT_EQ(result->positions, 64);
  double bits8 = 0, bits4 = 0;
  for (int position = 200 - 64; position < 200; ++position) {
    const Row exact = NearLogits(kVocab, position, KvPrecision::kF16);
    bits8 += Reference(exact, NearLogits(kVocab, position, KvPrecision::kQ8)) / 64;
    bits4 += Reference(exact, NearLogits(kVocab, position, KvPrecision::kQ4)) / 64;
  }
  EXPECT_GT(bits8, 1e-4);
  EXPECT_NEAR(result->bits8, bits8, 1e-9 * bits8);
  EXPECT_NEAR(result->bits4, bits4, 1e-9 * bits4);
  EXPECT_GT(result->bits4, result->bits8);
}

// From the exact distribution to the other: the way back is another number.
TEST(DivergenceTest, IsThatFromSixteenBits) {
  const Row exact = {0.0f, std::log(3.0f)};  // 1/4, 3/4
  const Row other = {0.0f, 0.0f};            // 1/2, 1/2
  ScriptedEngine engine(
      2, [&](int, KvPrecision precision) { return precision == KvPrecision::kQ4 ? other : exact; });
  const auto result = Measure(&engine, Text(64, 1));
  ASSERT_TRUE(result);
  EXPECT_NEAR(result->bits8, 0.0, 1e-12);
  EXPECT_NEAR(result->bits4, 0.25 * std::log(0.5) + 0.75 * std::log(1.5), 1e-7);
}

TEST(DivergenceTest, LogitsFarApartAreFiniteNumbers) {
  // What 16 bits call impossible does not count, and what they are sure of counts for all.
  ScriptedEngine engine(3, [](int, KvPrecision precision) {
    return precision == KvPrecision::kF16  ? Row{2000.0f, 0.0f, -2000.0f}
           : precision == KvPrecision::kQ8 ? Row{2000.0f, -2000.0f, 0.0f}
                                           : Row{0.0f, 2000.0f, 0.0f};
  });
  const auto result = Measure(&engine, Text(64, 1));
  ASSERT_TRUE(result);
  EXPECT_NEAR(result->bits8, 0.0, 1e-9);
  EXPECT_NEAR(result->bits4, 2000.0, 1e-6);
}

// --- What is computed --------------------------------------------------------------------------

TEST(DivergenceTest, ComputesTheTextOncePerPrecision) {
  ScriptedEngine engine(
      10, [](int position, KvPrecision precision) { return NearLogits(10, position, precision); });
  const Ids text = Text(150, 1);
  const auto result = Measure(&engine, text);
  ASSERT_TRUE(result);
  EXPECT_TRUE(std::ranges::equal(engine.passes, kPrecisions));
  EXPECT_EQ(engine.seen(), text);
  std::vector<int> last;
  for (size_t pass = 0; pass < engine.passes.size(); ++pass)
    for (int position = 150 - 64; position < 150; ++position) last.push_back(position);
  EXPECT_EQ(engine.compared, last);
}

TEST(DivergenceTest, ComparesHalfOfAShortText) {
  for (const int tokens : {64, 65, 100, 127, 128, 129}) {
    ScriptedEngine engine(10, [](int position, KvPrecision precision) {
      return NearLogits(10, position, precision);
    });
    const auto result = Measure(&engine, Text(static_cast<size_t>(tokens), 1));
    ASSERT_TRUE(result);
    EXPECT_EQ(result->positions, std::min(tokens / 2, 64)) << tokens;
  }
}

TEST(DivergenceTest, ALargeVocabularyComparesFewerPositions) {
  constexpr int kVocab = 1 << 20;  // 16 MiB hold four rows of it
  ScriptedEngine engine(kVocab, [](int, KvPrecision precision) {
    Row row(kVocab, 0.0f);
    row[0] = precision == KvPrecision::kF16 ? 20.0f : 10.0f;
    return row;
  });
  const auto result = Measure(&engine, Text(64, 1));
  ASSERT_TRUE(result);
  EXPECT_EQ(result->positions, 4);
  EXPECT_GT(result->bits8, 0.1);
  EXPECT_EQ(result->bits8, result->bits4);
}

TEST(DivergenceDeathTest, TooLittleTextIsTheCallersFault) {
  ScriptedEngine engine(
      10, [](int position, KvPrecision precision) { return NearLogits(10, position, precision); });
  EXPECT_DEATH(DivergenceMeasure(&engine, Text(limits::kDivergenceTokensMin - 1, 1)), "");
}

// --- A model -----------------------------------------------------------------------------------

TEST(DivergenceTest, OfAModelIsWhatItsLogitsSay) {
  constexpr int kTokens = 160;
  engine::SynthSpec spec;
  spec.head_dim = 64;
  engine::TempDir dir;
  engine::WriteSynthModel(spec, dir.path());
  const auto engine = engine::Engine::Load(dir.path(), {.threads = 2});
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  const Ids tokens = engine::SynthTokens(3, kTokens, spec.vocab);
  const auto result = Measure(engine->get(), tokens);
  ASSERT_TRUE(result);
  // At once instead of in steps, in memory of its own.
  std::vector<Row> rows[shm::kPageFormats];
  for (size_t i = 0; i < shm::kPageFormats; ++i) {
    const engine::KvMemory kv((*engine)->info().kv, kTokens, {kPrecisions[i]});
    const engine::SequenceStep step{
        .kv = kv.view(), .start = 0, .tokens = tokens, .logits_from = kTokens - 64};
    const auto logits = (*engine)->Step({&step, 1});
    const auto vocab = static_cast<size_t>(spec.vocab);
    ASSERT_EQ(logits.size(), 64 * vocab);
    for (size_t at = 0; at < logits.size(); at += vocab) {
      const auto row = logits.subspan(at, vocab);
      rows[i].emplace_back(row.begin(), row.end());
    }
  }
  double bits8 = 0, bits4 = 0;
  for (size_t i = 0; i < rows[0].size(); ++i) {
    bits8 += Reference(rows[0][i], rows[1][i]) / 64;
    bits4 += Reference(rows[0][i], rows[2][i]) / 64;
  }
  EXPECT_GT(bits8, 0.0);
  EXPECT_NEAR(result->bits8, bits8, 1e-6 * bits8);
  EXPECT_NEAR(result->bits4, bits4, 1e-6 * bits4);
  EXPECT_GT(result->bits4, 4 * result->bits8) << "fewer bits, and far fewer steps of a number";
}

}  // namespace
}  // namespace perdure::worker
