// What stands in an arena, for people. The arena may have a running writer, or hold anything at
// all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "shm/page_memory.h"

namespace perdure::shm {

struct ArenaReport {
  // As the header says it, also where it is damaged.
  uint32_t version = 0;
  uint64_t fingerprint = 0;
  uint64_t numerics = 0;
  uint32_t page_tokens = 0;
  PerFormat<uint64_t> page_bytes;
  PerFormat<uint32_t> slots_per_slab;
  uint32_t pages_max = 0;     // descriptors
  uint32_t pages_wanted = 0;  // of the largest format, that there is room for
  uint64_t slab_bytes = 0;
  uint64_t epoch = 0;
  uint32_t writer = 0;  // process id of the last writer, which may be gone

  uint64_t file_bytes = 0;     // the largest size it can have
  uint64_t bytes_granted = 0;  // memory that it takes now
  uint32_t pages_read = 0;     // descriptors that the file has
  uint32_t free = 0, open = 0;
  PerFormat<uint32_t> sealed;  // with their numbers
  uint32_t hollow = 0;         // sealed ones without
  uint32_t conversations = 0;
  uint32_t Sealed() const { return sealed.values[0] + sealed.values[1] + sealed.values[2]; }

  struct Chain {
    uint64_t chain_hash = 0;
    uint32_t page = 0;   // the last one
    uint32_t pages = 0;  // from the root to it
    uint32_t tokens = 0;
  };
  std::vector<Chain> longest_chains;  // longest first, none a part of another

  std::vector<std::string> problems;  // the first kArenaProblemsShown
  uint64_t problems_found = 0;
};

// Reads with pread, never through a mapping: that the file is cut short meanwhile is a problem of
// the report. Each descriptor is a consistent copy; all of them together are of no one moment.
Result<ArenaReport> ReadArena(int fd);

}  // namespace perdure::shm
