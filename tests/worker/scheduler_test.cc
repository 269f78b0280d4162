#include "worker/scheduler.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/kv_view.h"
#include "tests/worker/fake_model.h"
#include "tests/worker/test_store.h"

namespace perdure::worker {
namespace {

constexpr int kPage = engine::kPageTokens;

SchedulerLimits Limits(int sequences, int prefill, int resident = 256) {
  return {sequences, prefill, resident};
}

class SchedulerTest : public testing::Test {
 protected:
  void Start(const SchedulerLimits& limits, PageIndex pages) {
    store_ = MakeStore(kFakeKv, pages);
    scheduler_ = std::make_unique<Scheduler>(limits, store_.get());
  }
  // Plans a step, computes it, and gives every sequence that drew its token.
  StepPlan Step() {
    StepPlan plan = scheduler_->PlanStep();
    scheduler_->FinishStep(plan);
    for (const StepEntry& entry : plan.entries) {
      if (entry.draws) scheduler_->Append(entry.id);
    }
    return plan;
  }
  static std::vector<int> Counts(const StepPlan& plan) {
    std::vector<int> counts;
    for (const StepEntry& entry : plan.entries) counts.push_back(entry.count);
    return counts;
  }
  static std::vector<SequenceId> Ids(const StepPlan& plan) {
    std::vector<SequenceId> ids;
    for (const StepEntry& entry : plan.entries) ids.push_back(entry.id);
    return ids;
  }

  std::unique_ptr<shm::PageStore> store_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(SchedulerTest, AnEmptySchedulerPlansNothing) {
  Start(Limits(4, 64), 16);
  EXPECT_FALSE(scheduler_->HasWork());
  EXPECT_TRUE(scheduler_->PlanStep().entries.empty());
}

TEST_F(SchedulerTest, APromptIsCutIntoChunksAndThenDecoded) {
  Start(Limits(4, 64), 16);
  const SequenceId id = scheduler_->Add(150);
  const std::vector<std::pair<int, int>> expected = {{0, 64}, {64, 64}, {128, 22}, {150, 1}};
  for (const auto& [start, count] : expected) {
    const StepPlan plan = Step();
    ASSERT_EQ(plan.entries.size(), 1u);
    EXPECT_EQ(plan.entries[0].start, start);
    EXPECT_EQ(plan.entries[0].count, count);
    EXPECT_EQ(plan.entries[0].draws, start + count >= 150);
    EXPECT_GE(scheduler_->pages(id).size() * kPage, static_cast<size_t>(start + count));
  }
}

TEST_F(SchedulerTest, DecodingGoesOnBesideALongPrompt) {
  Start(Limits(4, 64), 64);
  const SequenceId a = scheduler_->Add(10);
  Step();
  const SequenceId b = scheduler_->Add(1000);
  for (int i = 0; i < 3; ++i) {
    const StepPlan plan = Step();
    EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{a, b}));
    EXPECT_EQ(Counts(plan), (std::vector<int>{1, 64}));
  }
}

TEST_F(SchedulerTest, PrefillsShareTheBudgetAndShortOnesLeaveTheirRest) {
  Start(Limits(4, 100), 64);
  scheduler_->Add(500);
  scheduler_->Add(20);
  scheduler_->Add(500);
  scheduler_->Add(10);
  // 10 and 20 are done at once; the long ones share the other 70, one of it set aside for the
  // first.
  EXPECT_EQ(Counts(Step()), (std::vector<int>{36, 20, 34, 10}));
  EXPECT_EQ(Counts(Step()), (std::vector<int>{51, 1, 49, 1}));
}

TEST_F(SchedulerTest, TheOldestAdvancesEvenWhereTheBudgetIsTiny) {
  Start(Limits(8, 2), 64);
  const SequenceId oldest = scheduler_->Add(100);
  for (int i = 0; i < 7; ++i) scheduler_->Add(3);
  for (int i = 0; i < 5; ++i) {
    const StepPlan plan = Step();
    ASSERT_FALSE(plan.entries.empty());
    EXPECT_EQ(plan.entries[0].id, oldest);
  }
}

TEST_F(SchedulerTest, MoreThanFitWaitInOrder) {
  Start(Limits(2, 64), 64);
  const SequenceId a = scheduler_->Add(5);
  const SequenceId b = scheduler_->Add(5);
  const SequenceId c = scheduler_->Add(5);
  const SequenceId d = scheduler_->Add(5);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{a, b}));
  EXPECT_EQ(scheduler_->waiting(), 2);
  scheduler_->Remove(a);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{b, c}));
  scheduler_->Remove(c);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{b, d}));
}

