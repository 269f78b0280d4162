#include "supervisor/residency.h"

#include <algorithm>

namespace perdure::supervisor {
namespace {

// How room is made, the cheapest first.
enum class Means : uint8_t { kArena, kSpareKv, kIdleModel, kCachedKv, kWaitingArena, kBusyModel };

struct Candidate {
  Means means;
  size_t model = 0;
  int64_t order_ms = 0;  // lower goes first
  uint64_t gain = 0;
  int64_t from_ms = 0;  // not before
};

constexpr size_t kNobody = SIZE_MAX;  // no model: the budget itself is short

class Planner {
 public:
  Planner(std::span<const ModelUse> models, const ResidencyLimits& limits, int64_t now_ms)
      : models_(models), limits_(limits), now_ms_(now_ms), settled_(models.size()) {
    plan_.missing_bytes.resize(models.size());
  }

  ResidencyPlan Run() {
    DropIdle();
    Reckon();
    for (size_t i = 0; i < models_.size(); ++i) plan_.missing_bytes[i] = Missing(i);
    ServeWaiting(GiveUpExcess());
    return std::move(plan_);
  }

 private:
  static bool IsPresent(const ModelUse& m) {
    return m.presence == Presence::kComing || m.presence == Presence::kReady;
  }
  static bool IsIdle(const ModelUse& m) { return m.running == 0 && m.waiting == 0; }
  static uint64_t NeedOf(const ModelUse& m) {
    // An arena that is there already counts as held.
    const uint64_t kv = m.kv_least_bytes > m.kv_bytes ? m.kv_least_bytes - m.kv_bytes : 0;
    return m.process_bytes + kv;
  }

  static uint64_t LeastNow(const ModelUse& m) {
    return std::max(m.kv_least_bytes, m.kv_floor_bytes);
  }

  void Add(size_t model, ResidencyAction action, uint64_t kv_bytes = 0) {
    plan_.steps.push_back({model, action, kv_bytes});
  }
  void Consider(int64_t ms) {
    if (!plan_.deadline_ms || ms < *plan_.deadline_ms) plan_.deadline_ms = ms;
  }

  void DropIdle() {
    for (size_t i = 0; i < models_.size(); ++i) {
      const ModelUse& m = models_[i];
      if (m.presence == Presence::kReady && !m.pinned && IsIdle(m) && m.idle_deadline_ms) {
        if (now_ms_ >= *m.idle_deadline_ms) {
          Add(i, ResidencyAction::kUnload);
          settled_[i] = true;
        } else {
          Consider(*m.idle_deadline_ms);
        }
      }
      if (m.presence == Presence::kAbsent && m.kv_bytes > 0 && m.waiting == 0 &&
          m.arena_deadline_ms) {
        if (now_ms_ >= *m.arena_deadline_ms) {
          Add(i, ResidencyAction::kDropArena);
          settled_[i] = true;
        } else {
          Consider(*m.arena_deadline_ms);
        }
      }
    }
  }

  // What is free, and what will be without another step.
  void Reckon() {
    uint64_t held = 0;
    for (size_t i = 0; i < models_.size(); ++i) {
      const ModelUse& m = models_[i];
      held += HeldBytes(m);
      if (!settled_[i] && m.presence != Presence::kLeaving) continue;
      const bool has_process = m.presence == Presence::kLeaving || IsPresent(m);
      coming_ += has_process ? m.process_bytes + Minus(m.kv_bytes, m.kv_used_bytes) : m.kv_bytes;
    }
    free_ = static_cast<int64_t>(limits_.budget_bytes) - static_cast<int64_t>(held);
  }

  static uint64_t Minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

  // All that could go for the sake of `model`.
  uint64_t Missing(size_t model) const {
    uint64_t stays = 0;
    for (size_t i = 0; i < models_.size(); ++i) {
      const ModelUse& m = models_[i];
      if (i == model || !IsPresent(m) || !m.pinned) continue;
      stays += m.process_bytes + std::min(m.kv_least_bytes, m.kv_bytes);
    }
    const ModelUse& m = models_[model];
    return Minus(m.process_bytes + m.kv_least_bytes + stays, limits_.budget_bytes);
  }

  // More is held than may be. True: some of it goes now, or will.
  bool GiveUpExcess() {
    const int64_t excess = -free_ - static_cast<int64_t>(coming_);
    return excess > 0 && MakeRoom(kNobody, static_cast<uint64_t>(excess), true);
  }

