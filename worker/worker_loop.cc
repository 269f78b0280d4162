#include "worker/worker_loop.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "protocol/codec.h"
#include "protocol/heritage.h"

namespace perdure::worker {

using protocol::MessageType;

WorkerLoop::WorkerLoop(const protocol::Hello& hello, const Model* model,
                       const GeneratorOptions& options, shm::PageStore* store,
                       shm::StatusShm* status, protocol::Channel* control, UniqueFd frontend)
    : hello_(hello),
      status_(status),
      control_(control),
      answers_fd_(options.persistence != nullptr ? options.persistence->fd() : -1),
      generator_(model, options, store, status, this) {
  if (frontend) OpenFrontend(std::move(frontend));
}

WorkerLoop::~WorkerLoop() = default;

int WorkerLoop::Run() {
  while (!exit_code_) {
    const bool works = generator_.HasWork();
    const shm::Phase phase = drain_deadline_ms_ ? shm::Phase::kDraining
                             : works            ? shm::Phase::kStepping
                                                : shm::Phase::kIdle;
    status_->phase.store(static_cast<uint32_t>(phase), std::memory_order_relaxed);
    Poll();
    status_->progress.fetch_add(1, std::memory_order_relaxed);
    if (exit_code_) break;
    generator_.FailSlowClients();
    generator_.Tick();
    if (drain_deadline_ms_ && FinishDraining()) return protocol::kExitOk;
    if (generator_.HasWork()) generator_.Step();
    if (generator_.HasUpkeep())
      generator_.Upkeep();
    else if (!generator_.HasWork() && generator_.NeedsScrub())
      generator_.Scrub();
  }
  return *exit_code_;
}

// --- Channels ----------------------------------------------------------------------------------

void WorkerLoop::OpenFrontend(UniqueFd socket) {
  frontend_.emplace(std::move(socket));
  frontend_->Send(hello_);
}

void WorkerLoop::CloseFrontend() {
  frontend_.reset();
  generator_.CancelAll();
}

int WorkerLoop::PollTimeoutMs() const {
  if (generator_.HasWork() || generator_.HasUpkeep()) return 0;
  int64_t timeout_ms = generator_.NeedsScrub() ? limits::kScrubPauseMs : limits::kHeartbeatMs;
  if (drain_deadline_ms_)
    timeout_ms = std::clamp<int64_t>(*drain_deadline_ms_ - MonotonicMs(), 1, timeout_ms);
  return static_cast<int>(timeout_ms);
}

void WorkerLoop::Poll() {
  pollfd fds[3] = {};
  const auto watch = [](const protocol::Channel& channel) {
    return pollfd{channel.fd(), static_cast<short>(POLLIN | (channel.wants_write() ? POLLOUT : 0)),
                  0};
  };
  fds[0] = watch(*control_);
  fds[1] = frontend_ ? watch(*frontend_) : pollfd{-1, 0, 0};
  fds[2] = {answers_fd_, POLLIN, 0};
  if (poll(fds, 3, PollTimeoutMs()) <= 0) return;  // nothing, or a signal: the caller goes on
  if (fds[2].revents != 0) generator_.TakeAnswers();
  constexpr short kReadable = POLLIN | POLLHUP | POLLERR;
  if ((fds[1].revents & POLLOUT) != 0) frontend_->OnWritable();
  if ((fds[1].revents & kReadable) != 0) ReadFrontend();
  // Last, as it may replace the frontend's channel.
  if ((fds[0].revents & POLLOUT) != 0) control_->OnWritable();
  if ((fds[0].revents & kReadable) != 0) ReadControl();
}

void WorkerLoop::ReadControl() {
  auto outcome = control_->OnReadable();
  for (protocol::ReceivedFrame& frame : outcome.frames) {
    const Status status = OnControlFrame(std::move(frame));
    if (!status) {
      LogError("the supervisor's channel: {}", status.error().message);
      exit_code_ = protocol::kExitBug;
      return;
    }
  }
  if (!outcome.closed) return;
  if (outcome.error) LogError("the supervisor's channel: {}", outcome.error->message);
  LogInfo("the supervisor is gone");
  exit_code_ = outcome.error ? protocol::kExitBug : protocol::kExitOk;
}

Status WorkerLoop::OnControlFrame(protocol::ReceivedFrame received) {
  const protocol::Frame& frame = received.frame;
  switch (frame.type) {
    case MessageType::kNewChannel: {
      ASSIGN_OR_RETURN([[maybe_unused]] const auto message,
                       protocol::Decode<protocol::NewChannel>(frame.payload));
      if (!received.fd) return Err(ErrorCode::protocol_error, "a channel came without its socket");
      // The old frontend is dead, whether its EOF was seen or not.
      CloseFrontend();
      OpenFrontend(std::move(received.fd));
      LogInfo("a new frontend is connected");
      return {};
    }
    case MessageType::kDrain: {
      ASSIGN_OR_RETURN(const auto drain, protocol::Decode<protocol::Drain>(frame.payload));
      if (drain.hand_over) {
        LogInfo("{} requests go on with the next worker", generator_.live());
        SayDrained();
        exit_code_ = protocol::kExitOk;
        return {};
      }
      if (drain_deadline_ms_) return {};
      drain_deadline_ms_ = MonotonicMs() + int64_t{1000} * std::max(0, drain.timeout_s);
      generator_.StopAdmitting();
      LogInfo("draining: {} requests have {} s to end", generator_.live(), drain.timeout_s);
      return {};
    }
    default:
      return Err(ErrorCode::protocol_error, "a frame of unknown type");
  }
}

void WorkerLoop::ReadFrontend() {
  auto outcome = frontend_->OnReadable();
  Status status;
  for (const protocol::ReceivedFrame& received : outcome.frames) {
    status = OnFrontendFrame(received.frame);
    if (!status) break;
  }
  if (status && outcome.error) status = Err(*outcome.error);
  if (status && !outcome.closed) return;
  if (!status) {
    LogError("the frontend's channel is closed: {}", status.error().message);
    // It lives: without this nobody would bring another channel.
    control_->Send(protocol::ChannelBroken{hello_.model, hello_.epoch, status.error().message});
  } else {
    LogInfo("the frontend is gone");
  }
  CloseFrontend();
}

Status WorkerLoop::OnFrontendFrame(const protocol::Frame& frame) {
  switch (frame.type) {
    case MessageType::kSubmit: {
      ASSIGN_OR_RETURN(const auto submit, protocol::Decode<protocol::Submit>(frame.payload));
      return generator_.Submit(submit);
    }
    case MessageType::kResume: {
      ASSIGN_OR_RETURN(const auto resume, protocol::Decode<protocol::Resume>(frame.payload));
      return generator_.Resume(resume);
    }
    case MessageType::kCancel: {
      ASSIGN_OR_RETURN(const auto cancel, protocol::Decode<protocol::Cancel>(frame.payload));
      generator_.Cancel(cancel.rid);
      return {};
    }
    case MessageType::kRelease: {
      ASSIGN_OR_RETURN(const auto release, protocol::Decode<protocol::Release>(frame.payload));
      generator_.Release(release.rid);
      return {};
    }
    case MessageType::kCacheCommand: {
      ASSIGN_OR_RETURN(const auto command, protocol::Decode<protocol::CacheCommand>(frame.payload));
      generator_.Command(command);
      return {};
    }
    case MessageType::kConversationCommand: {
      ASSIGN_OR_RETURN(const auto command,
                       protocol::Decode<protocol::ConversationCommand>(frame.payload));
      generator_.Command(command);
      return {};
    }
    case MessageType::kTenantSettings: {
      ASSIGN_OR_RETURN(const auto settings,
                       protocol::Decode<protocol::TenantSettings>(frame.payload));
      generator_.SetTenants(settings);
      return {};
    }
    case MessageType::kCredit: {
      ASSIGN_OR_RETURN(const auto credit, protocol::Decode<protocol::Credit>(frame.payload));
      generator_.Credit(credit.rid, credit.bytes);
      return {};
    }
    default:
      return Err(ErrorCode::protocol_error, "a frame of unknown type");
  }
}

// Messages of requests whose frontend went away a moment ago go nowhere.
void WorkerLoop::Send(const protocol::Accepted& message) {
  if (frontend_) frontend_->Send(message);
}
void WorkerLoop::Send(const protocol::Begun& message) {
  if (frontend_) frontend_->Send(message);
}
void WorkerLoop::Send(const protocol::Event& message) {
  if (frontend_) frontend_->Send(message);
}
void WorkerLoop::Send(const protocol::End& message) {
  if (frontend_) frontend_->Send(message);
}
void WorkerLoop::Send(const protocol::Failed& message) {
  if (frontend_) frontend_->Send(message);
}

void WorkerLoop::Send(const protocol::CacheAnswer& message) {
  if (frontend_) frontend_->Send(message);
}

void WorkerLoop::Send(const protocol::ConversationAnswer& message) {
  if (frontend_) frontend_->Send(message);
}

void WorkerLoop::Send(const protocol::Forgotten& message) {
  if (frontend_) frontend_->Send(message);
}

void WorkerLoop::Send(const protocol::Cleared& message) { control_->Send(message); }

// --- Draining ----------------------------------------------------------------------------------

bool WorkerLoop::FinishDraining() {
  const int64_t now_ms = MonotonicMs();
  if (generator_.live() > 0) {
    if (now_ms < *drain_deadline_ms_) return false;
    LogWarning("{} requests did not end in time", generator_.live());
    generator_.FailAll(
        Error{ErrorCode::shutting_down, "this model was shut down before the answer ended", {}, 0});
  }
  if (generator_.IsDeleting() && now_ms < *drain_deadline_ms_) return false;
  generator_.KeepAll(std::max<int64_t>(*drain_deadline_ms_ - now_ms, limits::kKeepAllMs));
  SayDrained();
  return true;
}

void WorkerLoop::SayDrained() {
  if (frontend_) FlushChannel(&*frontend_, limits::kDrainFlushMs);
  control_->Send(protocol::Drained{});
  FlushChannel(control_, limits::kDrainFlushMs);
  LogInfo("drained");
}

void FlushChannel(protocol::Channel* channel, int timeout_ms) {
  const int64_t deadline_ms = MonotonicMs() + timeout_ms;
  while (channel->wants_write()) {
    const int64_t left_ms = deadline_ms - MonotonicMs();
    if (left_ms <= 0) return;
    pollfd fd{channel->fd(), POLLOUT, 0};
    if (poll(&fd, 1, static_cast<int>(left_ms)) > 0) channel->OnWritable();
  }
}

}  // namespace perdure::worker
