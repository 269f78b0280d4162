#include "shm/slab_pool.h"

#include <algorithm>

#include "base/check.h"

namespace perdure::shm {

SlabPool::SlabPool(PageMemory* memory, uint32_t slabs_max, Move move)
    : memory_(memory),
      geometry_(memory->geometry()),
      slabs_most_(std::min(slabs_max, geometry_.slabs)),
      slabs_max_(slabs_most_),
      move_(std::move(move)),
      slabs_(geometry_.slabs),
      taken_(size_t{geometry_.slabs} * geometry_.slot_stride) {}

bool SlabPool::Exists(SlotIndex slot, PageFormat format) const {
  return geometry_.SlabOf(slot) < geometry_.slabs && slot % geometry_.slot_stride < PerSlab(format);
}

bool SlabPool::Adopt(std::span<const std::pair<SlotIndex, PageFormat>> used) {
  std::vector<bool> adopted(geometry_.slabs);
  for (const auto& [slot, format] : used) {
    Slab& slab = slabs_[geometry_.SlabOf(slot)];
    CHECK(Exists(slot, format) && (slab.used == 0 || slab.format == format) && !taken_[slot]);
    slab.format = format;
    ++slab.used;
    taken_[slot] = true;
    adopted[geometry_.SlabOf(slot)] = true;
  }
  if (!memory_->Adopt(adopted)) {
    std::fill(slabs_.begin(), slabs_.end(), Slab{});
    std::fill(taken_.begin(), taken_.end(), false);
    return false;
  }
  // The first slab's slots are the next ones.
  for (uint32_t slab = geometry_.slabs; slab-- > 0;) {
    if (!adopted[slab]) continue;
    slabs_[slab].granted = true;
    ++granted_;
    AddFree(slab);
  }
  return true;
}

// The lowest of its free slots will be handed out first.
void SlabPool::AddFree(uint32_t slab) {
  const PageFormat format = slabs_[slab].format;
  const SlotIndex first = geometry_.FirstSlot(slab);
  for (SlotIndex slot = first + PerSlab(format); slot-- > first;)
    if (!taken_[slot]) free_[format].push_back(slot);
}

void SlabPool::RemoveFree(uint32_t slab) {
  std::erase_if(free_[slabs_[slab].format],
                [&](SlotIndex slot) { return geometry_.SlabOf(slot) == slab; });
}

void SlabPool::Mark(SlotIndex slot) {
  taken_[slot] = true;
  ++slabs_[geometry_.SlabOf(slot)].used;
}

void SlabPool::Give(SlotIndex slot) {
  CHECK(slot < taken_.size() && taken_[slot]);
  taken_[slot] = false;
  Slab& slab = slabs_[geometry_.SlabOf(slot)];
  --slab.used;
  free_[slab.format].push_back(slot);
}

void SlabPool::Unpin(SlotIndex slot) {
  uint32_t& pins = slabs_[geometry_.SlabOf(slot)].pins;
  CHECK(pins > 0);
  --pins;
}

SlotIndex SlabPool::TakeFree(PageFormat format) {
  const SlotIndex slot = free_[format].back();
  free_[format].pop_back();
  Mark(slot);
  return slot;
}

bool SlabPool::Grant(uint32_t slab, PageFormat format) {
  if (!memory_->Grant(slab)) return false;
  slabs_[slab] = {.granted = true, .format = format};
  ++granted_;
  AddFree(slab);
  return true;
}

bool SlabPool::GrantAny(PageFormat format) {
  if (granted_ >= slabs_max_) return false;
  const auto next = std::ranges::find(slabs_, false, &Slab::granted);
  return next != slabs_.end() && Grant(static_cast<uint32_t>(next - slabs_.begin()), format);
}

// An empty slab of another format becomes one of this.
bool SlabPool::TurnEmpty(PageFormat format) {
  const auto empty = std::ranges::find_if(slabs_, [format](const Slab& slab) {
    return slab.granted && slab.used == 0 && slab.format != format;
  });
  if (empty == slabs_.end()) return false;
  const auto slab = static_cast<uint32_t>(empty - slabs_.begin());
  RemoveFree(slab);
  empty->format = format;
  AddFree(slab);
  return true;
}

std::optional<SlotIndex> SlabPool::Take(PageFormat format) {
  CHECK(PerSlab(format) > 0);
  if (free_[format].empty() && !TurnEmpty(format) && !GrantAny(format) && !TurnEmptied(format))
    return std::nullopt;
  return TakeFree(format);
}

// --- What fits ---------------------------------------------------------------------------------

void SlabPool::SetSlabsMax(uint32_t slabs) { slabs_max_ = std::min(slabs, slabs_most_); }

uint64_t SlabPool::SlabsFor(const PerFormat<uint64_t>& slots) const {
  uint64_t slabs = 0;
  for (const PageFormat format : kAllFormats)
    if (slots[format] > 0) slabs += geometry_.SlabsFor(format, slots[format]);
  return slabs;
}

bool SlabPool::Fits(const PerFormat<uint64_t>& slots) const {
  return SlabsFor(slots) <= slabs_max_;
}

bool SlabPool::FitsAtMost(const PerFormat<uint64_t>& slots) const {
  return SlabsFor(slots) <= slabs_most_;
}

uint64_t SlabPool::Room(PageFormat format, const PerFormat<uint64_t>& others) const {
  uint64_t slabs = 0;
  for (const PageFormat other : kAllFormats)
    if (other != format && others[other] > 0) slabs += geometry_.SlabsFor(other, others[other]);
  if (slabs >= slabs_max_) return 0;
  const uint64_t all = (slabs_max_ - slabs) * PerSlab(format);
  return all > others[format] ? all - others[format] : 0;
}

// --- Moving pages ------------------------------------------------------------------------------

std::optional<uint32_t> SlabPool::Emptiable(PageFormat format) const {
  if (PerSlab(format) == 0 || free_[format].size() < PerSlab(format)) return std::nullopt;
  std::optional<uint32_t> best;
  for (uint32_t slab = 0; slab < slabs_.size(); ++slab) {
    const Slab& candidate = slabs_[slab];
    if (!candidate.granted || candidate.format != format || candidate.used == 0 ||
        candidate.pins > 0)
      continue;
    if (!best || candidate.used < slabs_[*best].used) best = slab;
  }
  return best;
}

uint64_t SlabPool::Evacuate(uint32_t slab, uint64_t bytes_max) {
  const PageFormat format = slabs_[slab].format;
  RemoveFree(slab);
  // Into the fullest slabs, so that the others can be emptied as well.
  std::vector<SlotIndex>& free = free_[format];
  std::stable_sort(free.begin(), free.end(), [&](SlotIndex a, SlotIndex b) {
    return slabs_[geometry_.SlabOf(a)].used < slabs_[geometry_.SlabOf(b)].used;
  });
  uint64_t bytes = 0;
  const SlotIndex first = geometry_.FirstSlot(slab);
  std::vector<SlotIndex> left_free;
  for (SlotIndex slot = first; slot < first + PerSlab(format); ++slot) {
    if (taken_[slot] && bytes < bytes_max) {
      CHECK(!free.empty());
      const SlotIndex to = free.back();
      free.pop_back();
      Mark(to);
      move_(slot, to);
      taken_[slot] = false;
      --slabs_[slab].used;
      bytes += geometry_.page_bytes[format];
    }
    if (!taken_[slot]) left_free.push_back(slot);
  }
  // At the front: the last ones to be handed out.
  free.insert(free.begin(), left_free.rbegin(), left_free.rend());
  return bytes;
}

bool SlabPool::TurnEmptied(PageFormat format) {
  for (const PageFormat other : kAllFormats) {
    if (other == format) continue;
    if (const auto slab = Emptiable(other)) {
      Evacuate(*slab, UINT64_MAX);
      return TurnEmpty(format);
    }
  }
  return false;
}

uint64_t SlabPool::BytesSpare(const PerFormat<uint64_t>& slots) const {
  uint64_t needed = 0;
  for (const PageFormat format : kAllFormats) needed += geometry_.SlabsFor(format, slots[format]);
  return granted_ > needed ? (granted_ - needed) * geometry_.slab_bytes : 0;
}

bool SlabPool::Compact(uint64_t bytes_max) {
  uint64_t bytes = 0;
  for (const PageFormat format : kAllFormats) {
    // What is empty already is no reason to move anything.
    const auto empty = std::ranges::count_if(slabs_, [format](const Slab& slab) {
      return slab.granted && slab.used == 0 && slab.format == format;
    });
    auto gain =
        static_cast<int64_t>(PerSlab(format) == 0 ? 0 : free_[format].size() / PerSlab(format)) -
        empty;
    for (; gain > 0; --gain) {
      if (bytes >= bytes_max) return false;
      const auto slab = Emptiable(format);
      if (!slab) break;
      bytes += Evacuate(*slab, bytes_max - bytes);
      if (slabs_[*slab].used > 0) return false;
    }
  }
  return true;
}

uint64_t SlabPool::ReturnEmpty() {
  uint64_t bytes = 0;
  for (uint32_t slab = 0; slab < slabs_.size(); ++slab) {
    if (!slabs_[slab].granted || slabs_[slab].used > 0) continue;
    RemoveFree(slab);
    memory_->Return(slab);
    slabs_[slab] = {};
    --granted_;
    bytes += geometry_.slab_bytes;
  }
  return bytes;
}

// --- Slots in a row ----------------------------------------------------------------------------

// Where the fewest pages are in the way, and then the fewest slabs are to be granted.
std::vector<SlotIndex> SlabPool::FindRun(PageFormat format, uint32_t count) const {
  // Maximal rows of neighbouring slabs that are, or can become, of this format.
  const uint32_t per_slab = PerSlab(format);
  const auto is_usable = [&](const Slab& slab) {
    if (slab.pins > 0) return false;
    return slab.granted ? slab.format == format || slab.used == 0 : granted_ < slabs_max_;
  };
  // Of [begin, end), in slots of these slabs counted on.
  struct Best {
    uint64_t begin = 0;
    uint32_t taken = UINT32_MAX, grants = UINT32_MAX;
  } best;
  const auto slot_at = [&](uint64_t place) {
    return geometry_.FirstSlot(static_cast<uint32_t>(place / per_slab)) +
           static_cast<SlotIndex>(place % per_slab);
  };
  const auto is_taken = [&](uint64_t place) {
    return slabs_[place / per_slab].granted && taken_[slot_at(place)] ? 1u : 0u;
  };
  const uint64_t places = uint64_t{geometry_.slabs} * per_slab;
  uint64_t row = 0;  // begin of the row of usable slabs
  uint32_t taken = 0;
  for (uint64_t end = 0; end < places; ++end) {
    if (!is_usable(slabs_[end / per_slab])) {
      row = end + 1;
      taken = 0;
      continue;
    }
    taken += is_taken(end);
    if (end + 1 - row < count) continue;
    const uint64_t begin = end + 1 - count;
    if (begin > row) taken -= is_taken(begin - 1);
    if (taken > best.taken) continue;
    uint32_t grants = 0, free_inside = 0;
    for (uint64_t slab = begin / per_slab; slab <= end / per_slab; ++slab)
      grants += !slabs_[slab].granted;
    if (granted_ + grants > slabs_max_ || (taken == best.taken && grants >= best.grants)) continue;
    if (taken > 0) {
      for (uint64_t place = begin; place <= end; ++place) {
        const Slab& slab = slabs_[place / per_slab];
        free_inside += slab.granted && slab.format == format && !is_taken(place);
      }
      if (free_[format].size() - free_inside < taken) continue;
    }
    best = {begin, taken, grants};
  }
  std::vector<SlotIndex> run;
  if (best.taken == UINT32_MAX) return run;
  for (uint64_t place = best.begin; place < best.begin + count; ++place)
    run.push_back(slot_at(place));
  return run;
}

// Empties neighbouring slabs, whatever they hold, that have so many slots of this format.
bool SlabPool::EmptyNeighbours(PageFormat format, uint32_t count) {
  const uint32_t wanted = geometry_.SlabsFor(format, count);
  for (uint32_t first = 0; first + wanted <= geometry_.slabs; ++first) {
    PerFormat<uint64_t> used, free;  // in these slabs; used ones need room in others
    uint32_t grants = 0;
    bool is_pinned = false;
    for (uint32_t slab = first; slab < first + wanted; ++slab) {
      const Slab& each = slabs_[slab];
      is_pinned = is_pinned || each.pins > 0;
      grants += !each.granted;
      if (!each.granted) continue;
      used[each.format] += each.used;
      free[each.format] += PerSlab(each.format) - each.used;
    }
    const bool fits = std::ranges::all_of(kAllFormats, [&](PageFormat each) {
      return free_[each].size() - free[each] >= used[each];
    });
    if (is_pinned || !fits || granted_ + grants > slabs_max_) continue;
    // Hidden, so that nothing moves from one of these to another.
    for (uint32_t slab = first; slab < first + wanted; ++slab)
      if (slabs_[slab].granted) RemoveFree(slab);
    for (uint32_t slab = first; slab < first + wanted; ++slab) {
      if (!slabs_[slab].granted) continue;
      Evacuate(slab, UINT64_MAX);
      RemoveFree(slab);
    }
    for (uint32_t slab = first; slab < first + wanted; ++slab)
      if (slabs_[slab].granted) AddFree(slab);
    return true;
  }
  return false;
}

std::vector<SlotIndex> SlabPool::TakeRun(PageFormat format, uint32_t count) {
  CHECK(PerSlab(format) > 0 && count > 0);
  std::vector<SlotIndex> run = FindRun(format, count);
  if (run.empty() && EmptyNeighbours(format, count)) run = FindRun(format, count);
  if (run.empty()) return run;
  for (uint32_t slab = geometry_.SlabOf(run.front()); slab <= geometry_.SlabOf(run.back());
       ++slab) {
    if (!slabs_[slab].granted) {
      if (!Grant(slab, format)) return {};
    } else if (slabs_[slab].format != format) {
      RemoveFree(slab);
      slabs_[slab].format = format;
      AddFree(slab);
    }
  }
  std::vector<bool> inside(taken_.size());
  for (const SlotIndex slot : run) inside[slot] = true;
  std::erase_if(free_[format], [&](SlotIndex slot) { return inside[slot]; });
  for (const SlotIndex slot : run) {
    if (!taken_[slot]) {
      Mark(slot);
      continue;
    }
    // Its page makes room; the slot stays in use, by another.
    const SlotIndex to = TakeFree(format);
    move_(slot, to);
  }
  return run;
}

}  // namespace perdure::shm
