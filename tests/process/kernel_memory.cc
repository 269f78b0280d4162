#include "kernel_memory.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;

// The supervisor holds each by a descriptor.
uint64_t ArenaBytesHeldBy(pid_t pid) {
  uint64_t bytes = 0;
  std::set<ino_t> seen;
  std::error_code error;
  for (fs::directory_iterator it(fmt::format("/proc/{}/fd", pid), error), end; !error && it != end;
       it.increment(error)) {
    std::error_code gone;
    const std::string target = fs::read_symlink(it->path(), gone).string();
    if (!target.starts_with("/dev/shm/perdure.") && !target.starts_with("/memfd:perdure."))
      continue;
    struct stat st {};
    if (stat(it->path().c_str(), &st) != 0 || !seen.insert(st.st_ino).second) continue;
    bytes += static_cast<uint64_t>(st.st_blocks) * 512;
  }
  return bytes;
}

}  // namespace

std::vector<pid_t> ChildrenOf(pid_t pid) {
  std::vector<pid_t> children;
  std::ifstream in(fmt::format("/proc/{0}/task/{0}/children", pid));
  for (pid_t child = 0; in >> child;) children.push_back(child);
  return children;
}

uint64_t ReadPssWithoutShmem(pid_t pid) {
  std::ifstream in(fmt::format("/proc/{}/smaps_rollup", pid));
  uint64_t pss_kib = 0, shmem_kib = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("Pss:")) pss_kib = std::stoull(line.substr(4));
    if (line.starts_with("Pss_Shmem:")) shmem_kib = std::stoull(line.substr(10));
  }
  return (pss_kib - shmem_kib) * 1024;
}

KernelMemory ReadKernelMemory(pid_t supervisor) {
  KernelMemory memory;
  std::vector<pid_t> processes = ChildrenOf(supervisor);
  processes.push_back(supervisor);
  for (const pid_t pid : processes) {
    const uint64_t bytes = ReadPssWithoutShmem(pid);
    memory.processes += bytes > 0;
    memory.process_bytes += bytes;
  }
  memory.arena_bytes = ArenaBytesHeldBy(supervisor);
  return memory;
}

}  // namespace perdure::process_tests
