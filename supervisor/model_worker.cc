#include "supervisor/model_worker.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/percent_encode.h"
#include "base/processors.h"
#include "protocol/codec.h"
#include "supervisor/proc.h"

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
  h.tool_format = model.tool_format;
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
  h.warm_up = model.warm_up;
  h.snapshots = config.snapshots;
  if (model.retention_days > 0) h.snapshots.retention_days = model.retention_days;
  if (config.snapshots.enabled)
    h.snapshot_dir = (config.state_dir / "conversations" / PercentEncode(model.name, ".")).string();
  h.saved_dir = (config.state_dir / "saved" / PercentEncode(model.name, ".")).string();
  settings.idle_timeout_s = model.idle_timeout_s.value_or(config.model_idle_timeout_s);
  settings.arena_timeout_s = config.arena_timeout_s;
  return settings;
}

ModelWorker::ModelWorker(EventLoop& loop, const Context& context, WorkerSettings settings,
                         const Timings& timings)
    : ManagedChild(loop, "worker " + settings.model.name, timings, timings.restart),
      context_(context),
      settings_(std::move(settings)),
      created_unix_(UnixSeconds()) {
  LeaveFailed();
  Reckon();
  used_ms_ = absent_since_ms_ = MonotonicMs();
}

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
  heritage.worker->memory_claimed_bytes =
      context_.memory_capacity - context_.memory_budget + process_bytes();
  heritage.worker->kv_granted_bytes = kv_limit_;
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
      TakeFacts();
      present_since_ms_ = used_ms_ = MonotonicMs();
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
    case protocol::MessageType::kKvState: {
      const auto kv = protocol::Decode<protocol::KvState>(received.frame.payload);
      if (!kv) break;
      return OnKvState(*kv);
    }
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
    process_->Send(protocol::Drain{*drain_timeout_s_, hands_over_, unloads_});
    drain_timeout_s_.reset();
  }
  if (threads_wait_ && process_->can_send()) {
    threads_wait_ = false;
    process_->Send(protocol::Threads{threads_});
  }
  if (kv_to_send_ && process_->can_send())
    process_->Send(protocol::KvLimit{kv_serial_, *std::exchange(kv_to_send_, std::nullopt)});
}

void ModelWorker::QueueDrain(int timeout_s) { drain_timeout_s_ = timeout_s; }

void ModelWorker::QueueNewChannel(UniqueFd fd) {
  new_channel_ = std::move(fd);
  FlushToChild();
}

Status ModelWorker::BackUp(UniqueFd to, bool kv) {
  if (state() != ModelState::kReady || !process_)
    return Err(ErrorCode::model_loading, "this model is not ready");
  // What waits for it to be read would be in the way of more important things.
  if (!process_->can_send())
    return Err(ErrorCode::overloaded, "this model's process does not read: try again later");
  process_->Send(protocol::BackUp{kv}, std::move(to));
  return {};
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
  hands_over_ = unloads_ = yields_ = false;
  kv_to_send_.reset();
  threads_ = 0;
  threads_wait_ = false;
  used_bytes_ = 0;
  kv_asked_ = false;
  kv_serial_ = 0;
  kv_floor_until_ms_ = 0;
  kv_wanted_ = 0;
  absent_since_ms_ = MonotonicMs();
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
  if (yields_ && entry.state == ModelState::kReady) entry.state = ModelState::kStopping;
  entry.on_demand = !is_retired_;
  if (state() == ModelState::kStopped) entry.missing_bytes = missing_bytes_;
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
  Load();
}

std::string ModelWorker::Reload(WorkerSettings settings, const Timings& timings) {
  SetTimings(timings, timings.restart);
  const bool same = settings.model.source == settings_.model.source &&
                    protocol::Encode(settings.heritage) == protocol::Encode(settings_.heritage);
  settings_ = std::move(settings);
  const bool was_retired = std::exchange(is_retired_, false);
  if (!same) {
    reckoned_bytes_ = 0;
    Reckon();
  }
  if (!wanted()) {
    if (was_retired || has_failed_)
      wants_preload_ = settings_.model.preload || settings_.model.pinned || has_failed_;
    return same ? std::string() : fmt::format("{} has other settings", who());
  }
  if (same && state() != ModelState::kFailed) return {};
  if (!same) Stop(timings_.drain_ms, timings_.drain_grace_ms);
  has_failed_ = false;
  Load();
  return same ? fmt::format("{} is tried again", who())
              : fmt::format("{} is started with other settings", who());
}

// --- Residency ----------------------------------------------------------------------------------