TEST_F(SchedulerTest, AClientWithManyDoesNotKeepAnotherOneWaiting) {
  Start(Limits(2, 64), 64);
  std::vector<SequenceId> flood;
  for (int i = 0; i < 10; ++i) flood.push_back(scheduler_->Add(5, {}, {.client = 1}));
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{flood[0], flood[1]}));
  const SequenceId other = scheduler_->Add(5, {}, {.client = 2});
  const SequenceId its_next = scheduler_->Add(5, {}, {.client = 2});
  // What runs goes on.
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{flood[0], flood[1]}));
  scheduler_->Remove(flood[0]);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{flood[1], other}));
  // Each has a place; who has none then is next.
  scheduler_->Remove(flood[1]);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{other, flood[2]}));
  scheduler_->Remove(other);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{flood[2], its_next}));
}

TEST_F(SchedulerTest, WithOnePlaceClientsTakeTurns) {
  Start(Limits(1, 64), 64);
  std::vector<SequenceId> flood;
  for (int i = 0; i < 4; ++i) flood.push_back(scheduler_->Add(5, {}, {.client = 1}));
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{flood[0]}));
  const SequenceId b = scheduler_->Add(5, {}, {.client = 2});
  const SequenceId c = scheduler_->Add(5, {}, {.client = 3});
  const SequenceId c2 = scheduler_->Add(5, {}, {.client = 3});
  for (const SequenceId next : {b, c, flood[1], c2, flood[2], flood[3]}) {
    for (const SequenceId running : Ids(Step())) scheduler_->Remove(running);
    EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{next}));
  }
}

TEST_F(SchedulerTest, WhoHadAPlaceElsewhereComesFirst) {
  Start(Limits(2, 64), 64);
  const SequenceId fresh = scheduler_->Add(5, {}, {.client = 1});
  const SequenceId a = scheduler_->Add(5, {}, {.client = 2, .had_place = true});
  const SequenceId b = scheduler_->Add(5, {}, {.client = 2, .had_place = true});
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{a, b}));
  scheduler_->Remove(b);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{a, fresh}));
}

TEST_F(SchedulerTest, WhoWasLetInLaterGivesItsPagesFirstThoughItCameEarlier) {
  Start(Limits(2, 1000), 4);
  const SequenceId first = scheduler_->Add(kPage, {}, {.client = 1});
  const SequenceId early = scheduler_->Add(kPage, {}, {.client = 1});
  scheduler_->SetBlocked(early, true);
  const SequenceId late = scheduler_->Add(kPage, {}, {.client = 2});
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{first, late}));
  scheduler_->SetBlocked(early, false);
  scheduler_->Remove(first);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{late, early}));
  while (true) {
    const StepPlan plan = Step();
    if (plan.preempted.empty()) continue;
    EXPECT_EQ(plan.preempted, (std::vector<SequenceId>{early}));
    break;
  }
}

TEST_F(SchedulerTest, AnEarlierOneWithoutRoomIsNotOvertaken) {
  Start(Limits(4, 1000), 10);
  const SequenceId a = scheduler_->Add(6 * kPage);
  Step();
  const SequenceId big = scheduler_->Add(8 * kPage);
  const SequenceId small = scheduler_->Add(1);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{a}));
  scheduler_->Remove(a);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{big, small}));
}

