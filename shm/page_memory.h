// The memory in which a model's pages lie: descriptors, and slabs of several pages each that are
// asked of the system when they are needed. Shared (shm/arena.h) or private.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "shm/layout.h"

namespace perdure::shm {

using PageIndex = uint32_t;

// Where everything lies; follows from the size and the number of the pages alone.
struct ArenaGeometry {
  uint64_t page_bytes = 0;  // rounded up to kArenaPageAlignment
  uint32_t pages_max = 0;
  uint32_t pages_per_slab = 0;
  uint64_t slab_bytes = 0;
  uint64_t descriptors_offset = 0;
  uint64_t slabs_offset = 0;
  uint64_t file_bytes = 0;

  // unsupported: beyond the bounds of base/limits.h.
  static Result<ArenaGeometry> For(uint64_t page_bytes, uint32_t pages_max);

  uint32_t slabs() const { return (pages_max + pages_per_slab - 1) / pages_per_slab; }
  uint32_t SlabOf(PageIndex page) const { return page / pages_per_slab; }
  uint64_t SlabOffset(uint32_t slab) const { return slabs_offset + slab * slab_bytes; }
  uint64_t PageOffset(PageIndex page) const {
    return SlabOffset(SlabOf(page)) + page % pages_per_slab * page_bytes;
  }
};

// Not thread-safe.
class PageMemory {
 public:
  virtual ~PageMemory() = default;

  // Only granted slabs may be touched. False: the system has no memory for it.
  virtual bool Grant(uint32_t slab) = 0;
  // Gives a slab's memory back to the system; its contents are lost.
  virtual void Return(uint32_t slab) = 0;
  // For what a predecessor has left: grants the slabs that are true, whose contents stay, and
  // returns all others. False: not all of them are there; then none is granted.
  virtual bool Adopt(const std::vector<bool>& slabs) = 0;
  // After each store to a descriptor; a test looks at the memory here.
  virtual void Stored() {}

  const ArenaGeometry& geometry() const { return geometry_; }
  PageDescriptorShm& descriptor(PageIndex page) const;
  std::byte* address(PageIndex page) const { return base_ + geometry_.PageOffset(page); }

 protected:
  PageMemory(const ArenaGeometry& geometry, std::byte* base) : geometry_(geometry), base_(base) {}

  ArenaGeometry geometry_;
  std::byte* base_;  // of file_bytes addresses
};

// Pages of this process alone, for where there is no shared memory. out_of_memory: not even the
// descriptors fit.
Result<std::unique_ptr<PageMemory>> MakePrivateMemory(const ArenaGeometry& geometry);

}  // namespace perdure::shm
