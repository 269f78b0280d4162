// What a cache schedule means for pages and positions: pure functions of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/cache_settings.h"
#include "engine/kv_view.h"
#include "shm/page_key.h"
#include "shm/page_memory.h"

namespace perdure::worker {

// One that Normalized may have made.
bool IsSound(const CacheSchedule& schedule);
// The first `keep` and the last `size - keep` positions can be what is seen.
bool IsPossibleWindow(int32_t keep, int32_t size);

// A switch to numbers of other bits waits for the next page; what positions see switches at once.
// Parts that change nothing are left out.
CacheSchedule Normalized(CacheSchedule schedule);

// `schedule` up to `position`, and `next` from there on, with its later parts at their places.
// Nothing where that has more parts than kCacheSegmentsMax.
std::optional<CacheSchedule> Continued(const CacheSchedule& schedule, int position,
                                       const CacheSchedule& next);

shm::PageFormat FormatOf(const CacheSchedule& schedule, size_t page);
engine::KvPrecision PrecisionOf(shm::PageFormat format);
std::vector<engine::KvRetention> RetentionsOf(const CacheSchedule& schedule);

// What of the past its positions see, as it stands in a page's key; 0: all. Equal for schedules
// under which the page's positions see the same.
uint64_t MaskOf(const CacheSchedule& schedule, size_t page);
// For a page whose positions do not all see by one rule: the mask of pages all of whose positions
// see as its first `count` do.
struct MaskedBeginning {
  uint32_t count = 0;
  uint64_t mask = 0;
};
std::optional<MaskedBeginning> BeginningOf(const CacheSchedule& schedule, size_t page);

// Pages that positions from `position` on look at, of those before: the first `first` and those
// from `from` on.
struct NeededPages {
  size_t first = 0, from = 0;
  bool Has(size_t page) const { return page < first || page >= from; }
};
NeededPages NeededFrom(const CacheSchedule& schedule, int position);
// Some positions do not see all: pages are given up on the way.
bool Rotates(const CacheSchedule& schedule);

// The most pages that are held at any time while `tokens` are computed, of each format.
shm::PerFormat<uint64_t> PagesHeld(const CacheSchedule& schedule, int tokens);
// Up to which position pages are wanted once `computed` of `tokens` are there.
int WantedUpTo(const CacheSchedule& schedule, int computed, int tokens);

}  // namespace perdure::worker
