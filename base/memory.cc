#include "base/memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

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

// Where a version of control groups keeps its figures. An absent limit is the text "max" in version
// 2 and a number beyond all memory in version 1.
struct Hierarchy {
  const char* mount;
  const char* limit;
  const char* used;
  const char* cache;  // in memory.stat
};
constexpr Hierarchy kVersion1{"sys/fs/cgroup/memory", "memory.limit_in_bytes",
                              "memory.usage_in_bytes", "total_inactive_file "};
constexpr Hierarchy kVersion2{"sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};

// Every group on the way up may have a limit. A container sees its own group as the root, though
// /proc/self/cgroup may name it by the host's path: folders that are not there are passed over.
void ApplyLimits(const Hierarchy& hierarchy, const fs::path& root, const std::string& group,
                 MemoryState* state) {
  const fs::path top = root / hierarchy.mount;
  fs::path at = fs::path(group).relative_path().lexically_normal();
  if (at.empty() || *at.begin() == "." || *at.begin() == "..") at.clear();  // not below our root
  for (;; at = at.parent_path()) {
    const fs::path folder = at.empty() ? top : top / at;
    if (const auto limit = ReadNumber(folder / hierarchy.limit, "")) {
      const uint64_t used = ReadNumber(folder / hierarchy.used, "").value_or(0);
      const uint64_t cache = ReadNumber(folder / "memory.stat", hierarchy.cache).value_or(0);
      state->capacity = std::min(state->capacity, *limit);
      state->available = std::min(state->available, Minus(*limit, Minus(used, cache)));
    }
    if (at.empty()) return;
  }
}

}  // namespace

MemoryState ReadMemoryState(const fs::path& root) {
  MemoryState state;
  state.capacity = ReadNumber(root / "proc/meminfo", "MemTotal:").value_or(0) * 1024;
  state.available = ReadNumber(root / "proc/meminfo", "MemAvailable:").value_or(0) * 1024;
  // Lines are "<number>:<controllers>:<group>"; version 2 is number 0 without controllers.
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") ApplyLimits(kVersion2, root, group, &state);
    if (controllers.find(",memory,") != std::string::npos)
      ApplyLimits(kVersion1, root, group, &state);
  }
  return state;
}

}  // namespace perdure
