// Names of arenas for one test, removed with it.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "shm/arena_segment.h"

namespace perdure::shm {

class ScratchArena {
 public:
  ScratchArena() : instance_("test" + std::to_string(getpid()) + "x" + std::to_string(next_++)) {}
  ScratchArena(const ScratchArena&) = delete;
  ScratchArena& operator=(const ScratchArena&) = delete;
  ~ScratchArena() {
    const std::string prefix = ArenaName(instance_, "");
    for (const std::string& name : ListArenas())
      if (name.starts_with(prefix)) shm_unlink(name.c_str());
  }

  const std::string& instance() const { return instance_; }

 private:
  static inline std::atomic<int> next_ = 0;
  const std::string instance_;
};

}  // namespace perdure::shm
