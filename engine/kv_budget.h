// How much memory a model's KV may take, and how long a context that allows: a pure function.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/result.h"

namespace perdure::engine {

struct KvBudgetInputs {
  uint64_t kv_bytes_max = 0;  // configured; 0: derived from memory
  int max_context = 0;        // configured, in tokens; 0: the model's
  int model_context = 0;      // the model's own, > 0
  int sequences_max = 1;      // ≥ 1
  size_t page_bytes = 0;      // of binary16, > 0
  // What a sequence of so many tokens takes at most, by the way in which the model keeps its KV.
  // Nothing: whole pages of page_bytes. Must not fall with the number.
  std::function<uint64_t(int tokens)> context_bytes = nullptr;
  MemoryState memory;  // with this model's weights loaded
  // What of the capacity is not for this KV: a reserve, and this model's weights.
  uint64_t claimed_bytes = 0;
};

enum class ContextBound : uint8_t { kModel, kConfig, kMemory };
const char* ContextBoundName(ContextBound bound);  // "model", "config", "memory"

struct KvBudget {
  uint32_t pages_max = 0;
  int max_context = 0;  // tokens of prompt and answer; the pages hold that many
  ContextBound bound = ContextBound::kModel;  // what max_context comes from
  std::string reason;                         // for people: where the bytes come from
  std::vector<std::string> warnings;          // what was configured and cannot be
};

// Derived bytes: half of what is available, or of the capacity less what is claimed where that is
// less, but of a quarter of what is available at least. It is what KV may grow to: the supervisor
// grants it part by part, as other models need memory too.
// Never more pages than sequences_max full contexts.
//
// A context beyond the model's own or beyond the pages is cut with a warning rather than refused:
// what is free differs from start to start, and a model that serves less is better than none.
// out_of_memory when not even one page fits.
Result<KvBudget> DeriveKvBudget(const KvBudgetInputs& inputs);

}  // namespace perdure::engine
