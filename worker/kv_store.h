// Where a worker keeps its KV: in the arena that the supervisor holds, else in memory of its own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "base/result.h"
#include "engine/engine.h"
#include "shm/page_store.h"

namespace perdure::worker {

struct KvStoreOptions {
  int arena_fd = -1;          // stays the caller's; none: private memory
  uint32_t pages_budget = 0;  // > 0, in 16 bits
  // What the budget could be at most: a new arena has room for so many, as the budget follows from
  // what memory is free and differs from start to start.
  uint32_t pages_max = 0;
  uint64_t fingerprint = 0;   // ModelFingerprint
  int conversations_max = 0;  // that are remembered
};

// Logs what was found. An arena that cannot be used is replaced by private memory, with a warning.
// out_of_memory: not even that is to be had.
Result<std::unique_ptr<shm::PageStore>> OpenKvStore(const engine::ModelInfo& info,
                                                    const KvStoreOptions& options);

// A number that changes with what KV depends on: config and weights as files, and what is done to
// the weights while they are loaded.
uint64_t ModelFingerprint(const std::filesystem::path& model_dir, int quantize_bits);
// What the arena takes of the system's memory now: it is this model's already. 0 for none.
uint64_t ArenaBytes(int arena_fd);

}  // namespace perdure::worker