  void ServeWaiting(bool is_blocked) {
    std::vector<size_t> order;
    for (size_t i = 0; i < models_.size(); ++i) {
      const ModelUse& m = models_[i];
      const bool loads = m.presence == Presence::kAbsent && m.waiting > 0;
      const bool grows = m.presence == Presence::kReady && !settled_[i] && m.kv_wanted_bytes > 0;
      if (loads || grows) order.push_back(i);
    }
    const auto since = [&](size_t i) {
      return models_[i].presence == Presence::kAbsent ? models_[i].waiting_since_ms
                                                      : models_[i].kv_wanted_since_ms;
    };
    std::ranges::stable_sort(order, {}, since);
    for (const size_t i : order) {
      const ModelUse& m = models_[i];
      if (settled_[i]) continue;
      if (m.presence != Presence::kAbsent) {
        Grow(i, is_blocked);
      } else if (plan_.missing_bytes[i] == 0 && !is_blocked) {
        is_blocked = !Load(i);
      }
    }
    if (is_blocked) return;
    for (size_t i = 0; i < models_.size(); ++i) {
      const ModelUse& m = models_[i];
      if (m.presence != Presence::kAbsent || !m.wants_preload || m.waiting > 0) continue;
      if (Fits(NeedOf(m))) {
        Add(i, ResidencyAction::kLoad);
        free_ -= static_cast<int64_t>(NeedOf(m));
      }
    }
  }

  bool Fits(uint64_t bytes) const { return static_cast<int64_t>(bytes) <= free_; }

  // True: it is being loaded. False: room is being made, and is not to be taken by others.
  bool Load(size_t i) {
    const uint64_t need = NeedOf(models_[i]);
    if (Fits(need)) {
      Add(i, ResidencyAction::kLoad);
      settled_[i] = true;
      free_ -= static_cast<int64_t>(need);
      return true;
    }
    const int64_t short_of = static_cast<int64_t>(need) - free_ - static_cast<int64_t>(coming_);
    if (short_of > 0) MakeRoom(i, static_cast<uint64_t>(short_of), true);
    return false;
  }

  void Grow(size_t i, bool is_blocked) {
    const ModelUse& m = models_[i];
    const uint64_t more = Minus(m.kv_wanted_bytes, m.kv_bytes);
    if (!is_blocked && Fits(more)) {
      Add(i, ResidencyAction::kGrant, m.kv_wanted_bytes);
      free_ -= static_cast<int64_t>(more);
      return;
    }
    const int64_t short_of = static_cast<int64_t>(more) - free_ - static_cast<int64_t>(coming_);
    if (!is_blocked && (short_of <= 0 || MakeRoom(i, static_cast<uint64_t>(short_of), false)))
      return;
    // What there is is better than nothing.
    if (!is_blocked && free_ > 0 && static_cast<uint64_t>(free_) >= more / 4) {
      Add(i, ResidencyAction::kGrant, m.kv_bytes + static_cast<uint64_t>(free_));
      free_ = 0;
      return;
    }
    Add(i, ResidencyAction::kRefuse);
  }

  std::vector<Candidate> Candidates(size_t for_model, bool for_load) const {
    std::vector<Candidate> found;
    for (size_t i = 0; i < models_.size(); ++i) {
      const ModelUse& m = models_[i];
      // What is left of itself may be more than it needs to begin with.
      if (i == for_model && for_load && m.kv_bytes > m.kv_least_bytes)
        found.push_back({Means::kWaitingArena, i, m.used_ms, m.kv_bytes - m.kv_least_bytes, 0});
      if (i == for_model || settled_[i]) continue;
      if (m.presence == Presence::kAbsent && m.kv_bytes > 0)
        found.push_back(
            {m.waiting == 0 ? Means::kArena : Means::kWaitingArena, i, m.used_ms, m.kv_bytes, 0});
      if (m.presence != Presence::kReady) continue;
      const uint64_t floor = std::max(m.kv_used_bytes, LeastNow(m));
      if (m.kv_bytes > floor)
        found.push_back({Means::kSpareKv, i, m.used_ms, m.kv_bytes - floor, 0});
      const int64_t from_ms = m.present_since_ms + limits_.residency_least_ms;
      // What is used of its KV stays as a warm arena, and can go in the next round.
      if (!m.pinned && IsIdle(m)) {
        found.push_back({Means::kIdleModel, i, m.used_ms, m.process_bytes, from_ms});
      } else if (!m.pinned && for_load && !GoesBefore(i, for_model)) {
        found.push_back({Means::kBusyModel, i, m.present_since_ms, m.process_bytes, from_ms});
      }
      if (std::min(m.kv_used_bytes, m.kv_bytes) > LeastNow(m))
        found.push_back({Means::kCachedKv, i, m.used_ms,
                         std::min(m.kv_used_bytes, m.kv_bytes) - LeastNow(m), 0});
    }
    std::ranges::stable_sort(found, [](const Candidate& a, const Candidate& b) {
      return a.means != b.means ? a.means < b.means : a.order_ms < b.order_ms;
    });
    return found;
  }

