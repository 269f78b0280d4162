// What workers and the frontend have in common: the state machine joined with the process, health,
// deaths and obituaries.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "supervisor/child_process.h"
#include "supervisor/child_state.h"
#include "supervisor/health.h"
#include "supervisor/obituary.h"
#include "supervisor/timings.h"

namespace perdure::supervisor {

class ManagedChild {
 public:
  ManagedChild(EventLoop& loop, std::string who, const Timings& timings,
               const RestartLimits& restart);
  virtual ~ManagedChild() = default;
  ManagedChild(const ManagedChild&) = delete;
  ManagedChild& operator=(const ManagedChild&) = delete;

  void Run() { Dispatch({.kind = ChildEventKind::kRun}); }
  void RunAgain() { Dispatch({.kind = ChildEventKind::kRunAgain}); }
  // It gets `drain_ms` to finish what runs, and is killed `grace_ms` after that.
  void Stop(int64_t drain_ms, int64_t grace_ms);
  // Deadlines that have passed.
  void OnTime(int64_t now_ms);
  // Looks at the counters; called about every health_sample_ms.
  void SampleHealth(int64_t now_ms);
  std::optional<int64_t> deadline_ms() const;

  const std::string& who() const { return who_; }
  ModelState state() const { return core_.state(); }
  bool wanted() const { return core_.wanted(); }
  bool alive() const { return core_.alive(); }
  int pid() const { return process_ ? process_->pid() : 0; }
  const shm::StatusShm* status() const { return process_ ? &process_->status() : nullptr; }
  // All deaths but those asked for, since the service began.
  int deaths() const { return deaths_; }
  const std::deque<Obituary>& obituaries() const { return obituaries_; }  // newest last
  // Why it is not ready, for people; empty when it is.
  std::string reason() const;
  int64_t until_retry_ms(int64_t now_ms) const;

 protected:
  virtual Result<std::unique_ptr<ChildProcess>> StartProcess(ChildProcess::Callbacks callbacks) = 0;
  virtual void OnFrame(protocol::ReceivedFrame frame) = 0;
  // The process reads again, or has just started: send what waits.
  virtual void FlushToChild() = 0;
  virtual void QueueDrain(int timeout_s) = 0;
  // It was reaped, and had not been asked to stop. OnGone follows.
  virtual void OnDeath(const Obituary&) {}
  // The process is gone; what belonged to it is forgotten.
  virtual void OnGone() = 0;
  // State, reason or figures changed.
  virtual void OnChanged() = 0;
  virtual bool HadProgress() const = 0;
  // Whether it has said why it will exit; for the obituary.
  virtual std::string LastMessage() const { return {}; }
  virtual bool HealthIsWatched() const { return true; }

  void Dispatch(ChildEvent event);
  // It broke the protocol: an error that says how.
  void Misused(const std::string& reason);
  void SetTimings(const Timings& timings, const RestartLimits& restart);
  void LeaveFailed() { limits_.retries_failed = false; }

  EventLoop& loop_;
  Timings timings_;
  std::unique_ptr<ChildProcess> process_;
  int64_t drain_ms_ = 0;

 private:
  void Perform(ChildAction action);
  void Spawn();
  void OnExit(ChildProcess::Exit exit);
  void LogDeath(const Obituary& obituary) const;

  std::string who_;
  ChildCore core_;
  ChildCore::Limits limits_;
  HealthWatch health_;
  std::string misuse_;
  std::string spawn_error_;
  std::optional<int64_t> channel_end_ms_;  // it closed its channel and lives on
  uint64_t oom_kills_ = 0;
  uint32_t spawns_ = 0;
  int deaths_ = 0;
  std::deque<Obituary> obituaries_;
};

}  // namespace perdure::supervisor
