#include "supervisor/child_state.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace perdure::supervisor {
namespace {

using A = ChildAction;
using E = ChildEventKind;
using S = ModelState;

constexpr int64_t kGraceMs = 5'000;
constexpr int64_t kCooldownMs = 60'000;

ChildCore::Limits TestLimits() {
  ChildCore::Limits limits;
  limits.restart.cooldown_ms = kCooldownMs;
  limits.stop_grace_ms = kGraceMs;
  return limits;
}

struct Step {
  ChildEvent event;
  ChildAction action;
  ModelState state;
};

struct Story {
  const char* name;
  std::vector<Step> steps;
};

ChildEvent At(int64_t now_ms, E kind) { return {.kind = kind, .now_ms = now_ms}; }
ChildEvent Died(int64_t now_ms, DeathClass death, bool progressed = false) {
  return {.kind = E::kDied, .now_ms = now_ms, .death = death, .progressed = progressed};
}
ChildEvent SpawnFailed(int64_t now_ms, DeathClass death) {
  return {.kind = E::kSpawnFailed, .now_ms = now_ms, .death = death};
}

const Step kRun{At(0, E::kRun), A::kSpawn, S::kStarting};
const Step kReady{At(1, E::kReady), A::kNone, S::kReady};

class ChildStateTest : public testing::TestWithParam<Story> {};

TEST_P(ChildStateTest, FollowsTheTable) {
  ChildCore core(TestLimits());
  EXPECT_EQ(core.state(), S::kStopped);
  int i = 0;
  for (const Step& step : GetParam().steps) {
    EXPECT_EQ(core.On(step.event), step.action) << "step " << i;
    EXPECT_EQ(core.state(), step.state) << "step " << i;
    ++i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Stories, ChildStateTest,
    testing::Values(Story{"LoadsAndServes",
                          {kRun,
                           {At(1, E::kLoading), A::kNone, S::kLoading},
                           {At(2, E::kLoading), A::kNone, S::kLoading},
                           {At(3, E::kReady), A::kNone, S::kReady},
                           {At(4, E::kLoading), A::kNone, S::kReady},
                           {At(5, E::kReady), A::kNone, S::kReady},
                           {At(6, E::kRun), A::kNone, S::kReady},
                           {At(7, E::kTime), A::kNone, S::kReady}}},
                    Story{"RestartsAtOnceThenWaits",
                          {kRun,
                           kReady,
                           {Died(10, DeathClass::kCrash), A::kSpawn, S::kStarting},
                           {Died(20, DeathClass::kCrash), A::kNone, S::kBackoff},
                           {At(119, E::kTime), A::kNone, S::kBackoff},
                           {At(119, E::kRun), A::kNone, S::kBackoff},
                           {At(120, E::kTime), A::kSpawn, S::kStarting}}},
                    Story{"FailsAfterFive",
                          {kRun,
                           {Died(0, DeathClass::kCrash), A::kSpawn, S::kStarting},
                           {Died(0, DeathClass::kCrash), A::kNone, S::kBackoff},
                           {At(100, E::kTime), A::kSpawn, S::kStarting},
                           {Died(100, DeathClass::kHang), A::kNone, S::kBackoff},
                           {At(300, E::kTime), A::kSpawn, S::kStarting},
                           {Died(300, DeathClass::kOom), A::kNone, S::kBackoff},
                           {At(700, E::kTime), A::kSpawn, S::kStarting},
                           {Died(700, DeathClass::kCrash), A::kNone, S::kFailed},
                           {At(700 + kCooldownMs - 1, E::kTime), A::kNone, S::kFailed},
                           {At(700 + kCooldownMs, E::kTime), A::kSpawn, S::kStarting},
                           {Died(99'999, DeathClass::kCrash), A::kNone, S::kFailed},
                           {At(99'999, E::kRun), A::kSpawn, S::kStarting}}},
                    Story{"ABadModelWaitsForAReload",
                          {kRun,
                           {Died(5, DeathClass::kBadModel), A::kNone, S::kFailed},
                           {At(6, E::kRun), A::kSpawn, S::kStarting},
                           {At(7, E::kReady), A::kNone, S::kReady}}},
                    Story{"AFailedSpawnIsNotRepeatedAtOnce",
                          {kRun,
                           {SpawnFailed(0, DeathClass::kCrash), A::kNone, S::kBackoff},
                           {At(100, E::kTime), A::kSpawn, S::kStarting},
                           {SpawnFailed(100, DeathClass::kBadModel), A::kNone, S::kFailed}}},
                    Story{"DrainsAndStops",
                          {kRun,
                           kReady,
                           {At(10, E::kStop), A::kDrain, S::kStopping},
                           {At(11, E::kStop), A::kNone, S::kStopping},
                           {At(12, E::kReady), A::kNone, S::kStopping},
                           {Died(20, DeathClass::kStopped), A::kNone, S::kStopped},
                           {At(30, E::kTime), A::kNone, S::kStopped}}},
                    Story{"WhatDoesNotServeYetIsKilledAtOnce",
                          {kRun,
                           {At(5, E::kLoading), A::kNone, S::kLoading},
                           {At(10, E::kStop), A::kKill, S::kStopping},
                           {At(11, E::kStop), A::kNone, S::kStopping},
                           {At(99'999, E::kTime), A::kNone, S::kStopping},
                           {At(99'999, E::kRun), A::kNone, S::kStopping},
                           {Died(99'999, DeathClass::kStopped), A::kSpawn, S::kStarting}}},
                    Story{"IsKilledWhenItDoesNotStop",
                          {kRun,
                           kReady,
                           {At(10, E::kStop), A::kDrain, S::kStopping},
                           {At(10 + kGraceMs - 1, E::kTime), A::kNone, S::kStopping},
                           {At(10 + kGraceMs, E::kTime), A::kKill, S::kStopping},
                           {At(99'999, E::kTime), A::kNone, S::kStopping},
                           {Died(99'999, DeathClass::kStopped), A::kNone, S::kStopped}}},
                    Story{"CrashWhileStoppingIsTheEndToo",
                          {kRun,
                           kReady,
                           {At(10, E::kStop), A::kDrain, S::kStopping},
                           {Died(11, DeathClass::kCrash), A::kNone, S::kStopped}}},
                    Story{"StopsWhileWaiting",
                          {kRun,
                           {Died(0, DeathClass::kCrash), A::kSpawn, S::kStarting},
                           {Died(0, DeathClass::kCrash), A::kNone, S::kBackoff},
                           {At(1, E::kStop), A::kNone, S::kStopped},
                           {At(99'999, E::kTime), A::kNone, S::kStopped}}},
                    Story{"StoppedInOrderToBeStartedAnew",
                          {kRun,
                           kReady,
                           {At(10, E::kStop), A::kDrain, S::kStopping},
                           {At(10, E::kRun), A::kNone, S::kStopping},
                           {Died(20, DeathClass::kStopped), A::kSpawn, S::kStarting}}},
                    Story{"AHangIsKilledOnce",
                          {kRun,
                           kReady,
                           {At(10, E::kHung), A::kKill, S::kReady},
                           {At(11, E::kHung), A::kNone, S::kReady},
                           {At(11, E::kMisuse), A::kNone, S::kReady},
                           {At(11, E::kStop), A::kNone, S::kStopping},
                           {Died(12, DeathClass::kHang), A::kNone, S::kStopped}}},
                    Story{"MisuseIsKilled",
                          {kRun,
                           {At(10, E::kMisuse), A::kKill, S::kStarting},
                           {Died(12, DeathClass::kCrash), A::kSpawn, S::kStarting}}}),
    [](const auto& info) { return info.param.name; });

// Any order of events that the shell can produce keeps these.
TEST(ChildState, RandomWalksKeepTheInvariants) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    ChildCore core(TestLimits());
    bool process = false;  // what the world would hold
    bool killed = false;
    int64_t now_ms = 0;
    for (int i = 0; i < 2'000; ++i) {
      now_ms += static_cast<int64_t>(random() % 3'000);
      ChildEvent event;
      event.now_ms = now_ms;
      event.death = static_cast<DeathClass>(random() % 7);
      event.progressed = random() % 2 == 0;
      // A process that was killed, or none at all, says nothing.
      std::vector<E> possible{E::kRun, E::kStop, E::kTime, E::kTime};
      if (process) possible.insert(possible.end(), {E::kDied, E::kDied, E::kHung, E::kMisuse});
      if (process && !killed) possible.insert(possible.end(), {E::kLoading, E::kReady, E::kReady});
      event.kind = possible[random() % possible.size()];
      if (event.kind == E::kDied) process = false;

      const ChildAction action = core.On(event);
      if (action == A::kSpawn) {
        ASSERT_FALSE(process) << "two processes of one model";
        ASSERT_TRUE(core.wanted());
        process = true;
        killed = false;
        if (random() % 8 == 0) {
          process = false;
          ChildEvent failed = event;
          failed.kind = E::kSpawnFailed;
          ASSERT_EQ(core.On(failed), A::kNone) << "a failed start is never repeated at once";
        }
      }
      if (action == A::kKill) {
        ASSERT_TRUE(process);
        ASSERT_FALSE(killed) << "killed twice";
        killed = true;
      }
      if (action == A::kDrain) {
        ASSERT_TRUE(process);
      }

      ASSERT_EQ(core.alive(), process);
      const bool running = core.state() == S::kStarting || core.state() == S::kLoading ||
                           core.state() == S::kReady || core.state() == S::kStopping;
      ASSERT_EQ(running, process);
      if (process) {
        ASSERT_EQ(core.kill_reason() != KillReason::kNone, killed);
      }
      // What waits has a time at which it goes on; what stops is killed some time.
      if (core.state() == S::kBackoff || core.state() == S::kFailed) {
        ASSERT_TRUE(core.wanted());
        ASSERT_TRUE(core.deadline_ms().has_value());
        ASSERT_LE(*core.deadline_ms(), now_ms + kCooldownMs);
      }
      if (core.state() == S::kStopping && !killed) {
        ASSERT_TRUE(core.deadline_ms().has_value());
        ASSERT_LE(*core.deadline_ms(), now_ms + kGraceMs);
      }
      if (core.state() == S::kStopped) {
        ASSERT_FALSE(core.wanted());
      }
    }
  }
}

}  // namespace
}  // namespace perdure::supervisor
