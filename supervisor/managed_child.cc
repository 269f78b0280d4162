#include "supervisor/managed_child.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "supervisor/proc.h"

namespace perdure::supervisor {

ManagedChild::ManagedChild(EventLoop& loop, std::string who, const Timings& timings,
                           const RestartLimits& restart)
    : loop_(loop), timings_(timings), who_(std::move(who)), core_({}) {
  SetTimings(timings, restart);
}

void ManagedChild::SetTimings(const Timings& timings, const RestartLimits& restart) {
  timings_ = timings;
  limits_.restart = restart;
  limits_.stop_grace_ms = timings.stop_grace_ms;
  core_.set_limits(limits_);
}

void ManagedChild::Dispatch(ChildEvent event) {
  event.now_ms = MonotonicMs();
  const ModelState before = core_.state();
  const ChildAction action = core_.On(event);
  Perform(action);
  if (core_.state() != before || action != ChildAction::kNone) OnChanged();
}

void ManagedChild::Perform(ChildAction action) {
  switch (action) {
    case ChildAction::kNone:
      return;
    case ChildAction::kSpawn:
      return Spawn();
    case ChildAction::kDrain:
      QueueDrain(static_cast<int>((drain_ms_ + 999) / 1000));
      return FlushToChild();
    case ChildAction::kKill:
      if (process_) process_->Kill();
      return;
  }
}

void ManagedChild::Spawn() {
  misuse_.clear();
  spawn_error_.clear();
  channel_end_ms_.reset();
  health_ = HealthWatch();
  oom_kills_ = ReadOomKills();
  ChildProcess::Callbacks callbacks;
  callbacks.on_frame = [this](protocol::ReceivedFrame frame) { OnFrame(std::move(frame)); };
  callbacks.on_misuse = [this](const std::string& reason) {
    if (!reason.empty()) return Misused(reason);
    // It closed its end: most likely it is about to exit, and says more by that.
    channel_end_ms_ = MonotonicMs() + timings_.channel_end_grace_ms;
  };
  callbacks.on_writable = [this] { FlushToChild(); };
  callbacks.on_exit = [this](ChildProcess::Exit exit) { OnExit(exit); };
  auto process = StartProcess(std::move(callbacks));
  if (process) {
    process_ = std::move(*process);
    ++spawns_;
    LogInfo("{} started (process {}, start {})", who_, process_->pid(), spawns_);
    FlushToChild();
    return;
  }
  const Error& error = process.error();
  spawn_error_ = fmt::format("{} cannot be started: {}", who_, error.message);
  LogError("{}", spawn_error_);
  OnGone();
  // What lies with the config or the files stays so until somebody changes it.
  const bool lasting = error.code == ErrorCode::not_found || error.code == ErrorCode::bad_model ||
                       error.code == ErrorCode::bad_config;
  Dispatch({.kind = ChildEventKind::kSpawnFailed,
            .death = lasting ? DeathClass::kBadModel : DeathClass::kCrash});
}

void ManagedChild::Stop(int64_t drain_ms, int64_t grace_ms) {
  drain_ms_ = drain_ms;
  ChildCore::Limits limits = limits_;
  limits.stop_grace_ms = drain_ms + grace_ms;
  core_.set_limits(limits);
  Dispatch({.kind = ChildEventKind::kStop});
  core_.set_limits(limits_);
}

void ManagedChild::OnTime(int64_t now_ms) {
  if (channel_end_ms_ && now_ms >= *channel_end_ms_) {
    channel_end_ms_.reset();
    Misused("it closed its channel to the supervisor and went on");
  }
  if (const auto deadline = core_.deadline_ms(); deadline && now_ms >= *deadline)
    Dispatch({.kind = ChildEventKind::kTime});
}

std::optional<int64_t> ManagedChild::deadline_ms() const {
  const auto deadline = core_.deadline_ms();
  if (!deadline || !channel_end_ms_) return deadline ? deadline : channel_end_ms_;
  return std::min(*deadline, *channel_end_ms_);
}

void ManagedChild::SampleHealth(int64_t now_ms) {
  if (!process_) return;
  const shm::StatusShm& status = process_->status();
  const uint32_t phase = status.phase.load(std::memory_order_relaxed);
  if (phase >= static_cast<uint32_t>(shm::Phase::kLoading) && state() == ModelState::kStarting)
    Dispatch({.kind = ChildEventKind::kLoading});
  if (state() == ModelState::kStopping || core_.kill_reason() != KillReason::kNone ||
      !HealthIsWatched())
    return;
  HealthSample sample;
  sample.phase = static_cast<shm::Phase>(phase);
  sample.progress = status.progress.load(std::memory_order_relaxed);
  sample.load_bytes_done = status.load_bytes_done.load(std::memory_order_relaxed);
  sample.major_faults = ReadMajorFaults(process_->pid()).value_or(0);
  sample.now_ms = now_ms;
  if (health_.Observe(sample, timings_.health)) return;
  misuse_ = fmt::format("nothing happened for {:.1f} s", health_.stalled_ms() / 1000.0);
  Dispatch({.kind = ChildEventKind::kHung});
}

void ManagedChild::Misused(const std::string& reason) {
  if (misuse_.empty()) misuse_ = reason;
  Dispatch({.kind = ChildEventKind::kMisuse});
}

void ManagedChild::OnExit(ChildProcess::Exit exit) {
  const uint64_t oom_kills = ReadOomKills();
  Obituary obituary;
  obituary.who = who_;
  obituary.pid = process_->pid();
  obituary.epoch = spawns_;
  obituary.unix_time = UnixSeconds();
  obituary.lived_ms = MonotonicMs() - process_->started_ms();
  obituary.death = ClassifyDeath({.signaled = exit.signaled,
                                  .code = exit.code,
                                  .killed_by_us = core_.kill_reason(),
                                  .asked_to_stop = state() == ModelState::kStopping,
                                  .oom_kills_grew = oom_kills != oom_kills_});
  obituary.signaled = exit.signaled;
  obituary.code = exit.code;
  obituary.misuse = misuse_.empty() ? LastMessage() : misuse_;
  obituary.last_words = shm::ReadLastWords(process_->status());
  obituary.log_lines.assign(process_->log_lines().begin(), process_->log_lines().end());
  LogDeath(obituary);
  const DeathClass death = obituary.death;
  if (death != DeathClass::kStopped) {
    ++deaths_;
    OnDeath(obituary);
    obituaries_.push_back(std::move(obituary));
    if (obituaries_.size() > limits::kObituariesKept) obituaries_.pop_front();
  }
  const bool progressed = HadProgress();
  process_.reset();
  channel_end_ms_.reset();
  OnGone();
  Dispatch({.kind = ChildEventKind::kDied, .death = death, .progressed = progressed});
}

void ManagedChild::LogDeath(const Obituary& obituary) const {
  if (obituary.death == DeathClass::kStopped) {
    LogInfo("{}", Summary(obituary));
    return;
  }
  std::string text = fmt::format("{} [{}, lived {:.1f} s]", Summary(obituary),
                                 DeathClassName(obituary.death), obituary.lived_ms / 1000.0);
  if (!obituary.last_words.step_rids.empty()) {
    text += "; requests in the step:";
    for (const uint64_t rid : obituary.last_words.step_rids) text += fmt::format(" {:016x}", rid);
  }
  if (obituary.death == DeathClass::kExternal)
    LogWarning("{}", text);
  else
    LogError("{}", text);
}

std::string ManagedChild::reason() const {
  switch (state()) {
    case ModelState::kReady:
    case ModelState::kStopped:
    case ModelState::kStopping:
      return {};
    case ModelState::kStarting:
    case ModelState::kLoading:
    case ModelState::kBackoff:
    case ModelState::kFailed:
      break;
  }
  if (!spawn_error_.empty()) return spawn_error_;
  return obituaries_.empty() ? std::string() : Summary(obituaries_.back());
}

int64_t ManagedChild::until_retry_ms(int64_t now_ms) const {
  if (state() != ModelState::kBackoff && state() != ModelState::kFailed) return 0;
  const auto deadline = core_.deadline_ms();
  return deadline ? std::max<int64_t>(*deadline - now_ms, 0) : 0;
}

}  // namespace perdure::supervisor
