// Everything that a child process inherits from the supervisor: one typed struct, written to a
// memfd whose number is the child's only argument. File descriptors are named here by their
// numbers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/cache_settings.h"
#include "base/result.h"
#include "base/snapshot_settings.h"
#include "protocol/messages.h"

namespace perdure::protocol {

// Exit codes of every Perdure process (sysexits in spirit: who has to act?).
inline constexpr int kExitOk = 0;
inline constexpr int kExitUsage = 100;     // the command line or the config
inline constexpr int kExitBug = 101;       // a bug of ours
inline constexpr int kExitSystem = 111;    // the system: a port taken, no memory, no permission
inline constexpr int kExitBadModel = 112;  // the model's files; restarting does not help
inline constexpr int kExitDamaged = 113;   // a prepared file, now removed; restarting helps

struct WorkerHeritage {
  std::string model;
  std::string model_dir;
  uint32_t epoch = 0;
  int32_t channel_fd = -1;  // to the frontend
  int32_t arena_fd = -1;    // shared memory for KV; none: the worker's own memory
  int32_t threads = 1;
  int32_t max_context = 0;    // 0: the model's own, as far as the budget goes
  int32_t max_sequences = 0;  // decoded together
  uint64_t kv_bytes_max = 0;
  // Of the memory that there is, what is not for this model's KV: see engine/kv_budget.h.
  uint64_t memory_claimed_bytes = 0;
  uint64_t kv_granted_bytes = 0;  // that KV may take until a KvLimit comes; 0: all
  int32_t prefill_tokens_per_step = 0;
  std::string isa;          // empty: the best of this CPU
  std::string activations;  // as in base/config.h
  std::string tool_format;  // the same
  std::optional<float> default_temperature;
  int32_t default_max_tokens = 0;
  int32_t slow_client_timeout_s = 0;
  int32_t quantize_bits = 0;        // of floats, while loading; 0: they stay as they are
  std::string prepared_dir;         // empty: nothing is prepared
  uint64_t prepared_bytes_max = 0;  // 0: derived from the disk
  CacheChoice cache;                // of conversations of which nothing is said
  std::vector<NamedCacheType> cache_types;
  ConversationSettings conversations;
  std::vector<std::string> shared_prompts;  // files: system prompts that all tenants may share
  bool warm_up = false;                     // they are computed before anybody asks
  SnapshotSettings snapshots;
  std::string snapshot_dir;  // of this model; empty: nothing is stored
  std::string saved_dir;     // of this model: conversations that were saved by name
  auto Fields() {
    return std::tie(model, model_dir, epoch, channel_fd, arena_fd, threads, max_context,
                    max_sequences, kv_bytes_max, memory_claimed_bytes, kv_granted_bytes,
                    prefill_tokens_per_step, isa, activations, default_temperature,
                    default_max_tokens, slow_client_timeout_s, quantize_bits, prepared_dir,
                    tool_format, prepared_bytes_max, cache, cache_types, conversations,
                    shared_prompts, warm_up, snapshots, snapshot_dir, saved_dir);
  }
};

struct FrontendHeritage {
  int32_t listen_fd = -1;
  FrontendSettings settings;
  auto Fields() { return std::tie(listen_fd, settings); }
};

struct Heritage {
  std::string instance;  // stands in shared-memory names
  std::string log_level;
  int32_t supervisor_pid = 0;
  int32_t control_fd = -1;  // framed channel to the supervisor
  int32_t status_fd = -1;   // memfd with a StatusShm
  std::optional<WorkerHeritage> worker;
  std::optional<FrontendHeritage> frontend;
  auto Fields() {
    return std::tie(instance, log_level, supervisor_pid, control_fd, status_fd, worker, frontend);
  }
};

// Writes the heritage to a new memfd (not close-on-exec), to be named in the child's argument.
Result<int> WriteHeritage(const Heritage& heritage);
// Reads and closes the memfd named by `argument` ("--heritage=N"). The descriptors that it names
// are made close-on-exec; one that is not open is an error.
Result<Heritage> ReadHeritage(const char* argument);

// What a child does first: asks for death with its parent, and exits if that is gone already. From
// then on it ignores SIGINT, SIGTERM and SIGHUP, which terminals and service managers send to whole
// groups: a child is told to drain by the supervisor, and SIGKILL ends it. SIGPIPE is ignored too.
void DieWithParent(int supervisor_pid);

}  // namespace perdure::protocol
