// Which slots are free. A slab that is granted has pages of one format; an empty one may become
// another format's. Pages can be moved, so that what is free in many slabs is one slab's worth, or
// lies in a row.
//
// Take and Give take constant time; what moves pages takes the time of copying them, and of a look
// at every slot. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "shm/page_memory.h"

namespace perdure::shm {

class SlabPool {
 public:
  // The page that lies in `from` is to lie in `to`; the pool has marked both. Called by Take,
  // TakeRun and Compact only.
  using Move = std::function<void(SlotIndex from, SlotIndex to)>;

  // At most `slabs_max` slabs are granted at any time. `memory` outlives the pool.
  SlabPool(PageMemory* memory, uint32_t slabs_max, Move move);

  // Before anything else: these slots are in use, of formats that agree within each slab; all
  // others' memory goes back to the system. False: it is not there, nothing is in use.
  bool Adopt(std::span<const std::pair<SlotIndex, PageFormat>> used);
  // Whether a slot is one of that format's, whatever its slab is.
  bool Exists(SlotIndex slot, PageFormat format) const;

  // The most recently freed slot; else one of an empty slab, of a new one, or of one that is empty
  // once its pages have moved. Nothing: all are in use, or the system has no memory.
  std::optional<SlotIndex> Take(PageFormat format);
  // `count` slots in a row, which may go on from slab to slab. Moves what is in their way. Empty:
  // there is no such place. Slots that were taken before may have moved.
  std::vector<SlotIndex> TakeRun(PageFormat format, uint32_t count);
  void Give(SlotIndex slot);
  // The pages of this slot's slab stay where they are until as many Unpins; what would need them to
  // move finds no place there.
  void Pin(SlotIndex slot) { ++slabs_[geometry_.SlabOf(slot)].pins; }
  void Unpin(SlotIndex slot);

  // From now on at most so many slabs are granted, and never more than at the start; those that are
  // granted stay.
  void SetSlabsMax(uint32_t slabs);

  // Whether so many slots of each format fit side by side, as far as the system has the memory; and
  // whether they would with as many slabs as at the start.
  bool Fits(const PerFormat<uint64_t>& slots) const;
  bool FitsAtMost(const PerFormat<uint64_t>& slots) const;
  // How many of `format` fit beside `others`, of which those of `format` count as well.
  uint64_t Room(PageFormat format, const PerFormat<uint64_t>& others) const;

  // Moves pages of up to about `bytes_max` bytes so that slabs become empty. True: there is nothing
  // left to be gained.
  bool Compact(uint64_t bytes_max);
  // Returns empty slabs to the system; the bytes.
  uint64_t ReturnEmpty();

  PageFormat format_of(SlotIndex slot) const { return slabs_[geometry_.SlabOf(slot)].format; }
  uint32_t slabs_granted() const { return granted_; }
  uint32_t slabs_max() const { return slabs_max_; }
  uint64_t bytes_granted() const { return granted_ * geometry_.slab_bytes; }
  // Of those: in slabs that `slots` in use do not need.
  uint64_t BytesSpare(const PerFormat<uint64_t>& slots) const;

 private:
  struct Slab {
    bool granted = false;
    PageFormat format = PageFormat::kFloat16;
    uint32_t used = 0;
    uint32_t pins = 0;
  };

  uint64_t SlabsFor(const PerFormat<uint64_t>& slots) const;
  uint32_t PerSlab(PageFormat format) const { return geometry_.slots_per_slab[format]; }
  void AddFree(uint32_t slab);
  void RemoveFree(uint32_t slab);
  SlotIndex TakeFree(PageFormat format);
  void Mark(SlotIndex slot);
  bool Grant(uint32_t slab, PageFormat format);
  bool GrantAny(PageFormat format);
  bool TurnEmpty(PageFormat format);
  bool TurnEmptied(PageFormat format);
  // A slab whose pages have room in the format's other slabs.
  std::optional<uint32_t> Emptiable(PageFormat format) const;
  // Moves its pages into other slabs of its format, up to `bytes_max` bytes.
  uint64_t Evacuate(uint32_t slab, uint64_t bytes_max);

  std::vector<SlotIndex> FindRun(PageFormat format, uint32_t count) const;
  bool EmptyNeighbours(PageFormat format, uint32_t count);

  PageMemory* const memory_;
  const ArenaGeometry& geometry_;
  const uint32_t slabs_most_;
  uint32_t slabs_max_;
  const Move move_;
  std::vector<Slab> slabs_;
  std::vector<bool> taken_;                 // by slot
  PerFormat<std::vector<SlotIndex>> free_;  // the back is the next one
  uint32_t granted_ = 0;
};

}  // namespace perdure::shm