  // It has come for a request that waits for longer, and is about to get it.
  bool GoesBefore(size_t i, size_t other) const {
    return other != kNobody && models_[i].waiting > 0 &&
           models_[i].waiting_since_ms <= models_[other].waiting_since_ms;
  }

  // False: it cannot be made.
  bool MakeRoom(size_t for_model, uint64_t bytes, bool for_load) {
    std::vector<Candidate> chosen;
    uint64_t gain = 0;
    bool is_early = false;
    for (const Candidate& each : Candidates(for_model, for_load)) {
      if (gain >= bytes) break;
      if (now_ms_ < each.from_ms) {
        Consider(each.from_ms);
        is_early = true;
        continue;
      }
      chosen.push_back(each);
      gain += each.gain;
    }
    if (gain < bytes) {
      if (is_early) return true;
      // What a model leaves when it goes can be had in the next round.
      if (!for_load || chosen.empty()) return false;
    } else {
      // A later one may have been enough without some of the earlier.
      std::erase_if(chosen, [&](const Candidate& each) {
        if (gain - each.gain < bytes) return false;
        gain -= each.gain;
        return true;
      });
    }
    const bool has_to_wait = std::ranges::any_of(chosen, [&](const Candidate& each) {
      return each.means == Means::kBusyModel && models_[each.model].running > 0;
    });
    for (const Candidate& each : chosen) {
      if (each.means != Means::kIdleModel && each.means != Means::kBusyModel) continue;
      // Those that have to go together wait for each other's answers, and begin no others.
      const bool yields = each.means == Means::kBusyModel && has_to_wait;
      Add(each.model, yields ? ResidencyAction::kYield : ResidencyAction::kUnload);
      settled_[each.model] = true;
    }
    // Until then what is cheap to keep is kept.
    if (has_to_wait) return true;
    for (const Candidate& each : chosen) {
      // What is asked for last of a model's KV includes the rest.
      const bool is_last = std::ranges::count(chosen, each.model, &Candidate::model) == 1 ||
                           each.means != Means::kSpareKv;
      if (!settled_[each.model] && is_last) Take(each);
    }
    return true;
  }

  void Take(const Candidate& each) {
    const ModelUse& m = models_[each.model];
    settled_[each.model] = true;
    if (each.means == Means::kArena || each.means == Means::kWaitingArena)
      return Add(each.model, ResidencyAction::kDropArena);
    const uint64_t least =
        each.means == Means::kSpareKv ? std::max(m.kv_used_bytes, LeastNow(m)) : LeastNow(m);
    Add(each.model, ResidencyAction::kShrink, least);
  }

  const std::span<const ModelUse> models_;
  const ResidencyLimits limits_;
  const int64_t now_ms_;
  std::vector<bool> settled_;  // this plan has a step that decides
  int64_t free_ = 0;
  uint64_t coming_ = 0;
  ResidencyPlan plan_;
};

}  // namespace

Presence PresenceOf(ModelState state, bool wanted) {
  switch (state) {
    case ModelState::kStarting:
    case ModelState::kLoading:
    case ModelState::kBackoff:
      return Presence::kComing;
    case ModelState::kReady:
      return Presence::kReady;
    case ModelState::kStopping:
      return wanted ? Presence::kComing : Presence::kLeaving;
    case ModelState::kFailed:
      return Presence::kFailed;
    case ModelState::kStopped:
      break;
  }
  return Presence::kAbsent;
}

uint64_t HeldBytes(const ModelUse& model) {
  const bool has_process =
      model.presence != Presence::kAbsent && model.presence != Presence::kFailed;
  return model.kv_bytes + (has_process ? model.process_bytes : 0);
}

ResidencyPlan PlanResidency(std::span<const ModelUse> models, const ResidencyLimits& limits,
                            int64_t now_ms) {
  return Planner(models, limits, now_ms).Run();
}

}  // namespace perdure::supervisor
