#include "worker/worker_loop.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/random.h"
#include "protocol/codec.h"
#include "protocol/heritage.h"
#include "worker/disk_backup.h"

namespace perdure::worker {

using protocol::MessageType;

namespace {

GeneratorOptions WithGrowth(GeneratorOptions options, std::function<bool()> grow_kv) {
  options.grow_kv = std::move(grow_kv);
  return options;
}

// A frame that asks for something new.
bool BeginsSomething(MessageType type) {
  switch (type) {
    case MessageType::kSubmit:
    case MessageType::kResume:
    case MessageType::kCacheCommand:
    case MessageType::kConversationCommand:
    case MessageType::kConversationFileCommand:
    case MessageType::kConversationUpload:
      return true;
    default:
      return false;
  }
}

}  // namespace

WorkerLoop::WorkerLoop(const protocol::Hello& hello, const Model* model,
                       const GeneratorOptions& options, shm::PageStore* store,
                       shm::StatusShm* status, protocol::Channel* control, UniqueFd frontend,
                       uint64_t kv_granted_bytes)
    : hello_(hello),
      status_(status),
      control_(control),
      persistence_(options.persistence),
      answers_fd_(options.persistence != nullptr ? options.persistence->fd() : -1),
      engine_(model->engine.get()),
      store_(store),
      generator_(model, WithGrowth(options, [this] { return GrowKv(); }), store, status, this) {
  store_->SetLimit(kv_granted_bytes);
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
    GiveBackKv();
    if (drain_deadline_ms_ && FinishDraining()) return protocol::kExitOk;
    if (generator_.HasWork()) {
      generator_.Step();
      AskForKvInTime();
      for (const protocol::RequestId rid : std::exchange(ended_, {})) generator_.Release(rid);
    }
    if (generator_.HasUpkeep())
      generator_.Upkeep();
    else if (!generator_.HasWork() && generator_.NeedsScrub())
      generator_.Scrub();
  }
  return *exit_code_;
}

void WorkerLoop::WarmUp(const std::vector<std::vector<TokenId>>& prompts) {
  for (const std::vector<TokenId>& prompt : prompts) {
    protocol::Submit submit;
    submit.rid = RandomU64();
    submit.request.kind = protocol::RequestKind::kCompletion;
    submit.request.prompt_ids = prompt;
    submit.request.max_tokens = 1;
    submit.request.store = false;
    submit.credit_bytes = limits::kCreditBytes;
    warm_ups_.insert(submit.rid);
    if (const Status status = generator_.Submit(submit); !status)
      LogWarning("a shared prompt is not computed: {}", status.error().message);
  }
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
  if (kv_goal_) timeout_ms = std::min<int64_t>(timeout_ms, limits::kKvGrowPollMs);
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
  const int ready = poll(fds, 3, later_.empty() ? PollTimeoutMs() : 0);
  if (ready <= 0 && later_.empty()) return;  // nothing, or a signal: the caller goes on
  if (fds[2].revents != 0) generator_.TakeAnswers();
  constexpr short kReadable = POLLIN | POLLHUP | POLLERR;
  if ((fds[1].revents & POLLOUT) != 0) frontend_->OnWritable();
  if ((fds[1].revents & kReadable) != 0) ReadFrontend();
  // Last, as it may replace the frontend's channel.
  if ((fds[0].revents & POLLOUT) != 0) control_->OnWritable();
  if ((fds[0].revents & kReadable) != 0 || !later_.empty()) ReadControl();
}