// What a worker has told is better, as long as it is told of the same files.
void ModelWorker::Reckon() {
  const protocol::WorkerHeritage& h = settings_.heritage;
  const int sequences = h.max_sequences > 0 ? h.max_sequences : limits::kSequencesDefault;
  const hub::ModelSize size = hub::SizeOf(settings_.model, context_.places, sequences);
  if (reckoned_bytes_ > 0 && size == size_) return;
  size_ = size;
  measured_bytes_ = 0;
  reckoned_bytes_ =
      size.weight_bytes + size.work_bytes + limits::kWorkerBytes + limits::kWorkerRequestBytes;
  kv_size_ =
      shm::KvSizeOf(size.kv_page_bytes, size.context, sequences, h.conversations.conversations_max);
}

// It has loaded and not computed yet: what computing takes will come on top.
void ModelWorker::TakeFacts() {
  uint64_t loaded = facts_->weight_bytes + limits::kWorkerBytes;
  if (const auto use = ReadMemoryUse(pid()))
    loaded = std::max(loaded, use->rss_bytes - use->shmem_bytes);
  reckoned_bytes_ = loaded + facts_->work_bytes + limits::kWorkerRequestBytes;
  measured_bytes_ = 0;
  if (facts_->kv_slab_bytes > 0) {
    kv_size_.slab_bytes = facts_->kv_slab_bytes;
    kv_size_.least_bytes =
        shm::LeastKvBytes(facts_->kv_slab_bytes, facts_->kv_page_bytes, facts_->max_context);
  }
  SampleMemory();
}

// Of one that has loaded a little more may be reckoned than before, which nobody may have left: it
// counts when it is loaded the next time.
uint64_t ModelWorker::process_bytes() const {
  const bool has_process = alive() || state() == ModelState::kBackoff;
  const uint64_t reckoned =
      has_process ? std::min(reckoned_bytes_, promised_bytes_) : reckoned_bytes_;
  return std::max(reckoned, measured_bytes_);
}

uint64_t ModelWorker::process_used_bytes() const { return pid() > 0 ? used_bytes_ : 0; }

uint64_t ModelWorker::weight_bytes() const {
  return facts_ ? facts_->weight_bytes : size_.weight_bytes;
}

uint64_t ModelWorker::arena_bytes() const {
  constexpr uint64_t kBlock = 512;  // the unit of st_blocks, whatever the file system
  struct stat st {};
  if (!arena_ || fstat(arena_->fd(), &st) != 0) return 0;
  return static_cast<uint64_t>(st.st_blocks) * kBlock;
}

uint64_t ModelWorker::kv_bytes() const {
  const bool has_process = alive() || state() == ModelState::kBackoff;
  return has_process ? std::max(InSlabs(kv_limit_) + KvFixed(), arena_bytes()) : arena_bytes();
}

uint64_t ModelWorker::kv_used_bytes() const {
  if (arena_) return arena_bytes();
  return status() != nullptr ? status()->kv_bytes_reserved.load(std::memory_order_relaxed) : 0;
}

uint64_t ModelWorker::KvLeast() const {
  const uint64_t configured = settings_.heritage.kv_bytes_max;
  return configured > 0 ? InSlabs(std::min(configured, kv_size_.least_bytes))
                        : kv_size_.least_bytes;
}

// What an arena takes for what is in it: descriptors, records of conversations.
uint64_t ModelWorker::KvFixed() const {
  const uint64_t slabs =
      status() != nullptr ? status()->kv_bytes_reserved.load(std::memory_order_relaxed) : 0;
  const uint64_t arena = arena_bytes(), fixed = kv_size_.fixed_bytes;
  if (slabs == 0 || arena <= slabs + fixed) return fixed;
  // Whole slabs are no descriptors: it has just taken them, and not told yet.
  const uint64_t more = arena - slabs - fixed, slab = kv_size_.slab_bytes;
  return fixed + (slab > 0 ? more % slab : more);
}

// The worker takes memory in these, also for what is less than one.
uint64_t ModelWorker::InSlabs(uint64_t bytes) const {
  const uint64_t slab = kv_size_.slab_bytes;
  return slab == 0 ? bytes : (bytes + slab - 1) / slab * slab;
}

ModelUse ModelWorker::Use(int64_t now_ms) const {
  ModelUse use;
  use.presence = PresenceOf(state(), wanted());
  use.pinned = settings_.model.pinned;
  use.wants_preload = wants_preload_ && !is_retired_;
  use.process_bytes = process_bytes();
  use.kv_bytes = kv_bytes();
  use.kv_used_bytes = kv_used_bytes();
  use.kv_least_bytes = KvLeast() + KvFixed();
  if (now_ms < kv_floor_until_ms_) use.kv_floor_bytes = InSlabs(kv_floor_) + KvFixed();
  if (!kv_asked_ && kv_wanted_ > 0) use.kv_wanted_bytes = InSlabs(kv_wanted_) + KvFixed();
  use.kv_wanted_since_ms = kv_wanted_since_ms_;
  use.waiting = is_retired_ ? 0 : waiting_;
  use.running = running_;
  use.waiting_since_ms = waiting_since_ms_;
  use.present_since_ms = present_since_ms_;
  use.used_ms = waiting_ + running_ > 0 ? now_ms : used_ms_;
  const int64_t stay_s = keep_alive_s_                  ? *keep_alive_s_
                         : settings_.idle_timeout_s > 0 ? settings_.idle_timeout_s
                                                        : -1;
  if (stay_s >= 0) use.idle_deadline_ms = used_ms_ + stay_s * 1000;
  if (settings_.arena_timeout_s > 0)
    use.arena_deadline_ms = absent_since_ms_ + int64_t{1000} * settings_.arena_timeout_s;
  return use;
}

