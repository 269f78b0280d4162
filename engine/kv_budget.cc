#include "engine/kv_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "engine/kv_view.h"

namespace perdure::engine {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::string Size(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  return bytes < kMiB ? fmt::format("{} KiB", bytes / 1024) : fmt::format("{} MiB", bytes / kMiB);
}

uint64_t DerivedBytes(const KvBudgetInputs& in) {
  const uint64_t available = in.memory.available;
  const uint64_t unclaimed =
      in.memory.capacity > in.claimed_bytes ? in.memory.capacity - in.claimed_bytes : 0;
  const uint64_t left = std::clamp(unclaimed, available / 4, available);
  return left / 2;
}

std::string DerivedReason(const KvBudgetInputs& in) {
  return fmt::format("derived from {} of available memory", Size(in.memory.available));
}

uint64_t ContextBytes(const KvBudgetInputs& in, int tokens) {
  if (in.context_bytes) return in.context_bytes(tokens);
  return static_cast<uint64_t>(KvShape::PagesFor(tokens)) * in.page_bytes;
}

// In whole pages.
int LongestContext(const KvBudgetInputs& in, uint64_t bytes, int tokens_max) {
  int fits = 0, too_many = KvShape::PagesFor(tokens_max) + 1;
  while (too_many - fits > 1) {
    const int pages = fits + (too_many - fits) / 2;
    (ContextBytes(in, pages * kPageTokens) <= bytes ? fits : too_many) = pages;
  }
  return std::min(fits * kPageTokens, tokens_max);
}

// The context asked for: the config's where it is the shorter one.
void ChooseContext(const KvBudgetInputs& in, KvBudget* budget) {
  budget->max_context = in.model_context;
  if (in.max_context <= 0) return;
  if (in.max_context <= in.model_context) {
    budget->max_context = in.max_context;
    budget->bound = ContextBound::kConfig;
  } else {
    budget->warnings.push_back(
        fmt::format("max_context is {}, but the model was made for {} tokens: it serves {}",
                    in.max_context, in.model_context, in.model_context));
  }
}

void CutContext(const KvBudgetInputs& in, KvBudget* budget) {
  const int asked = budget->max_context;
  budget->max_context = LongestContext(in, budget->pages_max * in.page_bytes, asked);
  budget->bound = ContextBound::kMemory;
  budget->warnings.push_back(fmt::format(
      "{} tokens of context take {} of KV, the budget has {} ({}): {} tokens are served; {}, "
      "or set max_context to what is enough",
      asked, Size(ContextBytes(in, asked)), Size(budget->pages_max * in.page_bytes), budget->reason,
      budget->max_context,
      in.kv_bytes_max > 0 ? "raise kv_bytes_max" : "free memory, set kv_bytes_max"));
}

}  // namespace

const char* ContextBoundName(ContextBound bound) {
  switch (bound) {
    case ContextBound::kModel:
      return "model";
    case ContextBound::kConfig:
      return "config";
    case ContextBound::kMemory:
      return "memory";
  }
  return "unknown";
}

Result<KvBudget> DeriveKvBudget(const KvBudgetInputs& in) {
  CHECK(in.model_context > 0 && in.sequences_max >= 1 && in.page_bytes > 0);
  KvBudget budget;
  ChooseContext(in, &budget);
  const uint64_t bytes = in.kv_bytes_max > 0 ? in.kv_bytes_max : DerivedBytes(in);
  budget.reason =
      in.kv_bytes_max > 0 ? fmt::format("as configured ({})", Size(bytes)) : DerivedReason(in);
  const uint64_t one = (ContextBytes(in, budget.max_context) + in.page_bytes - 1) / in.page_bytes;
  const uint64_t pages =
      std::min({bytes / in.page_bytes, one * static_cast<uint64_t>(in.sequences_max),
                uint64_t{std::numeric_limits<uint32_t>::max()}});
  if (pages == 0)
    return Err(ErrorCode::out_of_memory,
               fmt::format("no memory for a KV cache: {} tokens take {}, the budget, {}, is "
                           "below that; raise kv_bytes_max or free memory",
                           kPageTokens, Size(in.page_bytes), budget.reason));
  budget.pages_max = static_cast<uint32_t>(pages);
  if (pages == one * static_cast<uint64_t>(in.sequences_max))
    budget.reason = fmt::format("which is {} whole contexts (max_sequences)", in.sequences_max);
  if (in.kv_bytes_max > 0 && pages * in.page_bytes > in.memory.available)
    budget.warnings.push_back(fmt::format(
        "kv_bytes_max allows {} of KV, but only {} of memory are available: a machine that "
        "runs out of memory kills processes; lower it, or free memory",
        Size(pages * in.page_bytes), Size(in.memory.available)));
  if (pages < one) CutContext(in, &budget);
  return budget;
}

}  // namespace perdure::engine
