#include "supervisor/residency.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace perdure::supervisor {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Action = ResidencyAction;

constexpr ResidencyLimits kLimits{.budget_bytes = 100, .residency_least_ms = 1000};

ModelUse Absent(uint64_t process_bytes = 30, uint64_t arena_bytes = 0) {
  ModelUse model;
  model.process_bytes = process_bytes;
  model.kv_bytes = model.kv_used_bytes = arena_bytes;
  model.kv_least_bytes = 10;
  return model;
}
ModelUse Ready(uint64_t process_bytes = 30, uint64_t kv_bytes = 10) {
  ModelUse model = Absent(process_bytes, kv_bytes);
  model.presence = Presence::kReady;
  return model;
}
ModelUse Asked(ModelUse model, int64_t since_ms) {
  model.waiting = 1;
  model.waiting_since_ms = since_ms;
  return model;
}
ModelUse Running(ModelUse model) {
  model.running = 1;
  return model;
}
ModelUse UsedAt(ModelUse model, int64_t used_ms) {
  model.used_ms = used_ms;
  return model;
}
ModelUse Pinned(ModelUse model) {
  model.pinned = true;
  return model;
}

ResidencyStep Step(size_t model, Action action, uint64_t kv_bytes = 0) {
  return {model, action, kv_bytes};
}

std::vector<ResidencyStep> Steps(std::vector<ModelUse> models, int64_t now_ms = 10'000) {
  return PlanResidency(models, kLimits, now_ms).steps;
}

TEST(Residency, WhatIsAskedForIsLoadedIfItFits) {
  EXPECT_THAT(Steps({Ready(), Absent()}), IsEmpty());
  EXPECT_THAT(Steps({Ready(), Asked(Absent(), 1)}), ElementsAre(Step(1, Action::kLoad)));
  // Both at once, if there is room: 40 + 40 of 60.
  EXPECT_THAT(Steps({Ready(), Asked(Absent(), 2), Asked(Absent(), 1)})[0], Step(2, Action::kLoad));
}

TEST(Residency, WhatIsToBeLoadedAtStartIsAsFarAsThereIsRoom) {
  ModelUse wanted = Absent();
  wanted.wants_preload = true;
  EXPECT_THAT(Steps({wanted, wanted, wanted}),
              ElementsAre(Step(0, Action::kLoad), Step(1, Action::kLoad)));
}

