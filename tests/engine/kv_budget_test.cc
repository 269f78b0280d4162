#include "engine/kv_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/kv_view.h"

namespace perdure::engine {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;

KvBudgetInputs Inputs() {
  KvBudgetInputs in;
  in.model_context = 1024;  // 32 pages
  in.sequences_max = 8;
  in.page_bytes = kMiB;
  in.memory = {.capacity = 8000 * kMiB, .available = 4000 * kMiB};
  in.claimed_bytes = 1000 * kMiB;
  return in;
}

TEST(KvBudget, PlentyOfMemoryGivesEverySequenceAContext) {
  const auto budget = DeriveKvBudget(Inputs());
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 8u * 32);
  EXPECT_EQ(budget->max_context, 1024);
  EXPECT_EQ(budget->bound, ContextBound::kModel);
  EXPECT_EQ(budget->reason, "which is 8 whole contexts (max_sequences)");
  EXPECT_THAT(budget->warnings, IsEmpty());
}

TEST(KvBudget, TakesHalfOfLess) {
  KvBudgetInputs in = Inputs();
  in.memory.available = 200 * kMiB;
  const auto budget = DeriveKvBudget(in);
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 100u);
  EXPECT_EQ(budget->max_context, 1024);
  EXPECT_THAT(budget->reason, HasSubstr("200 MiB of available memory"));
}

TEST(KvBudget, CutsTheContextWhereHalfIsTooLittle) {
  KvBudgetInputs in = Inputs();
  in.memory.available = 20 * kMiB;
  const auto budget = DeriveKvBudget(in);
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 10u);
  EXPECT_EQ(budget->max_context, 10 * kPageTokens);
  EXPECT_EQ(budget->bound, ContextBound::kMemory);
  EXPECT_THAT(
      budget->warnings,
      ElementsAre(HasSubstr("1024 tokens of context take 32 MiB of KV, the budget has 10 MiB "
                            "(derived from 20 MiB of available memory): 320 tokens")));
}

TEST(KvBudget, LeavesWhatIsClaimed) {
  KvBudgetInputs in = Inputs();
  in.model_context = 1 << 20;
  EXPECT_EQ(DeriveKvBudget(in)->pages_max, 2000u);
  in.claimed_bytes = 6000 * kMiB;  // 2000 are left, though 4000 are free now
  EXPECT_EQ(DeriveKvBudget(in)->pages_max, 1000u);
  // Claims are estimates: they never take all.
  in.claimed_bytes = 9000 * kMiB;
  EXPECT_EQ(DeriveKvBudget(in)->pages_max, 500u);
  in.claimed_bytes = ~uint64_t{0};
  EXPECT_EQ(DeriveKvBudget(in)->pages_max, 500u);
}

TEST(KvBudget, FollowsTheConfig) {
  KvBudgetInputs in = Inputs();
  in.kv_bytes_max = 40 * kMiB + 5;
  in.max_context = 500;
  const auto budget = DeriveKvBudget(in);
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 40u);
  EXPECT_EQ(budget->max_context, 500);
  EXPECT_EQ(budget->bound, ContextBound::kConfig);
  EXPECT_THAT(budget->warnings, IsEmpty());
  in.kv_bytes_max = 2 * kMiB;
  EXPECT_EQ(DeriveKvBudget(in)->max_context, 2 * kPageTokens);
  EXPECT_EQ(DeriveKvBudget(in)->bound, ContextBound::kMemory);
  EXPECT_THAT(DeriveKvBudget(in)->warnings, ElementsAre(HasSubstr("raise kv_bytes_max")));
}

TEST(KvBudget, AContextBeyondTheModelsIsCutAndSaid) {
  KvBudgetInputs in = Inputs();
  in.max_context = 1024;
  EXPECT_THAT(DeriveKvBudget(in)->warnings, IsEmpty());
  in.max_context = 1025;
  EXPECT_EQ(DeriveKvBudget(in)->max_context, 1024);
  EXPECT_EQ(DeriveKvBudget(in)->bound, ContextBound::kModel);
  EXPECT_THAT(DeriveKvBudget(in)->warnings,
              ElementsAre("max_context is 1025, but the model was made for 1024 tokens: it serves "
                          "1024"));
}

TEST(KvBudget, MoreThanIsAvailableIsSaid) {
  KvBudgetInputs in = Inputs();
  in.kv_bytes_max = 100 * kMiB;
  in.memory.available = 50 * kMiB;
  EXPECT_EQ(DeriveKvBudget(in)->pages_max, 100u);
  EXPECT_THAT(DeriveKvBudget(in)->warnings, ElementsAre(HasSubstr("only 50 MiB of memory")));
}

TEST(KvBudget, RefusesLessThanAPage) {
  KvBudgetInputs in = Inputs();
  in.kv_bytes_max = kMiB - 1;
  EXPECT_EQ(DeriveKvBudget(in).error().code, ErrorCode::out_of_memory);
  in.kv_bytes_max = 0;
  in.memory = {};
  EXPECT_EQ(DeriveKvBudget(in).error().code, ErrorCode::out_of_memory);
}

}  // namespace
}  // namespace perdure::engine
