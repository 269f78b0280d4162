#include "worker/cache_schedule.h"

#include <algorithm>

#include "base/check.h"
#include "base/hash.h"
#include "base/limits.h"

namespace perdure::worker {
namespace {

constexpr int kPage = engine::kPageTokens;

int NextPage(int position) { return (position + kPage - 1) / kPage * kPage; }

// The part that holds for a position; it has one.
size_t IndexAt(const CacheSchedule& schedule, int position) {
  size_t index = 0;
  while (index + 1 < schedule.segments.size() && schedule.segments[index + 1].from <= position)
    ++index;
  return index;
}

const CacheSegment& SegmentAt(const CacheSchedule& schedule, int position) {
  return schedule.segments[IndexAt(schedule, position)];
}

// What a position sees: `keep` of the first and `last` of the last ones; all where last is 0.
struct Sight {
  int32_t keep = 0, last = 0;
  bool operator==(const Sight&) const = default;
};

Sight SightAt(const CacheSchedule& schedule, int position) {
  const CacheSegment& segment = SegmentAt(schedule, position);
  // Before there are more than `size` positions all of them are seen.
  if (segment.size == 0 || position < segment.size) return {};
  return {segment.keep, segment.size - segment.keep};
}

struct SightFrom {
  int32_t offset = 0;  // within the page
  Sight sight;
};

// The rules by which a page's positions see, and from which one on.
std::vector<SightFrom> SightsOf(const CacheSchedule& schedule, size_t page) {
  std::vector<SightFrom> sights;
  const int begin = static_cast<int>(page) * kPage;
  for (int offset = 0; offset < kPage; ++offset) {
    const Sight sight = SightAt(schedule, begin + offset);
    if (sights.empty() || sights.back().sight != sight) sights.push_back({offset, sight});
  }
  return sights;
}

uint64_t HashOf(std::span<const SightFrom> sights) {
  if (sights.size() == 1 && sights[0].sight == Sight()) return 0;
  static_assert(std::has_unique_object_representations_v<SightFrom>);
  const uint64_t hash = Hash64(std::as_bytes(sights));
  return hash == 0 ? 1 : hash;
}

}  // namespace

bool IsPossibleWindow(int32_t keep, int32_t size) {
  return keep >= 0 && size >= 1 && size <= limits::kContextMax &&
         size - keep >= limits::kRotatingWindowMin;
}

bool IsSound(const CacheSchedule& schedule) {
  const auto& segments = schedule.segments;
  if (segments.empty() || segments[0].from != 0 || schedule.chunk_size < 0 ||
      schedule.chunk_size > limits::kCacheChunkMax || schedule.chunk_size % kPage != 0 ||
      segments.size() > static_cast<size_t>(limits::kCacheSegmentsMax))
    return false;
  for (size_t i = 0; i < segments.size(); ++i) {
    const CacheSegment& s = segments[i];
    const bool has_bits = s.bits == 16 || s.bits == 8 || s.bits == 4;
    if (!has_bits || (s.size != 0 && !IsPossibleWindow(s.keep, s.size))) return false;
    if (i > 0 && (s.from <= segments[i - 1].from || s.from > limits::kContextMax ||
                  (s.bits != segments[i - 1].bits && s.from % kPage != 0)))
      return false;
  }
  return true;
}

CacheSchedule Normalized(CacheSchedule schedule) {
  std::vector<CacheSegment> segments;
  const auto add = [&](CacheSegment segment) {
    if (!segments.empty() && segments.back().from == segment.from) segments.pop_back();
    if (!segments.empty()) {
      CacheSegment same = segments.back();
      same.from = segment.from;
      if (same == segment) return;
    }
    segments.push_back(segment);
  };
  for (size_t i = 0; i < schedule.segments.size(); ++i) {
    CacheSegment segment = schedule.segments[i];
    if (segment.size == 0) segment.keep = 0;
    const int next_page = NextPage(segment.from);
    const int bits = segments.empty() ? segment.bits : segments.back().bits;
    const bool ends_before =
        i + 1 < schedule.segments.size() && schedule.segments[i + 1].from <= next_page;
    if (next_page != segment.from && bits != segment.bits) {
      CacheSegment first = segment;
      first.bits = bits;
      add(first);
      // What follows within the page decides which bits the next one has.
      if (ends_before) continue;
      segment.from = next_page;
    }
    add(segment);
  }
  schedule.segments = std::move(segments);
  return schedule;
}

std::optional<CacheSchedule> Continued(const CacheSchedule& schedule, int position,
                                       const CacheSchedule& next) {
  CacheSchedule result = next;
  result.segments.clear();
  for (const CacheSegment& segment : schedule.segments)
    if (segment.from < position) result.segments.push_back(segment);
  CacheSegment now = SegmentAt(next, position);
  now.from = position;
  result.segments.push_back(now);
  for (const CacheSegment& segment : next.segments)
    if (segment.from > position) result.segments.push_back(segment);
  result = Normalized(std::move(result));
  if (result.segments.size() > static_cast<size_t>(limits::kCacheSegmentsMax)) return std::nullopt;
  return result;
}

shm::PageFormat FormatOf(const CacheSchedule& schedule, size_t page) {
  const int32_t bits = SegmentAt(schedule, static_cast<int>(page) * kPage).bits;
  return bits == 16  ? shm::PageFormat::kFloat16
         : bits == 8 ? shm::PageFormat::kBits8
                     : shm::PageFormat::kBits4;
}

engine::KvPrecision PrecisionOf(shm::PageFormat format) {
  switch (format) {
    case shm::PageFormat::kFloat16:
      return engine::KvPrecision::kF16;
    case shm::PageFormat::kBits8:
      return engine::KvPrecision::kQ8;
    case shm::PageFormat::kBits4:
      return engine::KvPrecision::kQ4;
  }
  CHECK(false);
}

std::vector<engine::KvRetention> RetentionsOf(const CacheSchedule& schedule) {
  std::vector<engine::KvRetention> retentions;
  if (!Rotates(schedule)) return retentions;
  for (const CacheSegment& segment : schedule.segments)
    retentions.push_back({segment.from, segment.keep, segment.size});
  return retentions;
}

uint64_t MaskOf(const CacheSchedule& schedule, size_t page) {
  if (!Rotates(schedule)) return 0;
  return HashOf(SightsOf(schedule, page));
}

std::optional<MaskedBeginning> BeginningOf(const CacheSchedule& schedule, size_t page) {
  if (!Rotates(schedule)) return std::nullopt;
  const std::vector<SightFrom> sights = SightsOf(schedule, page);
  if (sights.size() == 1) return std::nullopt;
  return MaskedBeginning{static_cast<uint32_t>(sights[1].offset),
                         HashOf(std::span(sights).first(1))};
}

bool Rotates(const CacheSchedule& schedule) {
  return std::ranges::any_of(schedule.segments,
                             [](const CacheSegment& segment) { return segment.size > 0; });
}

NeededPages NeededFrom(const CacheSchedule& schedule, int position) {
  int keep = 0, from = position;
  for (size_t i = IndexAt(schedule, position); i < schedule.segments.size(); ++i) {
    const int begin = std::max(position, schedule.segments[i].from);
    const Sight sight = SightAt(schedule, begin);
    if (sight == Sight()) return {0, 0};
    keep = std::max(keep, sight.keep);
    from = std::min(from, begin + 1 - sight.last);
  }
  return {static_cast<size_t>(NextPage(keep) / kPage),
          static_cast<size_t>(std::max(from, 0) / kPage)};
}

int WantedUpTo(const CacheSchedule& schedule, int computed, int tokens) {
  if (!Rotates(schedule)) return tokens;
  return std::min(tokens, NextPage(computed) + limits::kRotatingAheadTokens);
}

namespace {

// The pages from `begin` to `end`, by their formats.
void AddPages(const CacheSchedule& schedule, size_t begin, size_t end,
              shm::PerFormat<uint64_t>* held) {
  while (begin < end) {
    const size_t part = IndexAt(schedule, static_cast<int>(begin) * kPage);
    size_t next = end;
    if (part + 1 < schedule.segments.size())
      next =
          std::min(next, static_cast<size_t>(NextPage(schedule.segments[part + 1].from)) / kPage);
    (*held)[FormatOf(schedule, begin)] += next - begin;
    begin = next;
  }
}

}  // namespace

shm::PerFormat<uint64_t> PagesHeld(const CacheSchedule& schedule, int tokens) {
  const auto held_at = [&](int computed) {
    shm::PerFormat<uint64_t> held;
    const NeededPages needed = NeededFrom(schedule, computed);
    const auto end =
        static_cast<size_t>(engine::KvShape::PagesFor(WantedUpTo(schedule, computed, tokens)));
    AddPages(schedule, 0, std::min(needed.first, end), &held);
    AddPages(schedule, std::max(needed.first, needed.from), end, &held);
    return held;
  };
  shm::PerFormat<uint64_t> most = held_at(tokens);
  if (!Rotates(schedule)) return most;
  // What is held changes its course where a part begins or is looked ahead to, where one is as long
  // as it will be, and where its window lies within one part; and the most may be a page's length
  // from there.
  std::vector<int> turns = {0, tokens, tokens - limits::kRotatingAheadTokens};
  for (const CacheSegment& part : schedule.segments) {
    turns.insert(turns.end(), {part.from, part.from - limits::kRotatingAheadTokens, part.size});
    for (const CacheSegment& other : schedule.segments)
      if (other.size > 0) turns.push_back(part.from + other.size - other.keep);
  }
  for (const int turn : turns) {
    for (int at = turn - kPage - 1; at <= turn + kPage + 1; ++at) {
      const shm::PerFormat<uint64_t> held = held_at(std::clamp(at, 0, tokens));
      for (const shm::PageFormat format : shm::kAllFormats)
        most[format] = std::max(most[format], held[format]);
    }
  }
  return most;
}

}  // namespace perdure::worker
