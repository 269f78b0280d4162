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

constexpr int kClients = 3;

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
  int passed_over() const { return passed_over_; }

 private:
  struct Mirror {
    uint64_t client = 0;
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
    const auto client = static_cast<uint64_t>(Pick(1, kClients));
    const SequenceId id = scheduler_.Add(prompt, {}, {.client = client});
    EXPECT_TRUE(live_.empty() || live_.rbegin()->first < id);
    live_[id] = {client, prompt, 0, prompt + Pick(1, 80)};
    ++arrived_;
  }

  void CancelOne() {
    if (live_.empty()) return;
    Remove(AnyLive());
    ++cancelled_;
  }

  void Remove(SequenceId id) {
    served_[live_.at(id).client].clear();
    scheduler_.Remove(id);
    live_.erase(id);
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
      served_[live_.at(id).client].clear();
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
        Remove(entry.id);
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
    uint64_t last = 0;
    for (const StepEntry& entry : plan.entries) {
      EXPECT_LT(last, scheduler_.rank(entry.id));
      last = scheduler_.rank(entry.id);
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
    // Who had to give up its pages comes back before others get theirs, in the order of ranks; of
    // one client, first come, first served.
    std::map<uint64_t, SequenceId> residents;  // by rank
    uint64_t latest_back = 0;
    uint64_t first_out = ~uint64_t{0};
    std::vector<std::pair<uint64_t, SequenceId>> let_in;  // with their ranks
    std::map<uint64_t, SequenceId> first_waiting;         // of each client
    for (auto& [id, mirror] : live_) {
      const bool resident = !scheduler_.pages(id).empty();
      const uint64_t rank = scheduler_.rank(id);
      if (resident && !mirror.resident) {
        if (rank > last_rank_) let_in.emplace_back(rank, id);
        latest_back = std::max(latest_back, rank);
      }
      mirror.resident = resident;
      if (mirror.blocked) continue;
      if (resident)
        residents.emplace(rank, id);
      else if (rank != 0)
        first_out = std::min(first_out, rank);
      else
        first_waiting.emplace(mirror.client, id);
    }
    EXPECT_LT(latest_back, first_out);
    if (!residents.empty()) {
      // Of two steps in a row one belongs to a suspect and one to the others.
      const SequenceId id = residents.begin()->second;
      const bool planned = Planned(plan, id);
      EXPECT_TRUE(planned || (trial != live_.at(id).suspect && left_out_ != id))
          << "the oldest in residence was left out";
      left_out_ = planned ? 0 : id;
    }
    std::sort(let_in.begin(), let_in.end());
    for (const auto& [rank, id] : let_in) {
      EXPECT_EQ(rank, ++last_rank_);
      const uint64_t client = live_.at(id).client;
      const auto waiting = first_waiting.find(client);
      EXPECT_TRUE(waiting == first_waiting.end() || id < waiting->second);
      served_[client].clear();
      NoteServed(client, first_waiting, residents);
    }
    // Who could not have been served has not been passed over.
    for (uint64_t client = 1; client <= kClients; ++client)
      if (!first_waiting.contains(client) || HasPlace(client, residents)) served_[client].clear();
  }

  bool HasPlace(uint64_t client, const std::map<uint64_t, SequenceId>& residents) const {
    return std::ranges::any_of(
        residents, [&](const auto& one) { return live_.at(one.second).client == client; });
  }

  // While a client that has no place waits, each other one gets a single place.
  void NoteServed(uint64_t client, const std::map<uint64_t, SequenceId>& waiting,
                  const std::map<uint64_t, SequenceId>& residents) {
    for (const auto& [other, id] : waiting) {
      if (other == client || HasPlace(other, residents)) continue;
      EXPECT_TRUE(served_[other].insert(client).second)
          << "client " << client << " was served twice while client " << other << " waited";
    }
    passed_over_ += waiting.size() > 1;
  }

  std::mt19937 random_;
  SchedulerLimits limits_;
  const PageIndex pages_;
  std::unique_ptr<shm::PageStore> store_;
  Scheduler scheduler_;
  std::map<SequenceId, Mirror> live_;
  int arrived_ = 0, ended_ = 0, cancelled_ = 0, out_of_memory_ = 0, preemptions_ = 0;
  int trials_ = 0;
  int passed_over_ = 0;
  uint64_t last_rank_ = 0;
  // Who was served while this client had no place and waited.
  std::map<uint64_t, std::set<uint64_t>> served_;
  SequenceId left_out_ = 0;  // of the last step
};

TEST(SchedulerSimulationTest, InvariantsHoldUnderRandomLoad) {
  int preemptions = 0;
  int trials = 0;
  int out_of_memory = 0;
  int passed_over = 0;
  for (uint32_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation simulation(seed);
    simulation.Run();
    preemptions += simulation.preemptions();
    trials += simulation.trials();
    out_of_memory += simulation.out_of_memory();
    passed_over += simulation.passed_over();
    if (HasFailure()) return;
  }
  // The simulation reaches what it is for.
  EXPECT_GT(preemptions, 100);
  EXPECT_GT(trials, 1000);
  EXPECT_GT(out_of_memory, 10);
  EXPECT_GT(passed_over, 100);
}

}  // namespace
}  // namespace perdure::worker
