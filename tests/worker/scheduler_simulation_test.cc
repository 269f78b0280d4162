// Random arrivals, ends, cancels and slow clients against a scheduler with too few pages.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "engine/kv_view.h"
#include "tests/worker/fake_model.h"
#include "tests/worker/test_store.h"
#include "worker/scheduler.h"

namespace perdure::worker {
namespace {

class Simulation {
 public:
  explicit Simulation(uint32_t seed)
      : random_(seed),
        limits_{Pick(1, 6), Pick(1, 200), 0},
        pages_(static_cast<PageIndex>(Pick(4, 24))),
        store_(MakeStore(kFakeKv, pages_)),
        scheduler_(WithResidents(), store_.get()) {}

  void Run() {
    for (int i = 0; i < 400; ++i) {
      if (Pick(0, 3) == 0) Arrive();
      if (Pick(0, 15) == 0) CancelOne();
      if (Pick(0, 5) == 0) ToggleOne();
      if (Pick(0, 8) == 0) Accuse();
      Step();
      if (testing::Test::HasFailure()) return;
    }
    for (auto& [id, s] : live_) Block(id, false);
    // Everything left ends: each step advances the oldest in residence by at least a token, and
    // starting again costs at most the whole context once per older sequence.
    int steps = 0;
    while (!live_.empty() && ++steps < 200'000 && !testing::Test::HasFailure()) Step();
    EXPECT_TRUE(live_.empty());
    EXPECT_EQ(store_->used(), 0u);
    EXPECT_EQ(ended_ + cancelled_ + out_of_memory_, arrived_);
  }

  int preemptions() const { return preemptions_; }
  int trials() const { return trials_; }
  int out_of_memory() const { return out_of_memory_; }

 private:
  struct Mirror {
    int tokens = 0;
    int computed = 0;
    int target = 0;
    bool blocked = false;
    bool resident = false;
    bool suspect = false;
  };

  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  SchedulerLimits WithResidents() {
    limits_.resident_max = limits_.sequences_max + Pick(0, 4);
    return limits_;
  }

  void Arrive() {
    // Now and then one that cannot fit however long it waits.
    const int room = static_cast<int>(pages_) * engine::kPageTokens;
    const int prompt = Pick(1, Pick(0, 20) == 0 ? room + 40 : room / 2);
    const SequenceId id = scheduler_.Add(prompt);
    EXPECT_TRUE(live_.empty() || live_.rbegin()->first < id);
    live_[id] = {prompt, 0, prompt + Pick(1, 80)};
    ++arrived_;
  }

  void CancelOne() {
    if (live_.empty()) return;
    const SequenceId id = AnyLive();
    scheduler_.Remove(id);
    live_.erase(id);
    ++cancelled_;
  }

  void ToggleOne() {
    if (live_.empty()) return;
    const SequenceId id = AnyLive();
    Block(id, !live_[id].blocked);
  }

  void Accuse() {
    if (live_.empty()) return;
    const SequenceId id = AnyLive();
    live_[id].suspect = !live_[id].suspect;
    scheduler_.SetSuspect(id, live_[id].suspect);
    left_out_ = 0;
  }

  void Block(SequenceId id, bool blocked) {
    live_[id].blocked = blocked;
    scheduler_.SetBlocked(id, blocked);
  }

  SequenceId AnyLive() {
    auto it = live_.begin();
    std::advance(it, Pick(0, static_cast<int>(live_.size()) - 1));
    return it->first;
  }

  void Step() {
    const bool had_work = scheduler_.HasWork();
    const StepPlan plan = scheduler_.PlanStep();
    EXPECT_EQ(had_work, !plan.entries.empty() || !plan.out_of_memory.empty());
    for (SequenceId id : plan.preempted) {
      ++preemptions_;
      live_.at(id).computed = 0;
      live_.at(id).resident = false;
    }
    for (SequenceId id : plan.out_of_memory) {
      live_.erase(id);
      ++out_of_memory_;
    }
    CheckPages();
    CheckPlan(plan);
    scheduler_.FinishStep(plan);
    for (const StepEntry& entry : plan.entries) {
      Mirror& mirror = live_.at(entry.id);
      mirror.computed += entry.count;
      EXPECT_EQ(entry.draws, mirror.computed == mirror.tokens);
      if (!entry.draws) continue;
      if (++mirror.tokens > mirror.target) {
        scheduler_.Remove(entry.id);
        live_.erase(entry.id);
        ++ended_;
      } else {
        scheduler_.Append(entry.id);
      }
    }
  }

  static bool Planned(const StepPlan& plan, SequenceId id) {
    return std::any_of(plan.entries.begin(), plan.entries.end(),
                       [id](const StepEntry& entry) { return entry.id == id; });
  }

  void CheckPages() {
    std::set<PageIndex> seen;
    size_t total = 0;
    for (auto& [id, mirror] : live_) {
      for (PageIndex page : scheduler_.pages(id)) {
        EXPECT_TRUE(seen.insert(page).second) << "page " << page << " has two owners";
        EXPECT_LT(page, pages_);
        ++total;
      }
    }
    EXPECT_EQ(total, store_->used());
    EXPECT_LE(scheduler_.resident(), limits_.resident_max);
  }

  void CheckPlan(const StepPlan& plan) {
    EXPECT_LE(static_cast<int>(plan.entries.size()), limits_.sequences_max);
    int prefill = 0;
    bool trial = false;
    SequenceId last = 0;
    for (const StepEntry& entry : plan.entries) {
      EXPECT_LT(last, entry.id);
      last = entry.id;
      const Mirror& mirror = live_.at(entry.id);
      EXPECT_FALSE(mirror.blocked);
      trial = trial || mirror.suspect;
      EXPECT_EQ(entry.start, mirror.computed);
      EXPECT_GE(entry.count, 1);
      EXPECT_LE(entry.start + entry.count, mirror.tokens);
      if (mirror.tokens - mirror.computed > 1) prefill += entry.count;
      EXPECT_GE(scheduler_.pages(entry.id).size() * engine::kPageTokens,
                static_cast<size_t>(entry.start + entry.count));
    }
    EXPECT_LE(prefill, limits_.prefill_tokens_per_step);
    if (trial) {
      EXPECT_EQ(plan.entries.size(), 1u) << "a suspect is computed alone";
    }
    trials_ += trial ? 1 : 0;
    // First come, first served: who was let in now is older than all that still could be.
    SequenceId youngest_new = 0;
    SequenceId oldest_waiting = ~SequenceId{0};
    bool oldest_resident_seen = false;
    for (auto& [id, mirror] : live_) {
      const bool resident = !scheduler_.pages(id).empty();
      if (resident && !mirror.resident) youngest_new = id;
      mirror.resident = resident;
      if (mirror.blocked) continue;
      if (!resident) oldest_waiting = std::min(oldest_waiting, id);
      if (resident && !oldest_resident_seen) {
        oldest_resident_seen = true;
        // Of two steps in a row one belongs to a suspect and one to the others.
        const bool planned = Planned(plan, id);
        EXPECT_TRUE(planned || (trial != mirror.suspect && left_out_ != id))
            << "the oldest in residence was left out";
        left_out_ = planned ? 0 : id;
      }
    }
    EXPECT_LT(youngest_new, oldest_waiting);
  }

  std::mt19937 random_;
  SchedulerLimits limits_;
  const PageIndex pages_;
  std::unique_ptr<shm::PageStore> store_;
  Scheduler scheduler_;
  std::map<SequenceId, Mirror> live_;
  int arrived_ = 0, ended_ = 0, cancelled_ = 0, out_of_memory_ = 0, preemptions_ = 0;
  int trials_ = 0;
  SequenceId left_out_ = 0;  // of the last step
};

TEST(SchedulerSimulationTest, InvariantsHoldUnderRandomLoad) {
  int preemptions = 0;
  int trials = 0;
  int out_of_memory = 0;
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation simulation(seed);
    simulation.Run();
    preemptions += simulation.preemptions();
    trials += simulation.trials();
    out_of_memory += simulation.out_of_memory();
    if (HasFailure()) return;
  }
  // The simulation reaches what it is for.
  EXPECT_GT(preemptions, 100);
  EXPECT_GT(trials, 1000);
  EXPECT_GT(out_of_memory, 10);
}

}  // namespace
}  // namespace perdure::worker
