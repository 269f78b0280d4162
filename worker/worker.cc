#include "worker/worker.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <new>
#include <utility>

#include "base/brief.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/processors.h"
#include "engine/kv_budget.h"
#include "protocol/channel.h"
#include "shm/status.h"
#include "worker/cache_schedule.h"
#include "worker/cache_types.h"
#include "worker/disk_persistence.h"
#include "worker/kv_store.h"
#include "worker/model.h"
#include "worker/saved_folder.h"
#include "worker/shared_prefixes.h"
#include "worker/worker_loop.h"

namespace perdure::worker {
namespace {

using protocol::WorkerHeritage;

// Keys of the keyboard reach the whole process group, as may what is meant for the supervisor,
// which decides what they mean. A file that would grow beyond a limit is an error of its writer.
void IgnoreSignals() {
  for (int number : {SIGINT, SIGHUP, SIGUSR1, SIGPIPE, SIGXFSZ}) signal(number, SIG_IGN);
}

Result<engine::EngineOptions> OptionsOf(const WorkerHeritage& heritage, shm::StatusShm* status) {
  engine::EngineOptions options;
  options.threads = heritage.threads > 0 ? heritage.threads : UsableProcessors();
  options.threads = std::min(options.threads, limits::kEngineThreadsMax);
  if (!heritage.isa.empty()) {
    const auto isa = engine::ParseIsa(heritage.isa);
    if (!isa)
      return Err(ErrorCode::bad_config,
                 "isa is '" + heritage.isa +
                     "', allowed are scalar, avx2, avxvnni, avx512, avx512vnni and nothing");
    if (!engine::CpuHas(*isa))
      return Err(ErrorCode::bad_config, "isa is '" + heritage.isa + "', which this CPU lacks");
    options.isa = *isa;
  }
  if (!heritage.activations.empty()) {
    const auto activations = engine::ParseActivations(heritage.activations);
    if (!activations)
      return Err(ErrorCode::bad_config, "activations is '" + heritage.activations +
                                            "', allowed are int8, float32 and nothing");
    options.activations = *activations;
  }
  options.quantize_bits = heritage.quantize_bits;
  options.prepared.dir = heritage.prepared_dir;
  options.prepared.bytes_max = heritage.prepared_bytes_max;
  options.on_damage = [](const std::string& text) {
    LogError("{}", text);
    _exit(protocol::kExitDamaged);  // what was computed with such weights is not to be used
  };
  options.on_progress = [status](const engine::LoadProgress& progress) {
    status->load_bytes_total.store(progress.bytes_total, std::memory_order_relaxed);
    status->load_bytes_done.store(progress.bytes_done, std::memory_order_relaxed);
    status->progress.fetch_add(1, std::memory_order_relaxed);
  };
  options.on_layer = [status] { status->progress.fetch_add(1, std::memory_order_relaxed); };
  return options;
}

struct Loaded {
  Model model;
  engine::KvBudget budget;
  engine::EngineOptions options;
  int sequences_max = 0;
  int max_context = 0;  // as the model and the configuration have it
  std::unique_ptr<shm::PageStore> store;
};

CacheTypes CacheTypesOf(const WorkerHeritage& heritage) {
  return {heritage.cache_types, heritage.cache};
}

uint64_t BytesHeld(const engine::KvShape& kv, const CacheSchedule& schedule, int tokens) {
  const auto pages = PagesHeld(schedule, tokens);
  uint64_t bytes = 0;
  for (const shm::PageFormat format : shm::kAllFormats)
    bytes += pages[format] * kv.PageBytes(PrecisionOf(format));
  return bytes;
}

// As DeriveKvBudget bounds it, whatever memory there is.
uint32_t PagesOfAllContexts(const engine::KvBudgetInputs& inputs) {
  const int context = inputs.max_context > 0 ? std::min(inputs.max_context, inputs.model_context)
                                             : inputs.model_context;
  const uint64_t pages = static_cast<uint64_t>(engine::KvShape::PagesFor(context)) *
                         static_cast<uint64_t>(inputs.sequences_max);
  return static_cast<uint32_t>(std::min<uint64_t>(pages, limits::kArenaPagesMax));
}

Result<Loaded> Load(const WorkerHeritage& heritage, shm::StatusShm* status) try {
  Loaded loaded;
  const int64_t begin_ms = MonotonicMs();
  ASSIGN_OR_RETURN(loaded.options, OptionsOf(heritage, status));
  ASSIGN_OR_RETURN(loaded.model, LoadModel(heritage.model, heritage.model_dir, heritage.tool_format,
                                           loaded.options));
  loaded.sequences_max = heritage.max_sequences > 0
                             ? std::min(heritage.max_sequences, limits::kSequencesMax)
                             : limits::kSequencesDefault;
  const engine::ModelInfo& info = loaded.model.engine->info();
  engine::KvBudgetInputs inputs;
  inputs.kv_bytes_max = heritage.kv_bytes_max;
  inputs.max_context = heritage.max_context;
  inputs.model_context = info.max_context;
  inputs.sequences_max = loaded.sequences_max;
  inputs.page_bytes = info.kv.PageBytes();
  const ResolvedCache standard = ResolveCache({}, CacheTypesOf(heritage));
  for (const std::string& warning : standard.warnings) LogWarning("{}", warning);
  inputs.context_bytes = [&](int tokens) { return BytesHeld(info.kv, standard.schedule, tokens); };
  loaded.max_context = inputs.max_context > 0 ? std::min(inputs.max_context, inputs.model_context)
                                              : inputs.model_context;
  inputs.memory = ReadMemoryState();
  inputs.memory.available += ArenaBytes(heritage.arena_fd);
  // Mapped weights lie in the page cache, which counts as available.
  inputs.memory.available -= std::min(inputs.memory.available, info.mapped_bytes);
  inputs.claimed_bytes = heritage.memory_claimed_bytes;
  ASSIGN_OR_RETURN(loaded.budget, engine::DeriveKvBudget(inputs));
  LogInfo("loaded {} ({}, {}, {} million parameters) in {} ms: {} threads, {}, numerics {}",
          heritage.model, info.architecture, info.quantization, info.parameters / 1'000'000,
          MonotonicMs() - begin_ms, loaded.options.threads, engine::IsaName(loaded.options.isa),
          info.numerics_id);
  LogInfo("KV cache: {}; up to {} MiB, {}; context {} tokens of the model's {}, bounded by the {}",
          DescribeCache(standard.schedule),
          uint64_t{loaded.budget.pages_max} * inputs.page_bytes >> 20, loaded.budget.reason,
          loaded.budget.max_context, info.max_context,
          engine::ContextBoundName(loaded.budget.bound));
  for (const std::string& warning : loaded.budget.warnings) LogWarning("{}", warning);
  ASSIGN_OR_RETURN(
      loaded.store,
      OpenKvStore(info,
                  {.arena_fd = heritage.arena_fd,
                   .pages_budget = loaded.budget.pages_max,
                   .pages_max = PagesOfAllContexts(inputs),
                   .fingerprint = ModelFingerprint(heritage.model_dir, heritage.quantize_bits),
                   .conversations_max = heritage.conversations.conversations_max}));
  return loaded;
} catch (const std::bad_alloc&) {
  return Err(ErrorCode::out_of_memory, "not enough memory to load the model");
}

// The engine's buffers, and logits of one position a sequence.
uint64_t WorkBytes(const engine::ModelInfo& info, int sequences) {
  const uint64_t rows = std::bit_ceil(static_cast<unsigned>(sequences));
  return info.work_bytes + rows * static_cast<uint64_t>(info.vocab_size) * sizeof(float);
}

// Without it the model is served all the same.
std::unique_ptr<DiskPersistence> OpenPersistence(const WorkerHeritage& heritage,
                                                 GeneratorOptions* options) {
  if (heritage.snapshot_dir.empty()) return nullptr;
  const int64_t begin_ms = MonotonicMs();
  const DiskPersistence::Options files{.dir = heritage.snapshot_dir,
                                       .model = heritage.model,
                                       .sync = heritage.snapshots.sync,
                                       .turns_bytes_max = heritage.snapshots.turns_bytes_max,
                                       .kv_bytes_max = heritage.snapshots.kv_bytes_max,
                                       .kv_compression = heritage.snapshots.kv_compression,
                                       .lock_wait_ms = limits::kSnapshotLockWaitMs};
  auto opened = DiskPersistence::Open(files);
  if (!opened) {
    LogError("conversations are not stored: {}", opened.error().message);
    return nullptr;
  }
  LogInfo("{} conversations and {} pages of KV are stored in {}; read in {} ms",
          opened->conversations.size(), opened->pages.size(), heritage.snapshot_dir,
          MonotonicMs() - begin_ms);
  options->persistence = opened->persistence.get();
  options->stored_conversations = std::move(opened->conversations);
  options->stored_pages = std::move(opened->pages);
  options->retention_ms = int64_t{heritage.snapshots.retention_days} * 24 * 3600 * 1000;
  // LMDB's own pages take the rest.
  options->stored_bytes_max = heritage.snapshots.kv_bytes_max / 10 * 9;
  options->transfer_dir = heritage.snapshot_dir;
  options->saved_dir = heritage.saved_dir;
  options->saved_bytes_max = heritage.snapshots.saved_bytes_max;
  RemoveDrafts(heritage.saved_dir);
  return std::move(opened->persistence);
}

int Serve(const WorkerHeritage& heritage, Loaded loaded, shm::StatusShm* status,
          protocol::Channel* control) {
  const engine::ModelInfo& info = loaded.model.engine->info();
  GeneratorOptions options;
  options.admission.max_context = loaded.max_context;
  options.admission.default_temperature = heritage.default_temperature;
  options.admission.default_max_tokens = heritage.default_max_tokens;
  options.scheduler.sequences_max = loaded.sequences_max;
  options.scheduler.prefill_tokens_per_step = heritage.prefill_tokens_per_step > 0
                                                  ? heritage.prefill_tokens_per_step
                                                  : limits::kPrefillTokensPerStepDefault;
  options.scheduler.resident_max = limits::kSequencesMax;
  // The frontend gives up first; this is for a frontend that does not.
  const int slow_s = heritage.slow_client_timeout_s > 0 ? heritage.slow_client_timeout_s
                                                        : limits::kSlowClientTimeoutS;
  options.slow_client_timeout_us = int64_t{2'000'000} * slow_s;
  options.now_us = &MonotonicUs;
  options.unix_ms = &UnixMs;
  options.cache_types = CacheTypesOf(heritage);
  options.conversations = heritage.conversations;
  options.shared_prefixes = SharedPrefixes(loaded.model, heritage.shared_prompts);
  options.fingerprint = ModelFingerprint(heritage.model_dir, heritage.quantize_bits);
  options.numerics = Hash64(info.numerics_id);
  const std::unique_ptr<DiskPersistence> persistence = OpenPersistence(heritage, &options);