TEST(Residency, IdleModelsAreUnloadedInTime) {
  ModelUse idle = Ready();
  idle.idle_deadline_ms = 10'500;
  ResidencyPlan plan = PlanResidency(std::vector{idle}, kLimits, 10'499);
  EXPECT_THAT(plan.steps, IsEmpty());
  EXPECT_EQ(plan.deadline_ms, 10'500);
  EXPECT_THAT(Steps({idle}, 10'500), ElementsAre(Step(0, Action::kUnload)));
  EXPECT_THAT(Steps({Running(idle)}, 10'500), IsEmpty());
  EXPECT_THAT(Steps({Asked(idle, 1)}, 10'500), IsEmpty());
  EXPECT_THAT(Steps({Pinned(idle)}, 10'500), IsEmpty());

  ModelUse arena = Absent(30, 20);
  arena.arena_deadline_ms = 10'500;
  EXPECT_THAT(Steps({arena}, 10'499), IsEmpty());
  EXPECT_THAT(Steps({arena}, 10'500), ElementsAre(Step(0, Action::kDropArena)));
}

TEST(Residency, ArenasOfAbsentModelsGoFirst) {
  EXPECT_THAT(Steps({UsedAt(Ready(), 5), UsedAt(Absent(30, 36), 9), UsedAt(Absent(30, 20), 8),
                     Asked(Absent(), 1)}),
              ElementsAre(Step(1, Action::kDropArena)));  // 4 are free, 40 needed
}

TEST(Residency, ThenKvThatIsNotUsed) {
  ModelUse spare = Running(Ready(30, 50));
  spare.kv_used_bytes = 20;
  EXPECT_THAT(Steps({spare, Asked(Absent(), 1)}), ElementsAre(Step(0, Action::kShrink, 20)));
}

TEST(Residency, ThenIdleModelsTheLeastRecentlyUsedFirst) {
  EXPECT_THAT(Steps({UsedAt(Ready(), 7), UsedAt(Ready(), 5), Asked(Absent(), 1)}),
              ElementsAre(Step(1, Action::kUnload)));
  EXPECT_THAT(Steps({UsedAt(Ready(), 7), UsedAt(Pinned(Ready()), 5), Asked(Absent(), 1)}),
              ElementsAre(Step(0, Action::kUnload)));
  EXPECT_THAT(Steps({UsedAt(Ready(), 7), UsedAt(Running(Ready()), 5), Asked(Absent(), 1)}),
              ElementsAre(Step(0, Action::kUnload)));
}

TEST(Residency, NoMoreGoesThanIsNeeded) {
  // The small one alone is not enough, the large one is.
  EXPECT_THAT(Steps({UsedAt(Ready(5, 10), 5), UsedAt(Ready(40, 10), 7), Asked(Absent(50), 1)}),
              ElementsAre(Step(1, Action::kUnload)));
}

TEST(Residency, WhatHasJustComeStaysForAWhile) {
  ModelUse young = Ready(60);
  young.present_since_ms = 9'500;
  const ResidencyPlan plan = PlanResidency(std::vector{young, Asked(Absent(), 1)}, kLimits, 10'000);
  EXPECT_THAT(plan.steps, IsEmpty());
  EXPECT_EQ(plan.deadline_ms, 10'500);
  EXPECT_THAT(Steps({young, Asked(Absent(), 1)}, 10'500), ElementsAre(Step(0, Action::kUnload)));
}

TEST(Residency, ModelsTakeTurnsAndFinishWhatRuns) {
  const ModelUse busy = Running(Ready(60));
  EXPECT_THAT(Steps({busy, Asked(Absent(), 1)}), ElementsAre(Step(0, Action::kYield)));
  // Its answer has ended, and the next one waits already.
  EXPECT_THAT(Steps({Asked(Ready(60), 9'000), Asked(Absent(), 1)}),
              ElementsAre(Step(0, Action::kUnload)));
  ModelUse leaving = busy;
  leaving.presence = Presence::kLeaving;
  leaving.running = 0;
  EXPECT_THAT(Steps({leaving, Asked(Absent(), 1)}), IsEmpty());
}

TEST(Residency, WhatHasComeForARequestServesIt) {
  // It has just become ready for the one that waits for the longest time, which it has not got yet.
  EXPECT_THAT(Steps({Asked(Ready(60), 1), Asked(Absent(), 2)}), IsEmpty());
  EXPECT_THAT(Steps({Asked(Ready(60), 3), Asked(Absent(), 2)}),
              ElementsAre(Step(0, Action::kUnload)));
}

TEST(Residency, CachedKvGoesBeforeABusyModelDoes) {
  EXPECT_THAT(Steps({Running(Ready(30, 50)), Asked(Absent(), 1)}),
              ElementsAre(Step(0, Action::kShrink, 10)));
}

TEST(Residency, NobodyOvertakes) {
  // The younger one would fit into what is free, but the older one needs it.
  EXPECT_THAT(Steps({Running(Ready(60)), Asked(Absent(50), 1), Asked(Absent(10), 2)}),
              ElementsAre(Step(0, Action::kYield)));
}

TEST(Residency, WhatCanNeverFitIsToldAndInNobodysWay) {
  const std::vector<ModelUse> models{Pinned(Ready(60)), Asked(Absent(), 1), Asked(Absent(10), 2)};
  const ResidencyPlan plan = PlanResidency(models, kLimits, 10'000);
  EXPECT_THAT(plan.missing_bytes, ElementsAre(0u, 10u, 0u));
  EXPECT_THAT(plan.steps, ElementsAre(Step(2, Action::kLoad)));
}

TEST(Residency, WhatAModelCannotGiveBackNowItMayLater) {
  ModelUse busy = Pinned(Running(Ready(30, 50)));
  busy.kv_floor_bytes = 45;
  const std::vector<ModelUse> models{busy, Asked(Absent(), 1)};
  const ResidencyPlan plan = PlanResidency(models, kLimits, 10'000);
  EXPECT_THAT(plan.missing_bytes, ElementsAre(0u, 0u)) << "it is waited for, not refused";
  for (const ResidencyStep& step : plan.steps) EXPECT_EQ(step, Step(0, Action::kShrink, 45));
  busy.kv_floor_bytes = 0;
  EXPECT_THAT(Steps({busy, Asked(Absent(), 1)}), ElementsAre(Step(0, Action::kShrink, 10)));
}

TEST(Residency, KvGrowsAsFarAsThereIsRoom) {
  ModelUse grows = Running(Ready(30, 10));
  grows.kv_wanted_bytes = 60;
  EXPECT_THAT(Steps({grows}), ElementsAre(Step(0, Action::kGrant, 60)));
  EXPECT_THAT(Steps({grows, Absent(30, 20)}), ElementsAre(Step(1, Action::kDropArena)));
  EXPECT_THAT(Steps({grows, Ready()}), ElementsAre(Step(1, Action::kUnload)));
  EXPECT_THAT(Steps({grows, Running(Ready())}), ElementsAre(Step(0, Action::kGrant, 30)));
  EXPECT_THAT(Steps({grows, Running(Ready(50))}), ElementsAre(Step(0, Action::kRefuse)));
}

// The budget was made smaller, or somebody takes more than was reckoned.
TEST(Residency, WhatIsHeldBeyondTheBudgetGoes) {
  EXPECT_THAT(Steps({UsedAt(Ready(50), 7), UsedAt(Ready(50), 5)}),
              ElementsAre(Step(1, Action::kUnload)));
  EXPECT_THAT(Steps({Ready(70), Absent(30, 30)}), ElementsAre(Step(1, Action::kDropArena)));
  EXPECT_THAT(Steps({Pinned(Ready(70, 40))}), ElementsAre(Step(0, Action::kShrink, 10)));
  EXPECT_THAT(Steps({Pinned(Ready(95))}), IsEmpty()) << "it is pinned";
  EXPECT_THAT(Steps({Running(Ready(70, 40))}), ElementsAre(Step(0, Action::kShrink, 10)));
  // Answers are finished.
  const ModelUse busy = Running(Ready(50));
  EXPECT_THAT(Steps({busy, busy}), ElementsAre(Step(0, Action::kYield)));
  ModelUse leaving = Ready(50);
  leaving.presence = Presence::kLeaving;
  EXPECT_THAT(Steps({busy, leaving}), IsEmpty()) << "it has gone already";
}

TEST(Residency, NobodyGetsMoreWhileTooMuchIsHeld) {
  ModelUse grows = Running(Ready(50));
  grows.kv_wanted_bytes = 20;
  EXPECT_THAT(Steps({grows, Ready(45), Asked(Absent(1), 1)}),
              testing::UnorderedElementsAre(Step(0, Action::kRefuse), Step(1, Action::kUnload)));
}

TEST(Residency, AFailedModelHoldsNothing) {
  ModelUse failed = Ready(60, 0);
  failed.presence = Presence::kFailed;
  EXPECT_THAT(Steps({failed, Asked(Absent(60), 1)}), ElementsAre(Step(1, Action::kLoad)));
}

}  // namespace
}  // namespace perdure::supervisor
