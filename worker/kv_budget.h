// How much memory a model's KV may take, and how long a context that allows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.h"
#include "worker/page_pool.h"

namespace perdure::worker {

struct KvBudgetInputs {
  uint64_t kv_bytes_max = 0;  // configured; 0: derived from memory
  int max_context = 0;        // configured, in tokens; 0: the model's
  int model_context = 0;      // the model's own, > 0
  int sequences_max = 1;      // ≥ 1
  size_t page_bytes = 0;      // > 0
  uint64_t memory_available = 0;
};

struct KvBudget {
  PageIndex pages_max = 0;
  int max_context = 0;       // tokens of prompt and answer; a pool of pages_max holds that many
  bool context_cut = false;  // the budget, not the model or the config, bounds the context
  std::string reason;        // for the log: where the figures come from
};

// Derived: a quarter of the available memory; at least one full context where half of it allows
// that; never more than sequences_max full contexts. Errors (out_of_memory) when not even one page
// fits.
Result<KvBudget> DeriveKvBudget(const KvBudgetInputs& inputs);

// What this process could still allocate: MemAvailable, or less where a control group (version 2)
// on the way to the root has a limit. `root` replaces "/" in tests. 0 when nothing can be read.
uint64_t AvailableMemory(const std::filesystem::path& root = "/");

}  // namespace perdure::worker