void ModelWorker::SetDemand(const protocol::ModelDemand* demand, int64_t now_ms) {
  const bool was_used = waiting_ + running_ > 0;
  waiting_ = demand != nullptr ? demand->waiting : 0;
  running_ = demand != nullptr ? demand->running : 0;
  if (demand != nullptr && demand->keep_alive_s) keep_alive_s_ = demand->keep_alive_s;
  if (waiting_ > 0) waiting_since_ms_ = now_ms - std::max<int64_t>(0, demand->longest_wait_ms);
  if (was_used || demand != nullptr) used_ms_ = now_ms;
}

void ModelWorker::Load() {
  wants_preload_ = false;
  keep_alive_s_.reset();
  if (!facts_) Reckon();
  promised_bytes_ = std::max(reckoned_bytes_, measured_bytes_);
  if (!alive()) {
    const uint64_t arena = arena_bytes(), fixed = KvFixed();
    kv_limit_ = std::max(KvLeast(), arena > fixed ? InSlabs(arena - fixed) : 0);
  }
  if (std::exchange(has_failed_, false) && state() == ModelState::kStopped)
    RunAgain();
  else
    Run();
}

void ModelWorker::Unload() {
  if (!wanted()) return;
  wants_preload_ = false;
  unloads_ = process_ != nullptr;
  Stop(limits::kUnloadDrainMs, timings_.drain_grace_ms);
}

void ModelWorker::Retire(int64_t drain_ms, int64_t grace_ms) {
  is_retired_ = true;
  wants_preload_ = false;
  Stop(drain_ms, grace_ms);
}

void ModelWorker::SetYielding(bool yields) {
  if (std::exchange(yields_, yields) != yields) context_.changed();
}

void ModelWorker::SetMissing(uint64_t bytes) {
  if (std::exchange(missing_bytes_, bytes) != bytes) context_.changed();
}

void ModelWorker::LimitKv(uint64_t bytes) {
  if (kv_asked_) return;
  kv_asked_ = true;
  ++kv_serial_;
  // Whole slabs, or less: a part of one would be taken whole.
  const uint64_t fixed = KvFixed(), slab = std::max<uint64_t>(1, kv_size_.slab_bytes);
  bytes = bytes > fixed ? (bytes - fixed) / slab * slab : 0;
  // What is taken back counts once it has come.
  kv_limit_ = std::max(kv_limit_, bytes);
  kv_to_send_ = kv_asked_bytes_ = bytes;
  FlushToChild();
}

void ModelWorker::RefuseKv() { LimitKv(InSlabs(kv_limit_) + KvFixed()); }

void ModelWorker::OnKvState(const protocol::KvState& kv) {
  const int64_t now_ms = MonotonicMs();
  if (kv_asked_ && kv.serial == kv_serial_) {
    kv_asked_ = false;
    if (kv.limit_bytes > kv_asked_bytes_) {
      kv_floor_ = kv.limit_bytes;
      kv_floor_until_ms_ = now_ms + limits::kKvShrinkPauseMs;
    }
    kv_limit_ = std::min(kv_limit_, kv.limit_bytes);
  }
  if (kv.wanted_bytes > kv_limit_ && kv_wanted_ == 0) kv_wanted_since_ms_ = now_ms;
  kv_wanted_ = kv.wanted_bytes > kv_limit_ ? kv.wanted_bytes : 0;
  context_.changed();
}

void ModelWorker::LimitThreads(int processors) {
  const int threads = std::clamp(processors, 1, std::max(1, settings_.heritage.threads));
  // It begins with all.
  if (threads == (threads_ == 0 ? settings_.heritage.threads : threads_)) return;
  threads_ = threads;
  threads_wait_ = true;
  FlushToChild();
}

void ModelWorker::SampleMemory() {
  if (pid() == 0) return;
  const auto use = ReadMemoryUse(pid());
  if (!use) return;
  measured_bytes_ = use->rss_bytes - use->shmem_bytes;
  used_bytes_ = use->own_bytes;
}

void ModelWorker::OnChanged() {
  if (state() == ModelState::kFailed) has_failed_ = true;
  // Its cool-down is over.
  if (state() == ModelState::kStopped && has_failed_ && !is_retired_) wants_preload_ = true;
  context_.changed();
}

}  // namespace perdure::supervisor
