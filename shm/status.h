// The status block of a child process: mapping it, and writing or reading it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "shm/layout.h"
#include "shm/mapped_file.h"

namespace perdure::shm {

// A shared mapping of a StatusShm. Movable; the mapping's address is stable.
class StatusBlock {
 public:
  // Supervisor: a new zeroed block in a memfd. `fd` may be handed to a child.
  static Result<StatusBlock> Create();
  // Child: takes the inherited memfd and maps it; refuses another magic, version or size.
  static Result<StatusBlock> Attach(int fd);

  int fd() const { return fd_.get(); }
  StatusShm& operator*() const { return *shm_; }
  StatusShm* operator->() const { return shm_; }

 private:
  StatusBlock() = default;
  static Result<StatusBlock> Map(UniqueFd fd);
  UniqueFd fd_;
  MappedFile mapping_;
  StatusShm* shm_ = nullptr;
};

// Child: publishes the step's suspects before computing, and clears them after. EndStep also counts
// the step: steps_completed and progress grow by one.
void BeginStep(StatusShm& status, uint64_t step, std::span<const uint64_t> rids);
void EndStep(StatusShm& status);
// Child: where CHECK's text goes (async-signal-safe). The block must outlive the process's last
// CHECK.
void InstallPanicSink(StatusShm& status);

// Supervisor, after the child was reaped: what it was doing and what it said last. Every count is
// clamped: the block may hold anything.
struct LastWords {
  Phase phase = Phase::kStarting;
  uint64_t step = 0;  // 0: it did not die in a step
  std::vector<uint64_t> step_rids;
  std::string panic_text;
};
LastWords ReadLastWords(const StatusShm& status);

}  // namespace perdure::shm
