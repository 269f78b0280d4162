#include "supervisor/child_state.h"

#include <algorithm>

#include "base/check.h"

namespace perdure::supervisor {

ChildAction ChildCore::Spawn() {
  state_ = ModelState::kStarting;
  alive_ = true;
  kill_reason_ = KillReason::kNone;
  deadline_ms_.reset();
  return ChildAction::kSpawn;
}

ChildAction ChildCore::Kill(KillReason reason) {
  if (!alive_ || kill_reason_ != KillReason::kNone) return ChildAction::kNone;
  kill_reason_ = reason;
  deadline_ms_.reset();  // nothing stronger than SIGKILL is left
  return ChildAction::kKill;
}

ChildAction ChildCore::OnGone(const ChildEvent& event) {
  CHECK(alive_);
  alive_ = false;
  deadline_ms_.reset();
  if (!wanted_) {
    state_ = ModelState::kStopped;
    return ChildAction::kNone;
  }
  // Stopped in order to be started anew (with other settings): no fault, so no delay.
  if (state_ == ModelState::kStopping) {
    policy_.Reset();
    return Spawn();
  }
  const RestartPolicy::Decision decision =
      policy_.OnDeath(event.death, event.progressed, limits_.restart);
  // A spawn that fails is never repeated at once: the caller answers kSpawn with kSpawnFailed, and
  // would go round for ever.
  int64_t delay_ms = decision.delay_ms;
  if (event.kind == ChildEventKind::kSpawnFailed && delay_ms == 0)
    delay_ms = limits_.restart.first_delay_ms;
  if (decision.failed || delay_ms > 0) {
    state_ = decision.failed ? ModelState::kFailed : ModelState::kBackoff;
    deadline_ms_ = event.now_ms + delay_ms;
    return ChildAction::kNone;
  }
  return Spawn();
}

ChildAction ChildCore::On(const ChildEvent& event) {
  switch (event.kind) {
    case ChildEventKind::kRun:
    case ChildEventKind::kRunAgain:
      wanted_ = true;
      if (alive_) return ChildAction::kNone;  // runs, or is started anew once it has stopped
      if (state_ == ModelState::kBackoff) return ChildAction::kNone;
      if (event.kind == ChildEventKind::kRun) policy_.Reset();
      return Spawn();
    case ChildEventKind::kStop:
      wanted_ = false;
      if (!alive_) {
        state_ = ModelState::kStopped;
        deadline_ms_.reset();
        return ChildAction::kNone;
      }
      if (state_ == ModelState::kStopping) {
        if (deadline_ms_)
          deadline_ms_ = std::min(*deadline_ms_, event.now_ms + limits_.stop_grace_ms);
        return ChildAction::kNone;
      }
      if (state_ != ModelState::kReady) {
        // It answers nobody yet, and while it loads it may not even read its channel.
        state_ = ModelState::kStopping;
        return Kill(KillReason::kStop);
      }
      state_ = ModelState::kStopping;
      if (kill_reason_ != KillReason::kNone) return ChildAction::kNone;  // dies already
      deadline_ms_ = event.now_ms + limits_.stop_grace_ms;
      return ChildAction::kDrain;
    case ChildEventKind::kLoading:
      if (state_ == ModelState::kStarting) state_ = ModelState::kLoading;
      return ChildAction::kNone;
    case ChildEventKind::kReady:
      if (state_ == ModelState::kStarting || state_ == ModelState::kLoading)
        state_ = ModelState::kReady;
      return ChildAction::kNone;
    case ChildEventKind::kHung:
      return Kill(KillReason::kHang);
    case ChildEventKind::kMisuse:
      return Kill(KillReason::kProtocol);
    case ChildEventKind::kDied:
    case ChildEventKind::kSpawnFailed:
      return OnGone(event);
    case ChildEventKind::kTime:
      if (!deadline_ms_ || event.now_ms < *deadline_ms_) return ChildAction::kNone;
      if (state_ == ModelState::kStopping) return Kill(KillReason::kStop);
      if (state_ == ModelState::kFailed && !limits_.retries_failed) {
        wanted_ = false;
        state_ = ModelState::kStopped;
        deadline_ms_.reset();
        return ChildAction::kNone;
      }
      return Spawn();  // kBackoff, kFailed
  }
  return ChildAction::kNone;
}

}  // namespace perdure::supervisor
