// How much memory this process may use: the machine's, or less where a control group has a limit.
#pragma once

#include <cstdint>
#include <filesystem>

namespace perdure {

struct MemoryState {
  uint64_t capacity = 0;    // bytes in all: MemTotal, or the lowest limit on the way to the root
  uint64_t available = 0;   // bytes that could still be allocated
  bool is_limited = false;  // the capacity is a control group's limit
};

// MemTotal and MemAvailable of /proc/meminfo, cut by the limits of every control group from this
// process's own up to the root, versions 1 and 2; what a group's page cache holds counts as
// available. `root` replaces "/" in tests. Zeros when nothing can be read. Thread-safe.
MemoryState ReadMemoryState(const std::filesystem::path& root = "/");

// What models may take together: `configured`, up to all there is, or where that is 0 what there is
// less a reserve for everything else (limits::kMemoryReserve…).
uint64_t MemoryBudget(uint64_t configured, uint64_t capacity);

}  // namespace perdure