  protocol::Hello hello;
  hello.model = heritage.model;
  hello.epoch = heritage.epoch;
  hello.max_context = loaded.budget.max_context;
  hello.max_sequences = loaded.sequences_max;
  WorkerLoop loop(hello, &loaded.model, options, loaded.store.get(), status, control,
                  UniqueFd(heritage.channel_fd),
                  heritage.kv_granted_bytes > 0 ? heritage.kv_granted_bytes : UINT64_MAX);

  protocol::WorkerReady ready;
  ready.max_context = loaded.budget.max_context;
  ready.architecture = info.architecture;
  ready.quantization = info.quantization;
  ready.parameters = info.parameters;
  ready.weight_bytes = info.weight_bytes;
  ready.kv_bytes_per_token = info.kv.PageBytes() / engine::kPageTokens;
  ready.kv_page_bytes = info.kv.PageBytes();
  ready.isa = engine::IsaName(loaded.options.isa);
  ready.kv_slab_bytes = loaded.store->memory().geometry().slab_bytes;
  ready.work_bytes = WorkBytes(info, loaded.sequences_max);
  control->Send(ready);
  if (heritage.warm_up) loop.WarmUp(options.shared_prefixes);
  return loop.Run();
}

}  // namespace

int RunWorker(const protocol::Heritage& heritage) { return RunWorker(heritage, nullptr); }

int RunWorker(const protocol::Heritage& heritage, const std::function<void(Model*)>& on_loaded) {
  IgnoreSignals();
  if (!heritage.worker) {
    LogError("this heritage is not a worker's");
    return protocol::kExitUsage;
  }
  LogLevel level = LogLevel::kInfo;
  ParseLogLevel(heritage.log_level, &level);
  InitLogging("worker " + heritage.worker->model, level);
  auto block = shm::StatusBlock::Attach(heritage.status_fd);
  if (!block) {
    LogError("{}", block.error().message);
    return protocol::kExitSystem;
  }
  shm::StatusShm* const status = &**block;
  shm::InstallPanicSink(*status);
  status->pid.store(static_cast<uint32_t>(getpid()), std::memory_order_relaxed);
  status->phase.store(static_cast<uint32_t>(shm::Phase::kLoading), std::memory_order_relaxed);
  protocol::Channel control{UniqueFd(heritage.control_fd)};

  auto loaded = Load(*heritage.worker, status);
  if (!loaded) {
    // It stands in logs and in every answer about the model; a hostile file may have made it long.
    const std::string reason = Brief(loaded.error().message, limits::kLogLineBytesMax);
    LogError("cannot serve {}: {}", heritage.worker->model, reason);
    control.Send(protocol::LoadFailed{static_cast<uint16_t>(loaded.error().code), reason});
    FlushChannel(&control, limits::kDrainFlushMs);
    return protocol::kExitBadModel;
  }
  if (on_loaded) on_loaded(&loaded->model);
  const int code = Serve(*heritage.worker, std::move(*loaded), status, &control);
  SetPanicSink(nullptr);  // the block goes with this function
  return code;
}

}  // namespace perdure::worker
