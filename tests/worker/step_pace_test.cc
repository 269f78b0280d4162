#include "worker/step_pace.h"

#include <gtest/gtest.h>

#include "base/limits.h"

namespace perdure::worker {
namespace {

constexpr int64_t kTargetUs = int64_t{limits::kStepTargetMs} * 1000;

// Steps of a machine that takes `us_per_token`, each as full as the pace allows.
int Settle(StepPace* pace, int64_t us_per_token, int steps = 50) {
  for (int i = 0; i < steps; ++i) pace->Note(pace->tokens(), pace->tokens() * us_per_token);
  return pace->tokens();
}

TEST(StepPace, FitsStepsToTheTarget) {
  for (const int64_t us_per_token : {2'000, 5'000, 20'000}) {
    StepPace pace(256);
    const int tokens = Settle(&pace, us_per_token);
    EXPECT_LE(tokens * us_per_token, kTargetUs);
    EXPECT_GE((tokens + 1) * us_per_token, kTargetUs) << "as many as fit";
  }
}

TEST(StepPace, StaysWithinItsBounds) {
  StepPace fast(256);
  EXPECT_EQ(Settle(&fast, 1), 256);
  StepPace slow(256);
  EXPECT_EQ(Settle(&slow, 10'000'000), limits::kPrefillTokensPerStepMin);
  StepPace small(3);
  EXPECT_EQ(small.tokens(), 3);
  EXPECT_EQ(Settle(&small, 10'000'000), 3);
}

TEST(StepPace, GrowsByDoublingAndShrinksAtOnce) {
  StepPace pace(1024);
  const int first = pace.tokens();
  pace.Note(first, 1);
  EXPECT_EQ(pace.tokens(), 2 * first);
  pace.Note(2 * first, 4 * kTargetUs);
  EXPECT_EQ(pace.tokens(), first / 2);
}

TEST(StepPace, AStepThatWasNotFullIsNoReasonToGrow) {
  StepPace pace(256);
  const int first = pace.tokens();
  pace.Note(first - 1, 1);
  EXPECT_EQ(pace.tokens(), first);
  pace.Note(0, 1);
  pace.Note(first, 0);
  EXPECT_EQ(pace.tokens(), first);
}

}  // namespace
}  // namespace perdure::worker
