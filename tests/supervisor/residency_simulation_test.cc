// Models that come and go as PlanResidency says, under seeded requests and deaths: the budget is
// never exceeded, what runs is never unloaded, nobody waits for ever.

#include <gtest/gtest.h>

#include <deque>
#include <random>
#include <sstream>
#include <string>

#include "supervisor/residency.h"

namespace perdure::supervisor {
namespace {

constexpr int64_t kResidencyMsMax = 500;
constexpr int64_t kLoadMsMax = 200, kUnloadMsMax = 100, kAnswerMsMax = 2'000;

class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    const size_t count = Draw(1, 6);
    for (size_t i = 0; i < count; ++i) {
      Model model;
      model.use.process_bytes = Draw(1, 60);
      model.use.kv_least_bytes = Draw(1, 10);
      model.use.pinned = Draw(0, 9) == 0;
      model.use.wants_preload = model.use.pinned || Draw(0, 1) == 0;
      if (Draw(0, 1) == 0) model.idle_ms = static_cast<int64_t>(Draw(100, 5'000));
      models_.push_back(model);
    }
    limits_ = {.budget_bytes = Draw(70, 140),
               .residency_least_ms = static_cast<int64_t>(Draw(0, 1) * Draw(1, kResidencyMsMax))};
  }

  // False after a failure.
  bool Run() {
    for (const int64_t end_ms = 60'000; now_ms_ < end_ms;) {
      if (now_ms_ < end_ms / 2) Ask();
      if (!Plan()) return false;
      now_ms_ += static_cast<int64_t>(Draw(1, 50));
      Pass();
      CheckBudget();
      CheckWaits();
      if (testing::Test::HasFailure()) return false;
    }
    for (const Model& model : models_)
      EXPECT_TRUE(model.waits.empty() && model.ends.empty()) << "a request has no answer";
    return !testing::Test::HasFailure();
  }

 private:
  struct Model {
    ModelUse use;
    int64_t idle_ms = 0;
    int64_t event_ms = 0;             // of coming, leaving: when that ends
    std::deque<int64_t> waits, ends;  // since when; of those that run, when they end
    bool yields = false;
    bool never_fits = false;
    int64_t shrinks_ms = 0;
  };

  uint64_t Draw(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }

  void Ask() {
    if (Draw(0, 3) != 0) return;
    Model& model = models_[Draw(0, models_.size() - 1)];
    if (model.never_fits || model.waits.size() + model.ends.size() >= 4) return;
    model.waits.push_back(now_ms_);
  }

  bool Plan() {
    // Until nothing is to be done: each plan is one from all that is known.
    for (int round = 0; round < 20; ++round) {
      std::vector<ModelUse> uses;
      for (Model& model : models_) {
        model.use.waiting = static_cast<uint32_t>(model.waits.size());
        model.use.running = static_cast<uint32_t>(model.ends.size());
        model.use.waiting_since_ms = model.waits.empty() ? 0 : model.waits.front();
        if (model.use.waiting + model.use.running > 0) model.use.used_ms = now_ms_;
        model.use.idle_deadline_ms.reset();
        if (model.idle_ms > 0) model.use.idle_deadline_ms = model.use.used_ms + model.idle_ms;
        uses.push_back(model.use);
      }
      const ResidencyPlan plan = PlanResidency(uses, limits_, now_ms_);
      for (size_t i = 0; i < models_.size(); ++i) {
        models_[i].yields = false;
        models_[i].never_fits = plan.missing_bytes[i] > 0;
        if (models_[i].never_fits && models_[i].use.presence == Presence::kAbsent)
          models_[i].waits.clear();  // told so
      }
      bool has_changed = false;
      for (const ResidencyStep& step : plan.steps) has_changed |= Do(step);
      if (!has_changed) return true;
    }
    ADD_FAILURE() << "plans go on for ever";
    return false;
  }

  bool Do(const ResidencyStep& step) {
    Model& model = models_[step.model];
    ModelUse& use = model.use;
    switch (step.action) {
      case ResidencyAction::kLoad:
        EXPECT_EQ(use.presence, Presence::kAbsent);
        use.presence = Presence::kComing;
        use.wants_preload = false;
        use.kv_bytes = std::max(use.kv_bytes, use.kv_least_bytes);
        model.event_ms = now_ms_ + static_cast<int64_t>(Draw(1, kLoadMsMax));
        CheckBudget();
        return true;
      case ResidencyAction::kUnload:
        EXPECT_EQ(use.presence, Presence::kReady);
        EXPECT_TRUE(model.ends.empty()) << "unloaded while it generates";
        EXPECT_FALSE(use.pinned);
        use.presence = Presence::kLeaving;
        model.event_ms = now_ms_ + static_cast<int64_t>(Draw(1, kUnloadMsMax));
        return true;
      case ResidencyAction::kYield:
        EXPECT_FALSE(use.pinned);
        model.yields = true;
        return false;
      case ResidencyAction::kGrant:
        use.kv_bytes = step.kv_bytes;
        use.kv_wanted_bytes = 0;
        CheckBudget();
        return true;
      case ResidencyAction::kShrink:
        EXPECT_LT(step.kv_bytes, use.kv_bytes);
        use.kv_bytes = step.kv_bytes;
        use.kv_used_bytes = std::min(use.kv_used_bytes, use.kv_bytes);
        return true;
      case ResidencyAction::kRefuse:
        use.kv_wanted_bytes = 0;
        return true;
      case ResidencyAction::kDropArena:
        EXPECT_EQ(use.presence, Presence::kAbsent);
        use.kv_bytes = use.kv_used_bytes = 0;
        return true;
    }
    return false;
  }

  void Pass() {
    for (Model& model : models_) {
      ModelUse& use = model.use;
      std::erase_if(model.ends, [this](int64_t end_ms) { return end_ms <= now_ms_; });
      switch (use.presence) {
        case Presence::kComing:
          if (now_ms_ < model.event_ms) break;
          use.presence = Presence::kReady;
          use.present_since_ms = now_ms_;
          use.used_ms = now_ms_;
          break;
        case Presence::kLeaving:
          if (now_ms_ < model.event_ms) break;
          use.presence = Presence::kAbsent;
          use.kv_bytes = use.kv_used_bytes;  // the arena
          break;
        case Presence::kReady:
          if (Draw(0, 400) == 0) {  // it dies, and is started again
            use.presence = Presence::kComing;
            model.event_ms = now_ms_ + static_cast<int64_t>(Draw(1, kLoadMsMax));
            for (; !model.ends.empty(); model.ends.pop_back()) model.waits.push_front(now_ms_);
            break;
          }
          while (!model.yields && !model.waits.empty()) {
            model.waits.pop_front();
            model.ends.push_back(now_ms_ + static_cast<int64_t>(Draw(1, kAnswerMsMax)));
            use.kv_used_bytes = std::min(use.kv_bytes, use.kv_used_bytes + Draw(0, 3));
            if (use.kv_used_bytes * 4 > use.kv_bytes * 3 && use.kv_wanted_bytes == 0) {
              use.kv_wanted_bytes = use.kv_bytes + Draw(1, 20);
              use.kv_wanted_since_ms = now_ms_;
            }
          }
          break;
        default:
          break;
      }
    }
  }

  void CheckBudget() const {
    uint64_t held = 0;
    for (const Model& model : models_) held += HeldBytes(model.use);
    EXPECT_LE(held, limits_.budget_bytes);
  }

  // The models before it have their turns, one after another: each a load, the shortest residency,
  // the longest answer, and its end.
  void CheckWaits() const {
    const int64_t turn_ms = kLoadMsMax + kResidencyMsMax + kAnswerMsMax + kUnloadMsMax + 200;
    const int64_t bound_ms = 2 * turn_ms * static_cast<int64_t>(models_.size() + 1);
    for (const Model& model : models_) {
      if (model.waits.empty()) continue;
      ASSERT_LE(now_ms_ - model.waits.front(), bound_ms) << Text();
    }
  }

  std::string Text() const {
    std::ostringstream text;
    text << "at " << now_ms_ << " with " << limits_.budget_bytes << " bytes:";
    for (const Model& model : models_)
      text << "\n  presence " << static_cast<int>(model.use.presence) << " process "
           << model.use.process_bytes << " kv " << model.use.kv_bytes << " used "
           << model.use.kv_used_bytes << " least " << model.use.kv_least_bytes << " wanted "
           << model.use.kv_wanted_bytes << (model.use.pinned ? " pinned" : "") << " since "
           << model.use.present_since_ms << " waits " << model.waits.size() << " runs "
           << model.ends.size() << (model.yields ? " yields" : "");
    return text.str();
  }

  std::mt19937_64 random_;
  ResidencyLimits limits_;
  std::vector<Model> models_;
  int64_t now_ms_ = 1'000;
};

TEST(ResidencySimulation, TheBudgetHoldsAndEverybodyIsServed) {
  const char* const seeds = getenv("PERDURE_SEEDS");
  const int count = seeds != nullptr ? atoi(seeds) : 10'000;
  for (int seed = 1; seed <= count; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    if (!World(static_cast<uint64_t>(seed)).Run()) return;
  }
}

}  // namespace
}  // namespace perdure::supervisor
