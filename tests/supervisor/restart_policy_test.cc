#include "supervisor/restart_policy.h"

#include <gtest/gtest.h>

#include <vector>

namespace perdure::supervisor {
namespace {

RestartLimits Limits() {
  RestartLimits limits;
  limits.cooldown_ms = 1'000'000;
  return limits;
}

TEST(RestartPolicy, AtOnceThenDoublingThenFailed) {
  RestartPolicy policy;
  for (const int64_t delay : {0, 100, 200, 400}) {
    const auto decision = policy.OnDeath(DeathClass::kCrash, false, Limits());
    EXPECT_FALSE(decision.failed);
    EXPECT_EQ(decision.delay_ms, delay);
  }
  const auto fifth = policy.OnDeath(DeathClass::kCrash, false, Limits());
  EXPECT_TRUE(fifth.failed);
  EXPECT_EQ(fifth.delay_ms, 1'000'000);
}

TEST(RestartPolicy, AfterTheCooldownOneMoreTry) {
  RestartPolicy policy;
  for (int i = 0; i < 5; ++i) policy.OnDeath(DeathClass::kOom, false, Limits());
  EXPECT_TRUE(policy.OnDeath(DeathClass::kHang, false, Limits()).failed);
  EXPECT_TRUE(policy.OnDeath(DeathClass::kCrash, false, Limits()).failed);
}

TEST(RestartPolicy, OneCompletedStepResets) {
  RestartPolicy policy;
  for (int i = 0; i < 100; ++i) {
    const auto decision = policy.OnDeath(DeathClass::kCrash, true, Limits());
    EXPECT_FALSE(decision.failed);
    EXPECT_EQ(decision.delay_ms, 0);
  }
  for (int i = 0; i < 4; ++i) policy.OnDeath(DeathClass::kCrash, false, Limits());
  EXPECT_EQ(policy.OnDeath(DeathClass::kCrash, true, Limits()).delay_ms, 0);
}

TEST(RestartPolicy, ExternalDeathsNeverFailAndSlowLittle) {
  RestartPolicy policy;
  std::vector<int64_t> delays;
  for (int i = 0; i < 100; ++i) {
    const auto decision = policy.OnDeath(DeathClass::kExternal, false, Limits());
    EXPECT_FALSE(decision.failed);
    delays.push_back(decision.delay_ms);
  }
  EXPECT_EQ(delays[0], 0);
  EXPECT_EQ(delays[1], 100);
  EXPECT_EQ(delays.back(), 1'000);
  EXPECT_EQ(policy.counted_deaths(), 0);
}

TEST(RestartPolicy, ExternalDeathsBetweenDoNotHideCrashes) {
  RestartPolicy policy;
  bool failed = false;
  for (int i = 0; i < 5; ++i) {
    policy.OnDeath(DeathClass::kExternal, false, Limits());
    failed = policy.OnDeath(DeathClass::kCrash, false, Limits()).failed;
  }
  EXPECT_TRUE(failed);
}

TEST(RestartPolicy, DelaysEndAtTheCeiling) {
  RestartLimits limits = Limits();
  limits.deaths_max = 0;
  RestartPolicy policy;
  int64_t delay = 0;
  for (int i = 0; i < 10'000; ++i) {
    const auto decision = policy.OnDeath(DeathClass::kCrash, false, limits);
    EXPECT_FALSE(decision.failed);
    EXPECT_GE(decision.delay_ms, delay);
    delay = decision.delay_ms;
  }
  EXPECT_EQ(delay, 30'000);
}

TEST(RestartPolicy, ABadModelFailsAtOnce) {
  RestartPolicy policy;
  EXPECT_TRUE(policy.OnDeath(DeathClass::kBadModel, false, Limits()).failed);
  EXPECT_TRUE(policy.OnDeath(DeathClass::kBadModel, false, Limits()).failed);
}

}  // namespace
}  // namespace perdure::supervisor
