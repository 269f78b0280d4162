#include "base/memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#include "base/control_groups.h"
#include "base/limits.h"

namespace perdure {
namespace {

namespace fs = std::filesystem;

// The number behind `key` in a file of "key value" lines; of the first line for an empty key.
std::optional<uint64_t> ReadNumber(const fs::path& path, std::string_view key) {
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

// An absent limit is the text "max" in version 2 and a number beyond all memory in version 1.
struct FileNames {
  const char* limit;
  const char* used;
  const char* cache;  // in memory.stat
};
constexpr FileNames kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes",
                              "total_inactive_file "};
constexpr FileNames kVersion2{"memory.max", "memory.current", "inactive_file "};

void ApplyLimit(const FileNames& names, const fs::path& folder, MemoryState* state) {
  const auto limit = ReadNumber(folder / names.limit, "");
  if (!limit) return;
  const uint64_t used = ReadNumber(folder / names.used, "").value_or(0);
  const uint64_t cache = ReadNumber(folder / "memory.stat", names.cache).value_or(0);
  if (*limit < state->capacity) state->is_limited = true;
  state->capacity = std::min(state->capacity, *limit);
  state->available = std::min(state->available, Minus(*limit, Minus(used, cache)));
}

}  // namespace

MemoryState ReadMemoryState(const fs::path& root) {
  MemoryState state;
  state.capacity = ReadNumber(root / "proc/meminfo", "MemTotal:").value_or(0) * 1024;
  state.available = ReadNumber(root / "proc/meminfo", "MemAvailable:").value_or(0) * 1024;
  VisitControlGroups(root, "memory", [&](ControlGroupVersion version, const fs::path& folder) {
    ApplyLimit(version == ControlGroupVersion::k2 ? kVersion2 : kVersion1, folder, &state);
  });
  return state;
}

uint64_t MemoryBudget(uint64_t configured, uint64_t capacity) {
  if (configured > 0) return std::min(configured, capacity);
  const uint64_t reserve =
      std::max(capacity / limits::kMemoryReservePart, limits::kMemoryReserveBytesMin);
  // A machine that is as small as its reserve still serves what fits into half of it.
  return capacity > 2 * reserve ? capacity - reserve : capacity / 2;
}

}  // namespace perdure
