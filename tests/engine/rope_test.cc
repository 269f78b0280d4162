// The angles of the rotary embedding: scalings by their formulas, and how exact they are far out.

#include "engine/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>

#include "base/file.h"
#include "base/json.h"
#include "engine/kernels/kernels.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

constexpr int kHeadDim = 128;

TEST(RopeTest, PlainAndLinear) {
  RopeConfig rope{.theta = 500000.0};
  const RopeTable plain = MakeRopeTable(rope, kHeadDim);
  ASSERT_EQ(plain.frequencies.size(), 64u);
  EXPECT_EQ(plain.magnitude, 1.0);
  EXPECT_DOUBLE_EQ(plain.frequencies[0], 1.0);
  EXPECT_NEAR(plain.frequencies[32], 1.0 / std::sqrt(500000.0), 1e-12);
  rope.scaling = RopeConfig::Scaling::kLinear;
  rope.factor = 4.0;
  EXPECT_DOUBLE_EQ(MakeRopeTable(rope, kHeadDim).frequencies[7], plain.frequencies[7] / 4.0);
}

TEST(RopeTest, Llama3KeepsShortWavelengthsAndStretchesLongOnes) {
  RopeConfig rope{.theta = 500000.0};
  const auto plain = MakeRopeTable(rope, kHeadDim).frequencies;
  rope.scaling = RopeConfig::Scaling::kLlama3;
  rope.factor = 8.0;
  const auto scaled = MakeRopeTable(rope, kHeadDim).frequencies;
  int between = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double wavelength = 2.0 * std::numbers::pi / plain[i];
    if (wavelength < 8192.0 / 4.0) {
      EXPECT_DOUBLE_EQ(scaled[i], plain[i]) << i;
    } else if (wavelength > 8192.0) {
      EXPECT_DOUBLE_EQ(scaled[i], plain[i] / 8.0) << i;
    } else {
      ++between;
      const double smooth = (8192.0 / wavelength - 1.0) / 3.0;
      EXPECT_DOUBLE_EQ(scaled[i], (1.0 - smooth) * plain[i] / 8.0 + smooth * plain[i]) << i;
    }
  }
  EXPECT_GT(between, 3);
}

// Qwen2.5's settings. The borders were worked out by hand: 128 · ln(32768 / (32 · 2π)) / (2 · ln
// 10^6) = 23.6 and, with 1 in place of 32, 39.65.
TEST(RopeTest, YarnGoesOverFromKeptToStretched) {
  RopeConfig rope{.theta = 1e6};
  const auto plain = MakeRopeTable(rope, kHeadDim).frequencies;
  rope.scaling = RopeConfig::Scaling::kYarn;
  rope.factor = 4.0;
  rope.original_context = 32768;
  rope.magnitude = 1.25;
  const RopeTable table = MakeRopeTable(rope, kHeadDim);
  EXPECT_EQ(table.magnitude, 1.25);
  for (size_t i = 0; i < plain.size(); ++i) {
    const double part = std::clamp((static_cast<double>(i) - 23.0) / (40.0 - 23.0), 0.0, 1.0);
    EXPECT_NEAR(table.frequencies[i] / plain[i], part / 4.0 + 1.0 - part, 1e-12) << i;
  }
  float cosines[64], sines[64];
  RopeRow(table, 3, cosines, sines);
  EXPECT_FLOAT_EQ(cosines[0], static_cast<float>(1.25 * std::cos(3.0)));
  EXPECT_FLOAT_EQ(sines[0], static_cast<float>(1.25 * std::sin(3.0)));
}

// From config.json to angles, by goldens/make_rope.py.
TEST(RopeTest, EqualsTransformers) {
  const std::string path = PERDURE_SOURCE_DIR "/tests/engine/goldens/rope.json";
  const auto text = ReadFile(path, size_t{1} << 20);
  ASSERT_TRUE(text.has_value()) << path;
  const auto cases = ParseJson(*text, path, ErrorCode::bad_config);
  ASSERT_TRUE(cases.has_value()) << cases.error().message;
  ASSERT_GT(cases->size(), 10u);
  for (const Json& golden : *cases) {
    SCOPED_TRACE(golden["config"].dump());
    const int head_dim = golden["head_dim"].get<int>();
    TempDir dir;
    WriteText(dir.path() / "config.json", SynthConfigJson({.model_type = "llama",
                                                           .head_dim = head_dim,
                                                           .config = golden["config"].dump()}));
    const auto config = ReadModelConfig(dir.path());
    ASSERT_TRUE(config.has_value()) << config.error().message;
    const RopeTable table = MakeRopeTable(config->rope, head_dim);
    EXPECT_NEAR(table.magnitude, golden["magnitude"].get<double>(), 1e-12);
    const Json& frequencies = golden["frequencies"];
    ASSERT_EQ(table.frequencies.size(), frequencies.size());
    for (size_t i = 0; i < frequencies.size(); ++i)
      EXPECT_NEAR(table.frequencies[i] / frequencies[i].get<double>(), 1.0, 1e-12) << i;
  }
}

// Against 64 bits of mantissa, where a float's own rounding is 2^-25 near 1.
TEST(RopeTest, FarPositionsAreExactToTheLastBitButOne) {
  for (const double theta : {1e4, 5e5, 1e6, 1e9}) {
    const RopeTable table = MakeRopeTable({.theta = theta}, kHeadDim);
    for (const int position : {0, 1, 4095, 32767, 65521, 131071, 131072}) {
      float cosines[64], sines[64];
      RopeRow(table, position, cosines, sines);
      for (int i = 0; i < 64; ++i) {
        const long double angle = position / powl(static_cast<long double>(theta), i / 64.0L);
        EXPECT_NEAR(cosines[i], static_cast<double>(cosl(angle)), 0x1p-24) << position << " " << i;
        EXPECT_NEAR(sines[i], static_cast<double>(sinl(angle)), 0x1p-24) << position << " " << i;
      }
    }
  }
}

// Scores depend on the distance of two positions alone, near the begin and far out.
TEST(RopeTest, ScoresDependOnDistanceFarOut) {
  const RopeTable table = MakeRopeTable({.theta = 1e9}, kHeadDim);
  const Kernels& kernels = KernelsFor(BestIsa());
  std::mt19937_64 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> q(kHeadDim), k(kHeadDim);
  for (int i = 0; i < kHeadDim; ++i) {
    q[static_cast<size_t>(i)] = normal(random);
    k[static_cast<size_t>(i)] = normal(random);
  }
  const auto rotated = [&](std::vector<float> head, int position) {
    float cosines[64], sines[64];
    RopeRow(table, position, cosines, sines);
    kernels.rope(head.data(), cosines, sines, kHeadDim / 2);
    return head;
  };
  const auto score = [&](int q_position, int k_position) {
    const auto a = rotated(q, q_position), b = rotated(k, k_position);
    double sum = 0.0;
    for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * b[i];
    return sum;
  };
  for (const int distance : {0, 1, 7, 1000, 40000})
    for (const int position : {distance, 65536, 131072})
      EXPECT_NEAR(score(position, position - distance), score(distance, 0), 5e-6)
          << position << " " << distance;
}

}  // namespace
}  // namespace perdure::engine
