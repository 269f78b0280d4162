// Starting a program: fork and exec, with exactly the descriptors it shall have.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::supervisor {

struct SpawnRequest {
  std::filesystem::path program;
  std::vector<std::string> arguments;  // argv[0] first
  int output_fd = -1;                  // becomes its standard output and error
  std::vector<int> inherited_fds;      // keep their numbers; all others are closed on exec
};

struct SpawnedProcess {
  int pid = -1;
  UniqueFd pidfd;
};

// The child gets default signal handling, an empty signal mask, /dev/null as standard input, and
// dies with the calling thread. Where exec fails the child says so on output_fd and exits with 111.
Result<SpawnedProcess> Spawn(const SpawnRequest& request);

// As process 1 of a container the supervisor is handed processes whose parents have ended. Takes
// note of those of them that are dead, so that none stays as a zombie; `own` are left to their
// owners. Returns how many it found. Does not wait.
int ReapAdopted(std::span<const int> own);

}  // namespace perdure::supervisor
