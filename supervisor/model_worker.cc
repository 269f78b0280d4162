#include "supervisor/model_worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/percent_encode.h"
#include "base/processors.h"
#include "protocol/codec.h"

namespace perdure::supervisor {
namespace {

constexpr int kRetryAfterWhileLoadingS = 5;

}  // namespace

WorkerSettings WorkerSettingsOf(const Config& config, const ModelConfig& model) {
  WorkerSettings settings;
  settings.model = model;
  protocol::WorkerHeritage& h = settings.heritage;
  h.model = model.name;
  h.threads = model.threads > 0 ? model.threads : UsableProcessors();
  h.max_context = model.max_context;
  h.max_sequences = model.max_sequences;
  h.kv_bytes_max = model.kv_bytes_max;
  h.prefill_tokens_per_step = config.prefill_tokens_per_step;
  h.isa = config.isa;
  h.activations = model.activations;
  h.default_temperature =
      model.default_temperature ? model.default_temperature : config.default_temperature;
  h.default_max_tokens = config.default_max_tokens;
  h.slow_client_timeout_s = config.slow_client_timeout_s;
  h.quantize_bits = model.quantize_bits;
  if (config.prepared_weights) h.prepared_dir = (config.state_dir / "prepared").string();
  h.prepared_bytes_max = config.prepared_weights_max;
  h.cache = config.cache;
  // What [cache] says of its type is of no use to another.
  if (!model.cache_type.empty() && model.cache_type != config.cache.settings.type) {
    h.cache = {};
    h.cache.settings.type = model.cache_type;
    h.cache.settings.optimization_interval = config.cache.settings.optimization_interval;
  }
  h.cache_types = config.cache_types;
  h.conversations = config.conversations;
  h.shared_prompts = config.shared_prompts;
  h.snapshots = config.snapshots;
  if (model.retention_days > 0) h.snapshots.retention_days = model.retention_days;
  if (config.snapshots.enabled)
    h.snapshot_dir = (config.state_dir / "conversations" / PercentEncode(model.name, ".")).string();
  return settings;
}

ModelWorker::ModelWorker(EventLoop& loop, const Context& context, WorkerSettings settings,
                         const Timings& timings)
    : ManagedChild(loop, "worker " + settings.model.name, timings, timings.restart),
      context_(context),
      settings_(std::move(settings)),
      created_unix_(UnixSeconds()) {}

Result<std::unique_ptr<ChildProcess>> ModelWorker::StartProcess(ChildProcess::Callbacks callbacks) {
  ASSIGN_OR_RETURN(const std::filesystem::path folder,
                   hub::FindModel(settings_.model.source, context_.places));
  ASSIGN_OR_RETURN(protocol::ChannelPair pair, protocol::MakeChannelPair());
  protocol::Heritage heritage;
  heritage.instance = context_.instance;
  heritage.log_level = context_.log_level;
  heritage.supervisor_pid = getpid();
  heritage.worker = settings_.heritage;
  heritage.worker->model_dir = folder.string();
  heritage.worker->epoch = epoch_ + 1;
  const hub::MemoryClaims claims = context_.claims(settings_.model);
  heritage.worker->memory_claimed_bytes = claims.bytes;
  heritage.worker->memory_sharers = claims.sharers;
  heritage.worker->channel_fd = pair.b.get();
  std::vector<int> inherited = {pair.b.get()};
  if (!arena_) OpenArena();
  if (arena_) {
    heritage.worker->arena_fd = arena_->fd();
    inherited.push_back(arena_->fd());
  }
  auto process = ChildProcess::Start(loop_, context_.program, "perdure-worker: " + name(),
                                     std::move(heritage), inherited, std::move(callbacks));
  if (process) {
    ++epoch_;
    context_.offer(Offer(), std::move(pair.a));
  }
  return process;
}

void ModelWorker::OpenArena() {
  // A budget that the worker will derive from memory is not known yet. Where /dev/shm is much
  // smaller than memory (containers), the arena does better without it.
  const uint64_t configured = settings_.heritage.kv_bytes_max;
  const uint64_t room = configured > 0 ? configured : ReadMemoryState().capacity / 4;
  auto arena = shm::ArenaSegment::Open(context_.instance, name(), room);
  if (!arena) {
    LogWarning("{}: its KV cache will end with each process: {}", who(), arena.error().message);
    return;
  }
  if (!arena->unnamed_reason().empty())
    LogInfo("{}: its KV cache will end with the service: {}", who(), arena->unnamed_reason());
  arena_ = std::move(*arena);
}

void ModelWorker::DropArena() {
  if (arena_) arena_->Unlink();
  arena_.reset();
}

protocol::ChannelOffer ModelWorker::Offer() const {
  return {name(), epoch_, suspects_.suspects(), suspects_.quarantined()};
}

void ModelWorker::OnFrame(protocol::ReceivedFrame received) {
  switch (received.frame.type) {
    case protocol::MessageType::kWorkerReady: {
      auto facts = protocol::Decode<protocol::WorkerReady>(received.frame.payload);
      if (!facts) break;
      facts_ = std::move(*facts);
      LogInfo("{} is ready: {}, {}, {:.1f} million parameters, context {}, {} after {:.1f} s",
              who(), facts_->architecture, facts_->quantization,
              static_cast<double>(facts_->parameters) / 1e6, facts_->max_context, facts_->isa,
              static_cast<double>(MonotonicMs() - process_->started_ms()) / 1000.0);
      return Dispatch({.kind = ChildEventKind::kReady});
    }
    case protocol::MessageType::kLoadFailed: {
      auto failed = protocol::Decode<protocol::LoadFailed>(received.frame.payload);
      if (!failed) break;
      load_failed_ = std::move(*failed);
      return;
    }
    case protocol::MessageType::kDrained:
      if (!protocol::Decode<protocol::Drained>(received.frame.payload)) break;
      return;  // its exit follows
    case protocol::MessageType::kCleared: {
      const auto cleared = protocol::Decode<protocol::Cleared>(received.frame.payload);
      if (!cleared) break;
      return suspects_.OnCleared(cleared->rid);
    }
    case protocol::MessageType::kChannelBroken: {
      const auto broken = protocol::Decode<protocol::ChannelBroken>(received.frame.payload);
      if (!broken) break;
      LogError("{} closed its channel to the frontend: {}", who(), broken->reason);
      return context_.wants_channel(name());
    }
    default:
      break;
  }
  Misused(
      fmt::format("it sent a malformed message (type {})", static_cast<int>(received.frame.type)));
}

void ModelWorker::OnChannelBroken(uint32_t epoch, const std::string& reason) {
  if (epoch == epoch_ && alive()) Misused("the frontend could not read it: " + reason);
}

void ModelWorker::FlushToChild() {
  if (!process_) return;
  if (new_channel_ && process_->can_send())
    process_->Send(protocol::NewChannel{}, std::exchange(new_channel_, UniqueFd()));
  if (drain_timeout_s_ && process_->can_send()) {
    process_->Send(protocol::Drain{*drain_timeout_s_, hands_over_});
    drain_timeout_s_.reset();
  }
}

void ModelWorker::QueueDrain(int timeout_s) { drain_timeout_s_ = timeout_s; }

void ModelWorker::QueueNewChannel(UniqueFd fd) {
  new_channel_ = std::move(fd);
  FlushToChild();
}

void ModelWorker::OnDeath(const Obituary& obituary) {
  // What was computed with damaged weights is not to be used.
  if (obituary.death == DeathClass::kDamaged) DropArena();
  if (!CountsAgainstModel(obituary.death)) return;
  const protocol::RequestId given_up = suspects_.OnDeath(obituary.last_words.step_rids);
  if (given_up != 0)
    LogError("{}: request {:016x} was alone in the step of a second death and is given up", who(),
             given_up);
}

void ModelWorker::OnGone() {
  facts_.reset();
  load_failed_.reset();
  new_channel_.reset();
  drain_timeout_s_.reset();
  hands_over_ = false;
}

bool ModelWorker::HadProgress() const {
  return status() != nullptr && status()->steps_completed.load(std::memory_order_relaxed) > 0;
}

std::string ModelWorker::LastMessage() const {
  return load_failed_ ? load_failed_->message : std::string();
}

protocol::RosterEntry ModelWorker::Entry(int64_t now_ms) const {
  protocol::RosterEntry entry;
  entry.name = name();
  // To clients it is a start like any other.
  entry.state = hands_over_ && state() == ModelState::kStopping ? ModelState::kStarting : state();
  entry.epoch = epoch_;
  entry.is_default = is_default();
  entry.created_unix = created_unix_;
  entry.max_context = facts_ ? facts_->max_context : 0;
  entry.reason = reason();
  if (state() == ModelState::kBackoff || state() == ModelState::kFailed) {
    entry.retry_after_s = static_cast<int32_t>((until_retry_ms(now_ms) + 999) / 1000);
    if (entry.retry_after_s == 0) entry.retry_after_s = 1;
  } else if (state() != ModelState::kReady) {
    entry.retry_after_s = kRetryAfterWhileLoadingS;
  }
  if (status() != nullptr) {
    entry.load_bytes_done = status()->load_bytes_done.load(std::memory_order_relaxed);
    entry.load_bytes_total = status()->load_bytes_total.load(std::memory_order_relaxed);
  }
  return entry;
}

void ModelWorker::Replace() {
  hands_over_ = process_ != nullptr;
  Stop(0, timings_.drain_grace_ms);
  Run();
}

std::string ModelWorker::Reload(WorkerSettings settings, const Timings& timings) {
  SetTimings(timings, timings.restart);
  const bool same = settings.model.source == settings_.model.source &&
                    protocol::Encode(settings.heritage) == protocol::Encode(settings_.heritage);
  settings_ = std::move(settings);
  if (same && wanted()) {
    if (state() != ModelState::kFailed) return {};
    Run();
    return fmt::format("{} is tried again", who());
  }
  Stop(timings_.drain_ms, timings_.drain_grace_ms);
  Run();
  return fmt::format("{} is started with other settings", who());
}

}  // namespace perdure::supervisor