void WorkerLoop::ReadControl() {
  auto outcome = control_->OnReadable();
  std::vector<protocol::ReceivedFrame> frames = std::exchange(later_, {});
  std::ranges::move(outcome.frames, std::back_inserter(frames));
  for (protocol::ReceivedFrame& frame : frames) {
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
    case MessageType::kKvLimit: {
      ASSIGN_OR_RETURN(const auto limit, protocol::Decode<protocol::KvLimit>(frame.payload));
      OnKvLimit(limit);
      return {};
    }
    case MessageType::kThreads: {
      ASSIGN_OR_RETURN(const auto threads, protocol::Decode<protocol::Threads>(frame.payload));
      engine_->SetThreads(threads.count);
      return {};
    }
    case MessageType::kBackUp: {
      ASSIGN_OR_RETURN(const auto message, protocol::Decode<protocol::BackUp>(frame.payload));
      if (!received.fd) return Err(ErrorCode::protocol_error, "a backup came without its socket");
      if (persistence_ != nullptr)
        persistence_->BackUp(std::move(received.fd), message.kv);
      else
        RefuseBackup(received.fd, "conversations of this model are not stored: see its log");
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
      leaves_new_ = drain.leave_new;
      if (!leaves_new_) generator_.StopAdmitting();
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
  for (protocol::ReceivedFrame& received : outcome.frames) {
    status = OnFrontendFrame(std::move(received));
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

Status WorkerLoop::OnFrontendFrame(protocol::ReceivedFrame received) {
  const protocol::Frame& frame = received.frame;
  if (leaves_new_ && BeginsSomething(frame.type)) return {};
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
    case MessageType::kConversationFileCommand: {
      ASSIGN_OR_RETURN(const auto command,
                       protocol::Decode<protocol::ConversationFileCommand>(frame.payload));
      generator_.Command(command);
      return {};
    }
    case MessageType::kConversationUpload: {
      ASSIGN_OR_RETURN(const auto upload,
                       protocol::Decode<protocol::ConversationUpload>(frame.payload));
      generator_.Command(upload, std::move(received.fd));
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
  if (frontend_ && !IsOwn(message.rid)) frontend_->Send(message);
}
void WorkerLoop::Send(const protocol::Begun& message) {
  if (frontend_ && !IsOwn(message.rid)) frontend_->Send(message);
}
void WorkerLoop::Send(const protocol::Event& message) {
  if (frontend_ && !IsOwn(message.rid)) frontend_->Send(message);
}
void WorkerLoop::Send(const protocol::End& message) {
  if (IsOwn(message.rid)) return ended_.push_back(message.rid);
  if (frontend_) frontend_->Send(message);
}
void WorkerLoop::Send(const protocol::Failed& message) {
  if (frontend_ && !IsOwn(message.rid)) frontend_->Send(message);
}

void WorkerLoop::Send(const protocol::CacheAnswer& message) {
  if (frontend_) frontend_->Send(message);
}

void WorkerLoop::Send(const protocol::ConversationAnswer& message) {
  if (frontend_) frontend_->Send(message);
}

void WorkerLoop::Send(const protocol::ConversationFile& message, UniqueFd file) {
  if (frontend_) frontend_->Send(message, std::move(file));
}

void WorkerLoop::Send(const protocol::Forgotten& message) {
  if (frontend_) frontend_->Send(message);
}

void WorkerLoop::Send(const protocol::Cleared& message) { control_->Send(message); }

// --- Memory for KV ------------------------------------------------------------------------------

void WorkerLoop::OnKvLimit(const protocol::KvLimit& message) {
  kv_serial_ = message.serial;
  const uint64_t before = store_->limit_bytes();
  kv_goal_ = message.bytes;
  kv_goal_deadline_ms_ = MonotonicMs() + limits::kKvStoreWaitMs;
  GiveBackKv();
  if (std::exchange(kv_asked_, false))
    kv_refused_ms_ = store_->limit_bytes() > before ? 0 : MonotonicMs();
}

// What is dropped and not stored yet is copied for the disk; copies are memory, too, so it goes on
// when some are stored.
void WorkerLoop::GiveBackKv() {
  if (!kv_goal_) return;
  const bool waits = store_->EvictTo(*kv_goal_, [this] {
    return generator_.storing_bytes() >= limits::kKeepPagesBytes &&
           MonotonicMs() < kv_goal_deadline_ms_;
  });
  if (!waits) KeepToKvGoal();
}

void WorkerLoop::KeepToKvGoal() {
  const uint64_t limit = store_->SetLimit(*std::exchange(kv_goal_, std::nullopt));
  LogDebug("KV may take {} MiB", limit >> 20);
  control_->Send(protocol::KvState{kv_serial_, limit, 0});
}

void WorkerLoop::AskForKv() {
  if (kv_goal_) return;  // it is giving back
  if (std::exchange(kv_asked_, true)) return;
  const uint64_t limit = store_->limit_bytes();
  // Of what is small as much again is enough.
  const uint64_t more = std::max(limit / 2, std::min(limit, limits::kKvGrantBytes));
  control_->Send(protocol::KvState{kv_serial_, limit, std::min(limit + more, store_->bytes_max())});
}

// Cached pages fill what there is: memory that nobody else needs is of use here. The supervisor
// takes it back when somebody does.
void WorkerLoop::AskForKvInTime() {
  const uint64_t limit = store_->limit_bytes();
  const bool is_short = store_->used_bytes() >= limit / 4 * 3 ||
                        status_->sequences_waiting.load(std::memory_order_relaxed) > 0;
  if (limit >= store_->bytes_max() || !is_short) return;
  if (kv_refused_ms_ != 0 && MonotonicMs() < kv_refused_ms_ + limits::kKvAskPauseMs) return;
  AskForKv();
}

bool WorkerLoop::GrowKv() {
  // Nothing is left to be dropped, or the disk is too slow for who waits.
  if (kv_goal_) KeepToKvGoal();
  const uint64_t before = store_->limit_bytes();
  if (before >= store_->bytes_max()) return false;
  if (kv_refused_ms_ != 0 && MonotonicMs() < kv_refused_ms_ + limits::kKvAskPauseMs) return false;
  AskForKv();
  const int64_t deadline_ms = MonotonicMs() + limits::kKvGrowWaitMs;
  while (kv_asked_ && MonotonicMs() < deadline_ms) {
    status_->progress.fetch_add(1, std::memory_order_relaxed);
    pollfd fd{control_->fd(), static_cast<short>(POLLIN | (control_->wants_write() ? POLLOUT : 0)),
              0};
    if (poll(&fd, 1, limits::kKvGrowPollMs) <= 0) continue;
    if ((fd.revents & POLLOUT) != 0) control_->OnWritable();
    if ((fd.revents & (POLLIN | POLLHUP | POLLERR)) == 0) continue;
    auto outcome = control_->OnReadable();
    for (protocol::ReceivedFrame& frame : outcome.frames) {
      const auto limit = frame.frame.type == MessageType::kKvLimit
                             ? protocol::Decode<protocol::KvLimit>(frame.frame.payload)
                             : Err(ErrorCode::protocol_error, "");
      if (limit)
        OnKvLimit(*limit);
      else
        later_.push_back(std::move(frame));
    }
    if (outcome.closed) {
      exit_code_ = outcome.error ? protocol::kExitBug : protocol::kExitOk;
      return false;
    }
  }
  return store_->limit_bytes() > before;
}

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
