#include "worker/kv_budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <optional>

#include "base/check.h"
#include "engine/kv_view.h"

namespace perdure::worker {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// The number behind `key` in a file of "key value" lines; of the first line for an empty key.
std::optional<uint64_t> ReadNumber(const std::filesystem::path& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    std::string_view rest = std::string_view(line).substr(key.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(" \t"), rest.size()));
    uint64_t value = 0;
    if (std::from_chars(rest.data(), rest.data() + rest.size(), value).ec == std::errc())
      return value;
    return std::nullopt;
  }
  return std::nullopt;
}

uint64_t Minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

}  // namespace

Result<KvBudget> DeriveKvBudget(const KvBudgetInputs& in) {
  CHECK(in.model_context > 0 && in.sequences_max >= 1 && in.page_bytes > 0);
  KvBudget budget;
  budget.max_context = in.model_context;
  if (in.max_context > 0) budget.max_context = std::min(in.max_context, in.model_context);
  const auto pages_for = [](int tokens) {
    return static_cast<uint64_t>(engine::KvShape::PagesFor(tokens));
  };
  const uint64_t one = pages_for(budget.max_context);
  uint64_t pages = 0;
  if (in.kv_bytes_max > 0) {
    pages = in.kv_bytes_max / in.page_bytes;
    budget.reason = fmt::format("as configured ({} MiB)", in.kv_bytes_max / kMiB);
  } else {
    const uint64_t quarter = in.memory_available / 4 / in.page_bytes;
    const uint64_t half = in.memory_available / 2 / in.page_bytes;
    pages = std::max(quarter, std::min(one, half));
    budget.reason =
        fmt::format("derived from {} MiB of available memory", in.memory_available / kMiB);
  }
  pages = std::min(pages, one * static_cast<uint64_t>(in.sequences_max));
  pages = std::min<uint64_t>(pages, std::numeric_limits<PageIndex>::max());
  if (pages == 0)
    return Err(ErrorCode::out_of_memory,
               fmt::format("no memory for a KV cache: {} tokens take {} KiB, the budget, {}, is "
                           "below that; raise kv_bytes_max or free memory",
                           engine::kPageTokens, in.page_bytes / 1024, budget.reason));
  if (pages < one) {
    budget.context_cut = true;
    budget.max_context = static_cast<int>(pages) * engine::kPageTokens;
  }
  budget.pages_max = static_cast<PageIndex>(pages);
  return budget;
}

uint64_t AvailableMemory(const std::filesystem::path& root) {
  uint64_t available = ReadNumber(root / "proc/meminfo", "MemAvailable:").value_or(0) * 1024;
  std::ifstream file(root / "proc/self/cgroup");
  std::string group;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::/")) group = line.substr(4);
  }
  const std::filesystem::path top = root / "sys/fs/cgroup";
  // Every group on the way up may have a limit. What its page cache holds can be given back.
  for (std::filesystem::path at = top / group;; at = at.parent_path()) {
    if (const auto limit = ReadNumber(at / "memory.max", "")) {
      const uint64_t used = ReadNumber(at / "memory.current", "").value_or(0);
      const uint64_t cache = ReadNumber(at / "memory.stat", "inactive_file ").value_or(0);
      available = std::min(available, Minus(*limit, Minus(used, cache)));
    }
    if (at == top || !at.has_relative_path() || at == at.parent_path()) break;
  }
  return available;
}

}  // namespace perdure::worker
