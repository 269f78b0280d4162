// Models that come and go as PlanResidency says, as children of ChildCore, under seeded requests,
// deaths, hangs, failed starts, stops by hand and reloads that change the budget: it is never
// exceeded but by what was held before, which goes; no process is without its child, every request
// is answered once, nobody waits for ever, and nothing is left at the end.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "supervisor/residency.h"

namespace perdure::supervisor {
namespace {

constexpr int64_t kResidencyMsMax = 500;
constexpr int64_t kLoadMsMax = 200, kUnloadMsMax = 100, kAnswerMsMax = 2'000;
constexpr int64_t kStopGraceMs = 300, kKillMsMax = 20, kHangMs = 400, kNewsMsMax = 100;
constexpr ChildCore::Limits kChildLimits = {.restart = {.first_delay_ms = 20,
                                                        .delay_max_ms = 300,
                                                        .external_delay_max_ms = 50,
                                                        .deaths_max = 5,
                                                        .cooldown_ms = 2'000},
                                            .stop_grace_ms = kStopGraceMs,
                                            .retries_failed = false};

class World {
 public:
  explicit World(uint64_t seed) : random_(seed) {
    const size_t count = Draw(1, 6);
    for (size_t i = 0; i < count; ++i) {
      Model& model = models_.emplace_back();
      model.use.process_bytes = Draw(1, 60);
      model.use.kv_least_bytes = Draw(1, 10);
      model.use.pinned = Draw(0, 9) == 0;
      model.use.wants_preload = model.use.pinned || Draw(0, 1) == 0;
      if (Draw(0, 1) == 0) model.idle_ms = static_cast<int64_t>(Draw(100, 5'000));
      model.is_bad = Draw(0, 19) == 0;
    }
    limits_ = {.budget_bytes = DrawBudget(),
               .residency_least_ms = static_cast<int64_t>(Draw(0, 1) * Draw(1, kResidencyMsMax))};
  }

  // False after a failure.
  bool Run() {
    for (const int64_t end_ms = 60'000; now_ms_ < end_ms;) {
      if (now_ms_ < end_ms / 2) Ask();
      if (now_ms_ < end_ms / 2 && Draw(0, 300) == 0) limits_.budget_bytes = DrawBudget();
      if (!Step()) return false;
    }
    for (size_t id = 0; id < answers_.size(); ++id)
      EXPECT_EQ(answers_[id], 1) << "answers to request " << id;
    // The service ends.
    for (Model& model : models_) On(&model, {ChildEventKind::kStop, now_ms_});
    for (const int64_t end_ms = now_ms_ + 2'000; now_ms_ < end_ms;) {
      now_ms_ += static_cast<int64_t>(Draw(1, 50));
      Pass();
    }
    for (const Model& model : models_) {
      EXPECT_FALSE(model.process.exists) << "an orphan";
      EXPECT_EQ(model.core.state(), ModelState::kStopped);
    }
    return !testing::Test::HasFailure();
  }

 private:
  struct Request {
    size_t id = 0;
    int64_t ms = 0;  // of one that waits: since; of one that runs: until
  };
  struct Process {
    bool exists = false;
    bool drains = false;
    bool is_deaf = false;                             // does not do what it is told
    bool progressed = false;                          // has completed an answer
    int64_t loads_ms = 0, ready_ms = 0, ends_ms = 0;  // ends_ms of one that is killed or drains
    DeathClass death = DeathClass::kCrash;
  };
  struct Model {
    ModelUse use;
    ChildCore core{kChildLimits};
    Process process;
    bool is_bad = false;  // its processes die while they load
    bool has_failed = false;
    int64_t idle_ms = 0;
    std::deque<Request> waits, runs;
    bool is_known_ready = false;  // what the frontend believes
    int64_t news_ms = 0;          // since when the truth is another one
    bool yields = false;
    bool never_fits = false;
  };

  uint64_t Draw(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random_);
  }
  uint64_t DrawBudget() { return Draw(70, 140); }  // of the largest model at least
  int64_t In(int64_t ms_max) {
    return now_ms_ + static_cast<int64_t>(Draw(1, static_cast<uint64_t>(ms_max)));
  }

  bool Step() {
    if (!Plan()) return false;
    now_ms_ += static_cast<int64_t>(Draw(1, 50));
    Pass();
    CheckBudget();
    CheckWaits();
    return !testing::Test::HasFailure();
  }

  // --- Requests ----------------------------------------------------------------------------------

  void Ask() {
    if (Draw(0, 3) != 0) return;
    Model& model = models_[Draw(0, models_.size() - 1)];
    if (model.waits.size() + model.runs.size() >= 4) return;
    answers_.push_back(0);
    model.waits.push_back({answers_.size() - 1, now_ms_});
  }
  void Refuse(Model* model) {
    for (const Request& request : model->waits) ++answers_[request.id];
    model->waits.clear();
  }
  // Whoever had them has them no more; they are handed to the next.
  void TakeBack(Model* model) {
    for (; !model->runs.empty(); model->runs.pop_back())
      model->waits.push_front({model->runs.back().id, now_ms_});
  }

  // --- Plans -------------------------------------------------------------------------------------

  bool Plan() {
    // Until nothing is to be done: each plan is one from all that is known.
    for (int round = 0; round < 20; ++round) {
      std::vector<ModelUse> uses;
      for (Model& model : models_) {
        model.use.presence = PresenceOf(model.core.state(), model.core.wanted());
        model.use.waiting = static_cast<uint32_t>(model.waits.size());
        model.use.running = static_cast<uint32_t>(model.runs.size());
        model.use.waiting_since_ms = model.waits.empty() ? 0 : model.waits.front().ms;
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
          Refuse(&models_[i]);
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
        use.wants_preload = false;
        use.kv_bytes = std::max(use.kv_bytes, use.kv_least_bytes);
        On(&model, {std::exchange(model.has_failed, false) ? ChildEventKind::kRunAgain
                                                           : ChildEventKind::kRun,
                    now_ms_});
        CheckBudget();
        return true;
      case ResidencyAction::kUnload:
        EXPECT_EQ(use.presence, Presence::kReady);
        EXPECT_TRUE(model.runs.empty()) << "unloaded while it generates";
        EXPECT_FALSE(use.pinned);
        On(&model, {ChildEventKind::kStop, now_ms_});
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

  // --- Children ----------------------------------------------------------------------------------

  void On(Model* model, ChildEvent event) {
    const ChildAction action = model->core.On(event);
    Process& process = model->process;
    switch (action) {
      case ChildAction::kNone:
        break;
      case ChildAction::kSpawn:
        EXPECT_FALSE(process.exists) << "two processes of one model";
        if (Draw(0, 49) == 0) {
          On(model, {ChildEventKind::kSpawnFailed, now_ms_, DeathClass::kCrash});
          break;
        }
        process = {};
        process.exists = true;
        process.is_deaf = Draw(0, 19) == 0;
        process.loads_ms = In(10);
        process.ready_ms = process.loads_ms + static_cast<int64_t>(Draw(1, kLoadMsMax));
        break;
      case ChildAction::kDrain:
        EXPECT_TRUE(process.exists);
        process.drains = true;
        process.ends_ms = In(kUnloadMsMax);
        break;
      case ChildAction::kKill:
        EXPECT_TRUE(process.exists);
        process.is_deaf = process.drains = false;
        process.ends_ms = In(kKillMsMax);
        process.death = model->core.kill_reason() == KillReason::kHang ? DeathClass::kHang
                                                                       : DeathClass::kStopped;
        break;
    }
    if (model->core.state() == ModelState::kFailed) model->has_failed = true;
    if (model->core.state() == ModelState::kStopped && model->has_failed)
      model->use.wants_preload = true;
  }

  void Die(Model* model, DeathClass death) {
    const bool progressed = model->process.progressed;
    model->process = {};
    TakeBack(model);
    On(model, {ChildEventKind::kDied, now_ms_, death, progressed});
    if (!model->core.alive()) model->use.kv_bytes = KvKept(*model);
  }
  // By a process that comes again, or by its arena.
  static uint64_t KvKept(const Model& model) {
    return PresenceOf(model.core.state(), model.core.wanted()) == Presence::kComing
               ? model.use.kv_bytes
               : model.use.kv_used_bytes;
  }

  void PassProcess(Model* model) {
    Process& process = model->process;
    if (!process.exists) return;
    const ModelState state = model->core.state();
    if (process.ends_ms > 0) {
      if (process.drains && (process.is_deaf || !model->runs.empty())) return;
      if (now_ms_ >= process.ends_ms)
        Die(model, process.drains ? DeathClass::kStopped : process.death);
      return;
    }
    if (Draw(0, 400) == 0) {
      Die(model, Draw(0, 1) == 0 ? DeathClass::kExternal : DeathClass::kCrash);
    } else if (state == ModelState::kStarting && now_ms_ >= process.loads_ms) {
      On(model, {ChildEventKind::kLoading, now_ms_});
    } else if (state == ModelState::kLoading && now_ms_ >= process.ready_ms) {
      if (model->is_bad) return Die(model, DeathClass::kCrash);
      On(model, {ChildEventKind::kReady, now_ms_});
      model->use.present_since_ms = model->use.used_ms = now_ms_;
    } else if (Draw(0, 1'000) == 0) {
      On(model, {ChildEventKind::kHung, now_ms_});
    } else if (state == ModelState::kReady && !model->use.pinned && Draw(0, 2'000) == 0) {
      On(model, {ChildEventKind::kStop, now_ms_});  // by hand: what runs may end
    }
  }

  void Pass() {
    for (Model& model : models_) {
      ModelUse& use = model.use;
      PassProcess(&model);
      if (const auto deadline = model.core.deadline_ms(); deadline && now_ms_ >= *deadline) {
        On(&model, {ChildEventKind::kTime, now_ms_});
        if (!model.core.alive()) use.kv_bytes = KvKept(model);
      }
      EXPECT_EQ(model.process.exists, model.core.alive());
      std::erase_if(model.runs, [&](const Request& request) {
        if (request.ms > now_ms_) return false;
        model.process.progressed = true;
        ++answers_[request.id];
        return true;
      });
      // The frontend, which hears of everything a little later.
      const ModelState state = model.core.state();
      if (state == ModelState::kFailed) Refuse(&model);
      const bool is_ready = state == ModelState::kReady;
      if (is_ready == model.is_known_ready) {
        model.news_ms = now_ms_;
      } else if (Draw(0, 2) == 0 || now_ms_ - model.news_ms > kNewsMsMax) {
        model.is_known_ready = is_ready;
      }
      while (model.is_known_ready && !model.yields && !model.waits.empty()) {
        if (!is_ready || model.process.ends_ms > 0) break;  // handed back, and asked for again
        model.runs.push_back({model.waits.front().id, In(kAnswerMsMax)});
        model.waits.pop_front();
        use.kv_used_bytes = std::min(use.kv_bytes, use.kv_used_bytes + Draw(0, 3));
        if (use.kv_used_bytes * 4 > use.kv_bytes * 3 && use.kv_wanted_bytes == 0) {
          use.kv_wanted_bytes = use.kv_bytes + Draw(1, 20);
          use.kv_wanted_since_ms = now_ms_;
        }
      }
    }
  }

  // --- What has to hold --------------------------------------------------------------------------

  void CheckBudget() {
    uint64_t held = 0;
    for (Model& model : models_) {
      model.use.presence = PresenceOf(model.core.state(), model.core.wanted());
      held += HeldBytes(model.use);
    }
    EXPECT_LE(held, std::max(limits_.budget_bytes, held_bytes_)) << Text();
    held_bytes_ = held;
    uint64_t pinned = 0;
    for (const Model& model : models_)
      if (model.use.pinned) pinned += model.use.process_bytes + model.use.kv_least_bytes;
    if (held <= limits_.budget_bytes || pinned > limits_.budget_bytes) excess_ms_ = now_ms_;
    EXPECT_LE(now_ms_ - excess_ms_, BoundMs()) << "too much is held " << Text();
  }

  // The models before it have their turns, one after another: each a load, the shortest residency,
  // the longest answer, and its end, perhaps by force; and each may die on the way.
  int64_t BoundMs() const {
    const int64_t turn_ms = kLoadMsMax + kResidencyMsMax + kAnswerMsMax + kUnloadMsMax +
                            kStopGraceMs + kKillMsMax + kNewsMsMax + 200;
    return 2 * turn_ms * static_cast<int64_t>(models_.size() + 1);
  }
  void CheckWaits() const {
    for (const Model& model : models_) {
      if (model.waits.empty()) continue;
      ASSERT_LE(now_ms_ - model.waits.front().ms, BoundMs()) << Text();
    }
  }

  std::string Text() const {
    std::ostringstream text;
    text << "at " << now_ms_ << " with " << limits_.budget_bytes << " bytes:";
    for (const Model& model : models_)
      text << "\n  state " << static_cast<int>(model.core.state()) << " process "
           << model.use.process_bytes << " kv " << model.use.kv_bytes << " used "
           << model.use.kv_used_bytes << " least " << model.use.kv_least_bytes << " wanted "
           << model.use.kv_wanted_bytes << (model.use.pinned ? " pinned" : "") << " since "
           << model.use.present_since_ms << " waits " << model.waits.size() << " runs "
           << model.runs.size() << (model.yields ? " yields" : "")
           << (model.process.is_deaf ? " deaf" : "") << (model.is_bad ? " bad" : "");
    return text.str();
  }

  std::mt19937_64 random_;
  ResidencyLimits limits_;
  uint64_t held_bytes_ = 0;  // when it was last looked at
  int64_t excess_ms_ = 0;    // since when too much is held, if it is
  std::deque<Model> models_;
  std::vector<int> answers_;  // by request
  int64_t now_ms_ = 1'000;
};

TEST(ResidencySimulation, TheBudgetHoldsAndEverybodyIsAnsweredOnce) {
  const char* const seeds = getenv("PERDURE_SEEDS");
  const int count = seeds != nullptr ? atoi(seeds) : 10'000;
  for (int seed = 1; seed <= count; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    if (!World(static_cast<uint64_t>(seed)).Run()) return;
  }
}

}  // namespace
}  // namespace perdure::supervisor
