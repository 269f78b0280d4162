// A disk that fails when a test says so: what LMDB writes and syncs goes through here.
#pragma once

#include <cstddef>

namespace perdure::snapshot {

// While it lives, writes and syncs are counted from 0, and the one with this number, and all after
// it, fail with this error. 0: a write writes half of it, a sync succeeds.
class FailingDisk {
 public:
  FailingDisk(size_t from, int error);
  ~FailingDisk();
  FailingDisk(const FailingDisk&) = delete;
  FailingDisk& operator=(const FailingDisk&) = delete;
  // Writes and syncs so far.
  size_t calls() const;
};

}  // namespace perdure::snapshot
