// What a service takes of the machine's memory, as the kernel tells it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace perdure::process_tests {

// Its children that live.
std::vector<pid_t> ChildrenOf(pid_t pid);

struct KernelMemory {
  int processes = 0;
  uint64_t process_bytes = 0;  // shared pages in parts (PSS), without shared memory
  uint64_t arena_bytes = 0;    // of all arenas, mapped or not, each once
  uint64_t bytes() const { return process_bytes + arena_bytes; }
};
// Of a supervisor, its children, and the arenas that it holds.
KernelMemory ReadKernelMemory(pid_t supervisor);

// Of one process; 0 where it is gone.
uint64_t ReadPssWithoutShmem(pid_t pid);

}  // namespace perdure::process_tests
