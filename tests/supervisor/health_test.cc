#include "supervisor/health.h"

#include <gtest/gtest.h>

namespace perdure::supervisor {
namespace {

using shm::Phase;

HealthLimits Limits() {
  HealthLimits limits;
  limits.loading_ms = 20'000;
  limits.idle_ms = 10'000;
  limits.stepping_ms = 5'000;
  limits.fault_factor = 3;
  limits.sample_gap_max_ms = 2'000;
  return limits;
}

// Seconds from a first sample until the watch says "hangs", with a sample each second whose
// counters `change` sets; 0 when it never does within an hour.
template <class F>
int SecondsToHang(Phase phase, F change) {
  HealthWatch watch;
  HealthSample sample;
  sample.phase = phase;
  for (int s = 0; s <= 3600; ++s) {
    sample.now_ms = 1'000'000 + s * 1000;
    if (s > 0) change(sample, s);
    if (!watch.Observe(sample, Limits())) return s;
  }
  return 0;
}

TEST(Health, EachPhaseHasItsLimit) {
  const auto nothing = [](HealthSample&, int) {};
  EXPECT_EQ(SecondsToHang(Phase::kStarting, nothing), 20);
  EXPECT_EQ(SecondsToHang(Phase::kLoading, nothing), 20);
  EXPECT_EQ(SecondsToHang(Phase::kIdle, nothing), 10);
  EXPECT_EQ(SecondsToHang(Phase::kStepping, nothing), 5);
  EXPECT_EQ(SecondsToHang(Phase::kDraining, nothing), 5);
  EXPECT_EQ(SecondsToHang(static_cast<Phase>(77), nothing), 5);
}

TEST(Health, ProgressIsAlive) {
  EXPECT_EQ(SecondsToHang(Phase::kStepping, [](HealthSample& s, int) { ++s.progress; }), 0);
  EXPECT_EQ(SecondsToHang(Phase::kLoading, [](HealthSample& s, int) { ++s.load_bytes_done; }), 0);
  EXPECT_EQ(SecondsToHang(Phase::kStepping,
                          [](HealthSample& s, int second) { s.progress += second % 4 == 0; }),
            0);
  EXPECT_EQ(
      SecondsToHang(Phase::kIdle, [](HealthSample& s, int second) { s.progress += second < 7; }),
      16);
}

TEST(Health, AChangeOfPhaseIsProgress) {
  EXPECT_EQ(SecondsToHang(Phase::kIdle,
                          [](HealthSample& s, int second) {
                            s.phase = second % 2 == 0 ? Phase::kIdle : Phase::kStepping;
                          }),
            0);
}

TEST(Health, MajorFaultsAreAliveUpToACeiling) {
  EXPECT_EQ(SecondsToHang(Phase::kStepping, [](HealthSample& s, int) { ++s.major_faults; }), 15);
  EXPECT_EQ(SecondsToHang(Phase::kLoading, [](HealthSample& s, int) { ++s.major_faults; }), 60);
}

TEST(Health, TimeThatTheSupervisorItselfWasStoppedDoesNotCount) {
  HealthWatch watch;
  HealthSample sample;
  sample.phase = Phase::kStepping;
  EXPECT_TRUE(watch.Observe(sample, Limits()));
  sample.now_ms = 3'600'000;
  EXPECT_TRUE(watch.Observe(sample, Limits()));
  EXPECT_EQ(watch.stalled_ms(), 2'000);
  // Nor does a clock that goes back.
  sample.now_ms = 0;
  EXPECT_TRUE(watch.Observe(sample, Limits()));
}

}  // namespace
}  // namespace perdure::supervisor
