// The engine against mlx-lm in float32 (goldens/make_goldens.py), for every row of
// goldens/parity_cases.json: top-1 and Kullback–Leibler divergence over all positions. What
// separates the two is the rounding of KV to binary16 and the order of sums.
//
// With PERDURE_PARITY_TABLE=1 the tables of docs/parity.md are printed.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/file.h"
#include "base/json.h"
#include "engine/engine.h"
#include "kv_memory.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

constexpr float kLogprobStep = 1.0f / 1024;
constexpr double kEqualTopMin = 0.995;
constexpr double kDivergenceMax = 1e-4;

std::filesystem::path GoldenDir() {
  return std::filesystem::path(PERDURE_SOURCE_DIR) / "tests/engine/goldens";
}

struct ParityCase {
  std::string name;
  SynthSpec spec;
};
std::ostream& operator<<(std::ostream& out, const ParityCase& c) { return out << c.name; }

struct ParityTable {
  int positions = 0;
  uint64_t tokens_seed = 0;
  std::vector<std::string> architectures, weights, more;
  std::vector<ParityCase> cases;  // architectures × weights, then more
};

void ApplyRow(const Json& row, SynthSpec* spec) {
  for (const auto& [key, value] : row.items()) {
    if (SynthField(key, value, spec)) continue;
    CHECK_MSG(false, "parity_cases.json has the unknown key " + key);
  }
}

ParityTable ReadTable() {
  const std::string path = (GoldenDir() / "parity_cases.json").string();
  const auto text = ReadFile(path, size_t{1} << 20);
  CHECK_MSG(text.has_value(), path);
  const auto json = ParseJson(*text, path, ErrorCode::bad_config);
  CHECK_MSG(json.has_value(), json.has_value() ? "" : json.error().message);
  ParityTable table;
  table.positions = json->at("positions").get<int>();
  table.tokens_seed = json->at("tokens_seed").get<uint64_t>();
  const auto add = [&](const std::string& name, std::initializer_list<const Json*> rows) {
    ParityCase parity{name, {}};
    for (const Json* row : rows) ApplyRow(*row, &parity.spec);
    table.cases.push_back(std::move(parity));
  };
  const Json& base = json->at("base");
  for (const auto& [kind, weights] : json->at("weights").items()) table.weights.push_back(kind);
  for (const auto& [name, architecture] : json->at("architectures").items()) {
    table.architectures.push_back(name);
    for (const auto& [kind, weights] : json->at("weights").items())
      add(name + "_" + kind, {&base, &architecture, &weights});
  }
  for (const auto& [name, row] : json->at("more").items()) {
    table.more.push_back(name);
    add(name, {&base, &row});
  }
  return table;
}

const ParityTable& Table() {
  static const ParityTable table = ReadTable();
  return table;
}

// What make_goldens.py wrote of one position.
struct Golden {
  size_t top;
  std::vector<float> logprobs;  // rounded: they do not sum up to 1
};

std::vector<Golden> ReadGolden(const std::string& name, size_t vocab) {
  const auto bytes = ReadFile(GoldenDir() / "parity" / (name + ".bin"), size_t{1} << 24);
  if (!bytes) return {};
  std::vector<Golden> positions;
  const size_t row_bytes = 1 + 2 * vocab;
  for (size_t at = 0; at + row_bytes <= bytes->size(); at += row_bytes) {
    Golden golden{static_cast<unsigned char>((*bytes)[at]), {}};
    for (size_t i = 0; i < vocab; ++i) {
      int16_t steps = 0;
      std::memcpy(&steps, bytes->data() + at + 1 + 2 * i, sizeof steps);
      golden.logprobs.push_back(static_cast<float>(steps) * kLogprobStep);
    }
    positions.push_back(std::move(golden));
  }
  return positions;
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
  double divergence = 0.0;  // mean
};

Score Compare(const std::vector<Golden>& golden, std::span<const float> logits, size_t vocab) {
  Score score;
  for (size_t at = 0; at < golden.size(); ++at) {
    const auto q = logits.subspan(at * vocab, vocab);
    const std::vector<double> lp = LogProbabilities(golden[at].logprobs);
    const std::vector<double> lq = LogProbabilities(q);
    ++score.positions;
    score.equal_top +=
        golden[at].top == static_cast<size_t>(std::max_element(q.begin(), q.end()) - q.begin());
    for (size_t i = 0; i < vocab; ++i) score.divergence += std::exp(lp[i]) * (lp[i] - lq[i]);
  }
  score.divergence /= score.positions;
  return score;
}

// Positions with another top-1, mean divergence.
std::string Cell(const Score& score) {
  return fmt::format("{}, {:.0e}", score.positions - score.equal_top, score.divergence);
}

class ParityTest : public testing::TestWithParam<ParityCase> {
 protected:
  static void TearDownTestSuite() {
    if (std::getenv("PERDURE_PARITY_TABLE") == nullptr) return;
    std::string text =
        fmt::format("| weights | {} |\n|---", fmt::join(Table().architectures, " | "));
    for (size_t i = 0; i < Table().architectures.size(); ++i) text += "|---";
    text += "|\n";
    for (const std::string& weights : Table().weights) {
      text += fmt::format("| {}", weights);
      for (const std::string& name : Table().architectures)
        text += " | " + Cell(scores_[name + "_" + weights]);
      text += " |\n";
    }
    text += "\n| more | |\n|---|---|\n";
    for (const std::string& name : Table().more)
      text += fmt::format("| {} | {} |\n", name, Cell(scores_[name]));
    std::fputs(text.c_str(), stdout);
  }
  static inline std::map<std::string, Score> scores_;
};

TEST_P(ParityTest, EqualsMlxInFloat32) {
  const auto& [name, spec] = GetParam();
  TempDir dir;
  WriteSynthModel(spec, dir.path());
  auto engine = Engine::Load(dir.path(), {.threads = 2, .activations = Activations::kFloat32});
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  const int positions = Table().positions;
  const std::vector<TokenId> tokens = SynthTokens(Table().tokens_seed, positions, spec.vocab);
  const KvMemory kv((*engine)->info().kv, positions);
  const SequenceStep step{.kv = kv.view(), .start = 0, .tokens = tokens, .logits_from = 0};
  const auto logits = (*engine)->Step({&step, 1});
  const auto vocab = static_cast<size_t>(spec.vocab);
  const std::vector<Golden> golden = ReadGolden(name, vocab);
  ASSERT_EQ(golden.size(), tokens.size());
  const Score score = Compare(golden, logits, vocab);
  scores_[name] = score;
  EXPECT_GE(score.equal_top, kEqualTopMin * score.positions);
  EXPECT_LE(score.divergence, kDivergenceMax);
}

INSTANTIATE_TEST_SUITE_P(Cases, ParityTest, testing::ValuesIn(Table().cases),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace perdure::engine
