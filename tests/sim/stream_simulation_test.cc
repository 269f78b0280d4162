// How a stream survives its worker, under a seeded simulation of everything that can go wrong
// between the processes: the frontend's dispatcher, the worker's generator, the arena and the
// supervisor's book of suspects are the real ones; the engine is the fake one, whose every token
// depends on all KV before it.
//
// Bytes wait in both directions of a channel and arrive in pieces. A worker is killed in any step,
// at any send, at any store to the arena, while it folds or rests, its last frame torn; so is its
// replacement, before it has said a word. A request may be poison; clients read slowly or hang up;
// frontends and supervisors die, and their clients ask again. At every point a client's bytes are a
// prefix of the answer that it gets undisturbed, each event comes once, and in the end a client has
// all of it. In half of the seeds requests have all kinds of caches, some of them conversations of
// their own.
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <vector>

#include "base/log.h"
#include "tests/sim/stream_world.h"

namespace perdure::sim {
namespace {

struct Tally {
  int answers = 0, poisons = 0;
  std::array<int, static_cast<size_t>(Happening::kCount)> seeds{};  // in which it happened
};

struct Expected {
  const char* name;
  int seeds;  // of 1000, about half of what there are
};
constexpr std::array<Expected, static_cast<size_t>(Happening::kCount)> kExpected{{
    {"a death in a step", 140},
    {"a death at a send", 150},
    {"a death at a store", 100},
    {"a death in a fold", 90},
    {"a death at rest", 230},
    {"a death by poison", 110},
    {"a death while attaching", 15},
    {"a death in Hello", 30},
    {"a death before its first answer", 190},
    {"a death in Resume", 13},
    {"three deaths in a row", 8},
    {"a death with an unread channel", 380},
    {"a torn frame", 240},
    {"a resumed answer", 150},
    {"pages kept", 290},
    {"a quarantined request", 100},
    {"a slow client", 180},
    {"a hangup", 35},
    {"a client that asks again", 95},
    {"a frontend's death", 85},
    {"a frontend's death without a worker", 25},
    {"two frontends before the worker looked", 14},
    {"work after a frontend's death", 20},
    {"a worker's death before it looked", 6},
    {"a worker's death while cancelling", 6},
    {"a supervisor's death", 40},
    {"an arena taken over", 30},
    {"an arena gone", 14},
}};

void RunSeed(uint32_t seed, Tally* tally) {
  std::mt19937 random(seed);
  const auto pick = [&random](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  std::vector<Script> scripts, healthy;
  const int count = pick(1, 7);
  Weather weather, calm_weather;
  weather.typed = calm_weather.typed = pick(0, 1) == 0;
  const int poison = pick(0, 3) == 0 ? pick(1, count) : 0;
  for (int i = 1; i <= count; ++i) {
    scripts.push_back(
        MakeScript(random, static_cast<protocol::RequestId>(i), i == poison, weather.typed));
    if (i != poison) healthy.push_back(scripts.back());
  }
  World calm(seed, healthy, calm_weather);
  calm.Run(nullptr);
  World::Answers expected;
  for (const auto& [rid, client] : calm.clients()) expected[rid] = client->parts();
  if (testing::Test::HasFailure()) return;

  weather.rough = true;
  weather.slow_clients = pick(0, 1) == 0;
  weather.hangups = pick(0, 3) == 0;
  weather.frontend_deaths = pick(0, 3) == 0;
  weather.supervisor_deaths = pick(0, 5) == 0;
  World world(seed + 1, scripts, weather);
  world.Run(&expected);
  for (const auto& [rid, client] : world.clients()) {
    if (client->forgiven) continue;
    if (client->script().poison) {
      EXPECT_NE(Joined(client->parts()).find("worker_crashed"), std::string::npos)
          << Joined(client->parts());
      ++tally->poisons;
      continue;
    }
    EXPECT_EQ(client->status(), 200) << Joined(client->parts());
    EXPECT_EQ(client->parts(), expected[client->script().first_rid]) << "request " << rid;
    ++tally->answers;
  }
  for (size_t i = 0; i < tally->seeds.size(); ++i)
    tally->seeds[i] += world.happened(static_cast<Happening>(i)) > 0;
}

// 20,000 seeds in all; a shard is a test so that they can run side by side.
constexpr uint32_t kShards = 8;
constexpr uint32_t kSeedsPerShard = 2500;

class StreamSimulation : public testing::TestWithParam<uint32_t> {};

TEST_P(StreamSimulation, EveryAnswerIsTheUndisturbedOne) {
  SetLogLevel(LogLevel::kError);
  Tally tally;
  for (uint32_t i = 0; i < kSeedsPerShard; ++i) {
    const uint32_t seed = 2 * (GetParam() * kSeedsPerShard + i);
    RunSeed(seed, &tally);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
  // The simulation reaches what it is for, and cannot cease to do so unnoticed.
  EXPECT_GT(tally.answers, static_cast<int>(2 * kSeedsPerShard));
  EXPECT_GT(tally.poisons, static_cast<int>(kSeedsPerShard / 10));
  for (size_t i = 0; i < tally.seeds.size(); ++i) {
    const int per_mille = tally.seeds[i] * 1000 / static_cast<int>(kSeedsPerShard);
    EXPECT_GE(per_mille, kExpected[i].seeds) << kExpected[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, StreamSimulation, testing::Range(0u, kShards));

}  // namespace
}  // namespace perdure::sim