TEST_F(SchedulerTest, TheYoungestGivesItsPagesAndStartsAgain) {
  Start(Limits(4, 1000), 4);
  const SequenceId a = scheduler_->Add(kPage);
  const SequenceId b = scheduler_->Add(kPage);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{a, b}));
  // Both take a second page; at the third the pool is empty.
  for (int i = 0; i < kPage; ++i) EXPECT_EQ(Step().preempted.size(), 0u);
  const StepPlan plan = Step();
  EXPECT_EQ(plan.preempted, (std::vector<SequenceId>{b}));
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{a}));
  EXPECT_TRUE(scheduler_->pages(b).empty());
  scheduler_->Remove(a);
  const StepPlan again = Step();
  ASSERT_EQ(Ids(again), (std::vector<SequenceId>{b}));
  EXPECT_EQ(again.entries[0].start, 0);
  EXPECT_EQ(again.entries[0].count, 2 * kPage + 1);
  EXPECT_TRUE(again.entries[0].draws);
}

TEST_F(SchedulerTest, ABlockedSequenceHoldsNoPlaceButItsPages) {
  Start(Limits(1, 64), 8);
  const SequenceId a = scheduler_->Add(5);
  Step();
  scheduler_->SetBlocked(a, true);
  EXPECT_FALSE(scheduler_->HasWork());
  const SequenceId b = scheduler_->Add(5);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{b}));
  EXPECT_EQ(scheduler_->pages(a).size(), 1u);
  scheduler_->SetBlocked(a, false);
  const StepPlan plan = Step();
  ASSERT_EQ(Ids(plan), (std::vector<SequenceId>{a}));
  EXPECT_EQ(plan.entries[0].start, 5);
}

TEST_F(SchedulerTest, ABlockedSequenceLosesItsPagesFirst) {
  Start(Limits(2, 1000), 4);
  const SequenceId slow = scheduler_->Add(2 * kPage - 1);
  Step();
  scheduler_->SetBlocked(slow, true);
  const SequenceId next = scheduler_->Add(4 * kPage);
  const StepPlan plan = Step();
  EXPECT_EQ(plan.preempted, (std::vector<SequenceId>{slow}));
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{next}));
}

TEST_F(SchedulerTest, BlockedOnesInResidenceAreBounded) {
  Start(Limits(1, 64, 2), 64);
  std::vector<SequenceId> slow;
  for (int i = 0; i < 5; ++i) {
    slow.push_back(scheduler_->Add(3));
    EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{slow.back()}));
    EXPECT_LE(scheduler_->resident(), 2);
    scheduler_->SetBlocked(slow.back(), true);
  }
  scheduler_->SetBlocked(slow[0], false);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{slow[0]}));
}

TEST_F(SchedulerTest, WhatNeverFitsFailsAlone) {
  Start(Limits(2, 1000), 2);
  const SequenceId huge = scheduler_->Add(3 * kPage);
  const SequenceId fine = scheduler_->Add(3);
  const StepPlan plan = Step();
  EXPECT_EQ(plan.out_of_memory, (std::vector<SequenceId>{huge}));
  EXPECT_EQ(Ids(plan), (std::vector<SequenceId>{fine}));
}

TEST_F(SchedulerTest, WhatOutgrowsThePoolAloneFails) {
  Start(Limits(2, 1000), 2);
  const SequenceId id = scheduler_->Add(2 * kPage - 1);
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{id}));
  EXPECT_EQ(Ids(Step()), (std::vector<SequenceId>{id}));
  const StepPlan plan = scheduler_->PlanStep();
  EXPECT_EQ(plan.out_of_memory, (std::vector<SequenceId>{id}));
  EXPECT_EQ(store_->used(), 0u);
  EXPECT_FALSE(scheduler_->HasWork());
}

TEST_F(SchedulerTest, RemovingFreesPagesInEveryState) {
  Start(Limits(1, 8), 8);
  const SequenceId waiting_never_run = scheduler_->Add(5);
  scheduler_->Remove(waiting_never_run);
  const SequenceId prefilling = scheduler_->Add(50);
  Step();
  EXPECT_GT(store_->used(), 0u);
  scheduler_->Remove(prefilling);
  EXPECT_EQ(store_->used(), 0u);
  EXPECT_FALSE(scheduler_->HasWork());
}

}  // namespace
}  // namespace perdure::worker
