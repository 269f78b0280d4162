// The state machine of one child (a model's worker, or the frontend): (state, event) → action.
// Pure: times come with the events. docs/lifecycle.md has the diagram.
#pragma once

#include <cstdint>
#include <optional>

#include "protocol/messages.h"
#include "supervisor/restart_policy.h"

namespace perdure::supervisor {

using protocol::ModelState;

enum class ChildEventKind {
  kRun,          // it shall run; on a failed child: try again now
  kRunAgain,     // it shall run; its deaths are not forgotten
  kStop,         // it shall not
  kLoading,      // the process began to load
  kReady,        // the process serves
  kHung,         // no progress within the limit
  kMisuse,       // it sent what no child sends, or closed its channel
  kDied,         // reaped; death and progressed are set
  kSpawnFailed,  // it could not be started; death says how that counts
  kTime,         // time has passed
};

struct ChildEvent {
  ChildEventKind kind;
  int64_t now_ms = 0;
  DeathClass death = DeathClass::kCrash;  // kDied, kSpawnFailed
  bool progressed = false;                // kDied
};

enum class ChildAction {
  kNone,
  kSpawn,  // answered by kSpawnFailed where it fails
  kDrain,  // tell it to finish and exit
  kKill,   // SIGKILL; kill_reason() says why
};

class ChildCore {
 public:
  struct Limits {
    RestartLimits restart;
    int64_t stop_grace_ms = 5'000;  // from Drain to SIGKILL
    // A cool-down ends with another start; else the child is stopped then, and somebody decides.
    bool retries_failed = true;
  };

  explicit ChildCore(Limits limits) : limits_(limits) {}

  ChildAction On(const ChildEvent& event);

  ModelState state() const { return state_; }
  bool wanted() const { return wanted_; }
  // A process exists: started and not yet reaped.
  bool alive() const { return alive_; }
  KillReason kill_reason() const { return kill_reason_; }
  // When kTime has something to do; nothing where only other events matter.
  std::optional<int64_t> deadline_ms() const { return deadline_ms_; }
  // From now on; a deadline that runs already stays.
  void set_limits(Limits limits) { limits_ = limits; }

 private:
  ChildAction Spawn();
  ChildAction Kill(KillReason reason);
  ChildAction OnGone(const ChildEvent& event);

  Limits limits_;
  RestartPolicy policy_;
  ModelState state_ = ModelState::kStopped;
  bool wanted_ = false;
  bool alive_ = false;
  KillReason kill_reason_ = KillReason::kNone;
  std::optional<int64_t> deadline_ms_;
};

}  // namespace perdure::supervisor
