// The memory in which a model's pages lie: descriptors, records of conversations, and slabs of
// several slots each that are asked of the system when they are needed. Shared (shm/arena.h) or
// private.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "shm/layout.h"

namespace perdure::shm {

using PageIndex = uint32_t;
using SlotIndex = uint32_t;

// A number for each PageFormat.
template <class T>
struct PerFormat {
  std::array<T, kPageFormats> values{};
  T& operator[](PageFormat format) { return values[static_cast<size_t>(format)]; }
  const T& operator[](PageFormat format) const { return values[static_cast<size_t>(format)]; }
  bool operator==(const PerFormat&) const = default;
};
inline constexpr std::array kAllFormats = {PageFormat::kFloat16, PageFormat::kBits8,
                                           PageFormat::kBits4};

// What a model wants to keep.
struct ArenaShape {
  PerFormat<uint64_t> page_bytes;  // of kFloat16 > 0; 0: there are no pages of that format
  uint32_t pages_max = 0;          // as many as there shall be room for in kFloat16
  uint32_t conversations_max = 0;
};

// Where everything lies; follows from the shape alone.
struct ArenaGeometry {
  PerFormat<uint64_t> page_bytes;      // rounded up to kArenaPageAlignment
  PerFormat<uint32_t> slots_per_slab;  // 0: there are no pages of that format
  uint32_t slot_stride = 0;            // from a slab's first slot to the next slab's
  uint32_t slabs = 0;
  uint32_t pages_max = 0;  // descriptors
  uint32_t conversations_max = 0;
  uint64_t slab_bytes = 0;
  uint64_t conversations_offset = 0;
  uint64_t descriptors_offset = 0;
  uint64_t slabs_offset = 0;
  uint64_t file_bytes = 0;

  // unsupported: beyond the bounds of base/limits.h.
  static Result<ArenaGeometry> For(const ArenaShape& shape);

  uint32_t SlabOf(SlotIndex slot) const { return slot / slot_stride; }
  SlotIndex FirstSlot(uint32_t slab) const { return slab * slot_stride; }
  uint64_t SlabOffset(uint32_t slab) const { return slabs_offset + slab * slab_bytes; }
  uint64_t SlotOffset(SlotIndex slot, PageFormat format) const {
    return SlabOffset(SlabOf(slot)) + slot % slot_stride * page_bytes[format];
  }
  // The slabs that so many pages of a format take.
  uint32_t SlabsFor(PageFormat format, uint64_t pages) const {
    const uint64_t per_slab = slots_per_slab[format];
    return pages == 0 ? 0 : static_cast<uint32_t>((pages + per_slab - 1) / per_slab);
  }
  bool operator==(const ArenaGeometry&) const = default;
};

// Not thread-safe.
class PageMemory {
 public:
  virtual ~PageMemory() = default;

  // Only granted slabs and descriptors may be touched. False: the system has no memory for it.
  virtual bool Grant(uint32_t slab) = 0;
  // Descriptors are granted from the first on, and stay.
  virtual bool GrantDescriptors(uint32_t pages) = 0;
  virtual uint32_t descriptors_granted() const = 0;
  // Gives a slab's memory back to the system; its contents are lost.
  virtual void Return(uint32_t slab) = 0;
  // For what a predecessor has left: grants the slabs that are true, whose contents stay, and
  // returns all others. False: not all of them are there; then none is granted.
  virtual bool Adopt(const std::vector<bool>& slabs) = 0;
  // After each store to a descriptor or a record; a test looks at the memory here.
  virtual void Stored() {}

  const ArenaGeometry& geometry() const { return geometry_; }
  // Where chains begin: what must be equal for pages to be of use.
  uint64_t root() const { return root_; }
  PageDescriptorShm& descriptor(PageIndex page) const;
  ConversationShm& conversation(uint32_t index) const;
  std::byte* address(SlotIndex slot, PageFormat format) const {
    return base_ + geometry_.SlotOffset(slot, format);
  }

 protected:
  PageMemory(const ArenaGeometry& geometry, std::byte* base, uint64_t root)
      : geometry_(geometry), base_(base), root_(root) {}

  ArenaGeometry geometry_;
  std::byte* base_;  // of file_bytes addresses
  uint64_t root_;
};

// Pages of this process alone, for where there is no shared memory. out_of_memory: not even the
// descriptors fit. `root` matters where pages are kept elsewhere.
Result<std::unique_ptr<PageMemory>> MakePrivateMemory(const ArenaGeometry& geometry,
                                                      uint64_t root = 0);

}  // namespace perdure::shm
