// Figures that the kernel keeps of processes. Absent where /proc does not say.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace perdure::supervisor {

struct MemoryUse {
  uint64_t rss_bytes = 0;
  uint64_t shared_bytes = 0;  // of these, pages of files and shared memory
  uint64_t shmem_bytes = 0;   // of those, of shared memory
  // What would be free without this process: without shared memory, and pages that others have,
  // too, in parts. Of a process that maps very much its whole, as the kernel would take long to
  // tell.
  uint64_t own_bytes = 0;
};
std::optional<MemoryUse> ReadMemoryUse(int pid);

std::optional<uint64_t> ReadMajorFaults(int pid);
// The same from the text of /proc/PID/stat, whose second field may hold blanks and parentheses.
std::optional<uint64_t> MajorFaultsFromStat(std::string_view text);

// How many processes the OOM killer has ended: in this process's control group (version 2) if that
// tells, else on the machine.
uint64_t ReadOomKills();

}  // namespace perdure::supervisor
