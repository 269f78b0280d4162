#include "worker/cache_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "worker/cache_types.h"

namespace perdure::worker {
namespace {

constexpr int kPage = engine::kPageTokens;
// What the property tests look at: schedules change up to kLastChange, windows are full well before
// kPositions.
constexpr int kPositions = 512, kLastChange = 384;
constexpr size_t kPages = kPositions / kPage;

using Random = std::mt19937;
int Below(Random& random, int bound) {
  return static_cast<int>(random() % static_cast<uint32_t>(bound));
}

CacheSchedule Of(std::vector<CacheSegment> segments) {
  CacheSchedule schedule;
  schedule.segments = std::move(segments);
  return schedule;
}

// --- What a schedule means, position by position ------------------------------------------------

const CacheSegment& PartAt(const CacheSchedule& schedule, int position) {
  const CacheSegment* part = &schedule.segments[0];
  for (const CacheSegment& each : schedule.segments)
    if (each.from <= position) part = &each;
  return *part;
}

// One for each position up to this one: whether it is seen.
std::vector<bool> SeenBy(const CacheSegment& part, int position) {
  std::vector<bool> seen;
  for (int past = 0; past <= position; ++past) {
    seen.push_back(part.size == 0 || past < part.keep || past > position - (part.size - part.keep));
  }
  return seen;
}
std::vector<bool> SeenBy(const CacheSchedule& schedule, int position) {
  return SeenBy(PartAt(schedule, position), position);
}
bool SeesAll(const CacheSchedule& schedule, int position) {
  return std::ranges::count(SeenBy(schedule, position), false) == 0;
}

// What stands for the numbers of each position: they depend on how they are stored, and on the
// numbers of all that the position sees.
std::vector<uint64_t> Numbers(const CacheSchedule& schedule) {
  std::vector<uint64_t> numbers;
  for (int position = 0; position < kPositions; ++position) {
    const std::vector<bool> seen = SeenBy(schedule, position);
    uint64_t number = static_cast<uint64_t>(PartAt(schedule, position).bits);
    for (size_t past = 0; past < numbers.size(); ++past) {
      if (!seen[past]) continue;
      number = (number + past) * 0x9E3779B97F4A7C15 + numbers[past];
      number ^= number >> 29;
    }
    numbers.push_back(number);
  }
  return numbers;
}

void RandomRule(Random& random, CacheSegment* part) {
  part->keep = part->size = 0;
  if (Below(random, 3) == 0) return;
  part->keep = Below(random, 2) * Below(random, 80);
  part->size = part->keep + limits::kRotatingWindowMin + Below(random, 2) * Below(random, 150);
}

CacheSchedule RandomSchedule(Random& random) {
  static constexpr int kBits[] = {16, 8, 4};
  CacheSchedule schedule = Of({{0, kBits[Below(random, 3)], 0, 0}});
  RandomRule(random, &schedule.segments[0]);
  for (int parts = Below(random, 6); parts > 0 && schedule.segments.back().from < 330; --parts) {
    CacheSegment part = schedule.segments.back();
    part.from += 1 + Below(random, 100);
    if (Below(random, 3) > 0) RandomRule(random, &part);
    if (part.from % kPage < 12) part.from = part.from / kPage * kPage + kPage;
    if (part.from % kPage == 0) part.bits = kBits[Below(random, 3)];
    schedule.segments.push_back(part);
  }
  if (Below(random, 3) == 0) schedule.chunk_size = kPage * (1 + Below(random, 8));
  EXPECT_LE(schedule.segments.back().from, kLastChange + 2 * kPage);
  return schedule;
}

// One that has much in common with `schedule`, or is the same in other words.
CacheSchedule Relative(const CacheSchedule& schedule, Random& random) {
  CacheSchedule relative = schedule;
  auto& parts = relative.segments;
  const auto at = static_cast<size_t>(Below(random, static_cast<int>(parts.size())));
  switch (Below(random, 6)) {
    case 0:
      relative.pinned = true;
      relative.type = "another name";
      relative.chunk_size = 2 * kPage;
      break;
    case 1: {
      CacheSegment same = parts[at];
      ++same.from;
      if (at + 1 == parts.size() || parts[at + 1].from > same.from)
        parts.insert(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1, same);
      break;
    }
    case 2:
      RandomRule(random, &parts[at]);
      break;
    case 3:
      // A window that is not full before the next part begins is no window.
      parts[0].size = 64 + Below(random, 400);
      parts[0].keep = 0;
      break;
    case 4:
      relative = *Continued(schedule, Below(random, kPositions), RandomSchedule(random));
      break;
    default:
      relative = RandomSchedule(random);
  }
  return relative;
}

// --- Schedules ----------------------------------------------------------------------------------

TEST(CacheScheduleTest, WhatNoNormalizedOneCanBeIsNotSound) {
  constexpr int kMost = limits::kContextMax;
  constexpr int kWindow = limits::kRotatingWindowMin;
  const std::vector<CacheSegment> kUnsound[] = {
      {},
      {{1, 16, 0, 0}},
      {{-1, 16, 0, 0}},
      {{0, 0, 0, 0}},
      {{0, 32, 0, 0}},
      {{0, 16, 0, kWindow - 1}},
      {{0, 16, 0, -kWindow}},
      {{0, 16, 4, kWindow + 3}},
      {{0, 16, -1, kWindow}},
      {{0, 16, 0, kMost + 1}},
      {{0, 16, 1, INT32_MIN}},
      {{0, 16, INT32_MAX, 1}},
      {{0, 16, 0, 0}, {0, 16, 0, kWindow}},
      {{0, 16, 0, 0}, {64, 16, 0, kWindow}, {63, 16, 0, 0}},
      {{0, 16, 0, 0}, {kMost + 1, 16, 0, kWindow}},
      // Bits change with a page.
      {{0, 16, 0, 0}, {33, 8, 0, 0}},
      {{0, 16, 0, 0}, {32, 8, 0, 0}, {63, 4, 0, 0}},
  };
  for (const auto& segments : kUnsound) {
    EXPECT_FALSE(IsSound(Of(segments))) << DescribeCache(Of(segments));
  }
  const std::vector<CacheSegment> kSound[] = {
      {{0, 16, 0, 0}},
      {{0, 8, 0, kWindow}},
      {{0, 4, 4, kWindow + 4}},
      {{0, 16, kMost - kWindow, kMost}},
      {{0, 16, 0, 0}, {1, 16, 0, kWindow}, {2, 16, 0, 0}, {kMost, 4, 0, 0}},
      {{0, 16, 0, 0}, {32, 8, 0, 0}, {33, 8, 0, kWindow}, {64, 4, 0, kWindow}},
  };
  for (const auto& segments : kSound) {
    EXPECT_TRUE(IsSound(Of(segments))) << DescribeCache(Of(segments));
  }
}

TEST(CacheScheduleTest, RowsAreWholePagesAndNotTooLong) {
  CacheSchedule schedule;
  for (const int chunk : {0, kPage, 3 * kPage, limits::kCacheChunkMax}) {
    schedule.chunk_size = chunk;
    EXPECT_TRUE(IsSound(schedule)) << chunk;
  }
  for (const int chunk : {-kPage, 1, kPage + 1, limits::kCacheChunkMax + kPage}) {
    schedule.chunk_size = chunk;
    EXPECT_FALSE(IsSound(schedule)) << chunk;
  }
}

TEST(CacheScheduleTest, PartsAreBounded) {
  CacheSchedule schedule;
  while (schedule.segments.size() < static_cast<size_t>(limits::kCacheSegmentsMax))
    schedule.segments.push_back({static_cast<int>(schedule.segments.size()), 16, 0, 64});
  EXPECT_TRUE(IsSound(schedule));
  schedule.segments.push_back({limits::kCacheSegmentsMax, 16, 0, 0});
  EXPECT_FALSE(IsSound(schedule));
}

TEST(CacheScheduleTest, OtherBitsWaitForTheNextPage) {
  EXPECT_EQ(Normalized(Of({{0, 16, 0, 0}, {40, 8, 0, 0}})), Of({{0, 16, 0, 0}, {64, 8, 0, 0}}));
  EXPECT_EQ(Normalized(Of({{0, 16, 0, 0}, {64, 8, 0, 0}})), Of({{0, 16, 0, 0}, {64, 8, 0, 0}}));
  // What is seen does not wait.
  EXPECT_EQ(Normalized(Of({{0, 16, 0, 0}, {40, 8, 4, 100}})),
            Of({{0, 16, 0, 0}, {40, 16, 4, 100}, {64, 8, 4, 100}}));
  // Who follows within the page decides.
  EXPECT_EQ(Normalized(Of({{0, 16, 0, 0}, {40, 8, 0, 100}, {50, 4, 0, 0}})),
            Of({{0, 16, 0, 0}, {40, 16, 0, 100}, {50, 16, 0, 0}, {64, 4, 0, 0}}));
  EXPECT_EQ(Normalized(Of({{0, 16, 0, 0}, {40, 8, 0, 0}, {64, 16, 0, 0}})), CacheSchedule());
}

TEST(CacheScheduleTest, PartsThatChangeNothingAreLeftOut) {
  EXPECT_EQ(Normalized(Of({{0, 16, 0, 0}, {40, 16, 0, 0}, {64, 16, 0, 0}})), CacheSchedule());
  EXPECT_EQ(Normalized(Of({{0, 16, 0, 0}, {40, 16, 0, 80}, {40, 16, 0, 0}})), CacheSchedule());
  // Who sees all needs not keep the first ones.
  EXPECT_EQ(Normalized(Of({{0, 16, 7, 0}, {40, 16, 0, 0}})), CacheSchedule());
  CacheSchedule schedule = Of({{0, 16, 0, 0}, {40, 16, 0, 0}});
  schedule.type = "mine";
  schedule.chunk_size = 64;
  schedule.pinned = true;
  const CacheSchedule normalized = Normalized(schedule);
  schedule.segments.pop_back();
  EXPECT_EQ(normalized, schedule);
}

// Position by position: what holds.
struct Wanted {
  std::vector<CacheSegment> parts;  // `from` is the position
  size_t Changes() const {
    size_t changes = 0;
    for (size_t i = 1; i < parts.size(); ++i) {
      CacheSegment before = parts[i - 1];
      before.from = parts[i].from;
      changes += parts[i] == before ? 0 : 1;
    }
    return changes;
  }
};
// Each position sees as its part says; a page has the bits of its first position's part.
template <class PartAt>
Wanted WantedOf(const PartAt& part_at) {
  Wanted wanted;
  for (int position = 0; position < kPositions; ++position) {
    CacheSegment part = part_at(position);
    part.from = position;
    part.bits = part_at(position / kPage * kPage).bits;
    if (part.size == 0) part.keep = 0;
    wanted.parts.push_back(part);
  }
  return wanted;
}
void ExpectIs(const CacheSchedule& schedule, const Wanted& wanted) {
  for (int position = 0; position < kPositions; ++position) {
    CacheSegment part = PartAt(schedule, position);
    part.from = position;
    ASSERT_EQ(part, wanted.parts[static_cast<size_t>(position)]) << position;
  }
  EXPECT_EQ(schedule.segments.size(), 1 + wanted.Changes()) << "a part changes nothing";
}

TEST(CacheScheduleTest, ANormalizedOneMeansTheSameButForBitsWithinPages) {
  static constexpr int kBits[] = {16, 8, 4};
  Random random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<int> places;
    for (int parts = Below(random, 8); parts > 0; --parts)
      places.push_back(1 + Below(random, kLastChange / (1 + 3 * Below(random, 2))));
    std::ranges::sort(places);
    CacheSchedule raw = Of({{0, kBits[Below(random, 3)], 0, 0}});
    for (const int place : places) {
      CacheSegment part = raw.segments.back();
      part.from = place;
      if (Below(random, 2) == 0) RandomRule(random, &part);
      if (Below(random, 2) == 0) part.bits = kBits[Below(random, 3)];
      raw.segments.push_back(part);
    }
    const CacheSchedule normalized = Normalized(raw);
    ASSERT_NO_FATAL_FAILURE(
        ExpectIs(normalized, WantedOf([&](int position) { return PartAt(raw, position); })))
        << DescribeCache(raw);
    EXPECT_TRUE(IsSound(normalized)) << DescribeCache(normalized);
    EXPECT_EQ(Normalized(normalized), normalized);
  }
}

TEST(CacheScheduleTest, AContinuedOneIsTheOldOneBeforeAndTheNextOneAfter) {
  Random random(2);
  for (int round = 0; round < 300; ++round) {
    const CacheSchedule old = RandomSchedule(random);
    CacheSchedule next = RandomSchedule(random);
    next.type = "next";
    next.pinned = Below(random, 2) == 0;
    const int position = Below(random, kPositions - kPage);
    const auto continued = Continued(old, position, next);
    const Wanted wanted = WantedOf([&](int at) { return PartAt(at < position ? old : next, at); });
    ASSERT_TRUE(continued);
    ASSERT_NO_FATAL_FAILURE(ExpectIs(*continued, wanted))
        << DescribeCache(old) << " at " << position << " " << DescribeCache(next);
    EXPECT_TRUE(IsSound(*continued));
    EXPECT_EQ(continued->type, next.type);
    EXPECT_EQ(continued->chunk_size, next.chunk_size);
    EXPECT_EQ(continued->pinned, next.pinned);
  }
}

TEST(CacheScheduleTest, ASeventeenthPartIsNotTaken) {
  CacheSchedule most;
  while (most.segments.size() < static_cast<size_t>(limits::kCacheSegmentsMax)) {
    const auto parts = static_cast<int>(most.segments.size());
    most.segments.push_back({10 * parts, 16, 0, 100 + parts});
  }
  const int last = most.segments.back().from;
  EXPECT_EQ(Continued(most, last + 10, CacheSchedule()), std::nullopt);
  // The page's rest would be a part, and the next page another one.
  CacheSchedule fewer = most;
  fewer.segments.pop_back();
  EXPECT_EQ(Continued(fewer, last, Of({{0, 8, 0, 0}})), std::nullopt);
  EXPECT_EQ(Continued(fewer, last, Of({{0, 16, 0, 0}, {last + 1, 16, 0, 64}})), std::nullopt);
  // In place of the last one, and where nothing changes, there is room.
  const auto replaced = Continued(most, last, CacheSchedule());
  ASSERT_TRUE(replaced);
  EXPECT_EQ(replaced->segments.back(), (CacheSegment{last, 16, 0, 0}));
  CacheSegment same = most.segments.back();
  same.from = 0;
  EXPECT_EQ(Continued(most, last + 10, Of({same})), most);
}

// --- Pages and positions ------------------------------------------------------------------------

TEST(CacheScheduleTest, APageHasTheBitsOfItsPart) {
  const CacheSchedule schedule = Of({{0, 16, 0, 0}, {64, 8, 0, 0}, {70, 8, 0, 64}, {96, 4, 0, 64}});
  EXPECT_EQ(FormatOf(schedule, 0), shm::PageFormat::kFloat16);
  EXPECT_EQ(FormatOf(schedule, 1), shm::PageFormat::kFloat16);
  EXPECT_EQ(FormatOf(schedule, 2), shm::PageFormat::kBits8);
  EXPECT_EQ(FormatOf(schedule, 3), shm::PageFormat::kBits4);
  EXPECT_EQ(FormatOf(schedule, 1000), shm::PageFormat::kBits4);
  EXPECT_EQ(PrecisionOf(shm::PageFormat::kFloat16), engine::KvPrecision::kF16);
  EXPECT_EQ(PrecisionOf(shm::PageFormat::kBits8), engine::KvPrecision::kQ8);
  EXPECT_EQ(PrecisionOf(shm::PageFormat::kBits4), engine::KvPrecision::kQ4);
}

TEST(CacheScheduleTest, TheEngineIsToldWhatEachPositionSees) {
  Random random(3);
  for (int round = 0; round < 50; ++round) {
    const CacheSchedule schedule = RandomSchedule(random);
    const std::vector<engine::KvRetention> retentions = RetentionsOf(schedule);
    engine::KvView view;
    view.retentions = retentions;
    for (int position = 0; position < kPositions; ++position) {
      const engine::KvRetention told = view.RetentionAt(position);
      ASSERT_EQ(SeenBy({0, 16, told.keep, told.size}, position), SeenBy(schedule, position))
          << DescribeCache(schedule) << ": " << position;
    }
  }
  // Nothing, where it may take the shorter way.
  const CacheSchedule all = Of({{0, 16, 0, 0}, {64, 8, 0, 0}});
  EXPECT_TRUE(RetentionsOf(all).empty());
  EXPECT_FALSE(Rotates(all));
  EXPECT_TRUE(Rotates(Of({{0, 16, 0, 0}, {64, 16, 0, 64}, {65, 16, 0, 0}})));
}

TEST(CacheScheduleTest, PagesHaveTheSameKeysJustWhereTheirNumbersAreTheSame) {
  Random random(4);
  int same_pages = 0, other_pages = 0, same_windows = 0;
  for (int round = 0; round < 150; ++round) {
    const CacheSchedule one = RandomSchedule(random), other = Relative(one, random);
    ASSERT_TRUE(IsSound(one) && IsSound(other)) << DescribeCache(one) << DescribeCache(other);
    const std::vector<uint64_t> numbers = Numbers(one), others = Numbers(other);
    bool all_before = true;  // as a page is found behind the one before it
    for (size_t page = 0; page < kPages; ++page) {
      bool sees_all = true, sees_same = true, same_numbers = true;
      for (int offset = 0; offset < kPage; ++offset) {
        const int position = static_cast<int>(page) * kPage + offset;
        const auto at = static_cast<size_t>(position);
        sees_all = sees_all && SeesAll(one, position);
        sees_same = sees_same && SeenBy(one, position) == SeenBy(other, position);
        same_numbers = same_numbers && numbers[at] == others[at];
      }
      const bool same_mask = MaskOf(one, page) == MaskOf(other, page);
      ASSERT_EQ(MaskOf(one, page) == 0, sees_all) << DescribeCache(one) << ": " << page;
      ASSERT_EQ(same_mask, sees_same)
          << DescribeCache(one) << " and " << DescribeCache(other) << ": " << page;
      all_before = all_before && same_mask && FormatOf(one, page) == FormatOf(other, page);
      ASSERT_EQ(all_before, same_numbers)
          << DescribeCache(one) << " and " << DescribeCache(other) << ": " << page;
      ++(same_numbers ? same_pages : other_pages);
      same_windows += same_mask && !sees_all ? 1 : 0;
    }
  }
  EXPECT_GT(same_pages, 100);
  EXPECT_GT(other_pages, 100);
  EXPECT_GT(same_windows, 100);
}

TEST(CacheScheduleTest, UpToItsSizeAWindowSharesThePagesOfThoseWhoSeeAll) {
  const CacheSchedule rotating = Of({{0, 16, 4, 128}});
  for (size_t page = 0; page < 4; ++page) EXPECT_EQ(MaskOf(rotating, page), 0u);
  EXPECT_NE(MaskOf(rotating, 4), 0u);
  EXPECT_EQ(MaskOf(rotating, 5), MaskOf(rotating, 4));
  EXPECT_NE(MaskOf(rotating, 5), MaskOf(Of({{0, 16, 5, 129}}), 5));
  EXPECT_NE(MaskOf(rotating, 5), MaskOf(Of({{0, 16, 5, 128}}), 5));
  EXPECT_NE(MaskOf(rotating, 5), MaskOf(Of({{0, 16, 4, 129}}), 5));
  // A change counts from where it is.
  EXPECT_NE(MaskOf(Of({{0, 16, 0, 0}, {70, 16, 0, 64}, {96, 16, 0, 0}}), 2), 0u);
  EXPECT_NE(MaskOf(Of({{0, 16, 0, 0}, {140, 16, 0, 64}}), 4),
            MaskOf(Of({{0, 16, 0, 0}, {141, 16, 0, 64}}), 4));
}

TEST(CacheScheduleTest, APagesBeginningIsThatOfPagesWhichGoOnAsItBegins) {
  Random random(5);
  int with = 0, without = 0;
  for (int round = 0; round < 150; ++round) {
    const CacheSchedule schedule = RandomSchedule(random);
    for (size_t page = 0; page < kPages; ++page) {
      const int begin = static_cast<int>(page) * kPage;
      CacheSegment part = PartAt(schedule, begin);
      if (SeesAll(schedule, begin)) part.keep = part.size = 0;
      part.from = 0;
      const CacheSchedule goes_on = Of({part});
      uint32_t count = 0;
      while (count < kPage && SeenBy(schedule, begin + static_cast<int>(count)) ==
                                  SeenBy(goes_on, begin + static_cast<int>(count)))
        ++count;
      const auto beginning = BeginningOf(schedule, page);
      ASSERT_EQ(beginning.has_value(), count < kPage) << DescribeCache(schedule) << ": " << page;
      ++(beginning ? with : without);
      if (!beginning) continue;
      ASSERT_EQ(beginning->count, count) << DescribeCache(schedule) << ": " << page;
      ASSERT_EQ(beginning->mask, MaskOf(goes_on, page)) << DescribeCache(schedule) << ": " << page;
    }
  }
  EXPECT_GT(with, 50);
  EXPECT_GT(without, 50);
}

TEST(CacheScheduleTest, PagesAreNeededJustWhileALaterPositionSeesThem) {
  Random random(6);
  constexpr int kHorizon = 2 * kPositions;
  int given_up = 0;
  for (int round = 0; round < 100; ++round) {
    const CacheSchedule schedule = RandomSchedule(random);
    std::vector<int> last_seen(kHorizon);
    for (int query = 0; query < kHorizon; ++query) {
      const std::vector<bool> seen = SeenBy(schedule, query);
      for (size_t past = 0; past < seen.size(); ++past)
        if (seen[past]) last_seen[past] = query;
    }
    for (int computed = 0; computed < kPositions; ++computed) {
      const NeededPages needed = NeededFrom(schedule, computed);
      for (size_t page = 0; page < kPages + 1; ++page) {
        const int begin = static_cast<int>(page) * kPage;
        // Those that are not computed yet are not given up either.
        bool is_needed = begin >= computed;
        for (int past = begin; past < std::min(begin + kPage, computed); ++past)
          is_needed = is_needed || last_seen[static_cast<size_t>(past)] >= computed;
        ASSERT_EQ(needed.Has(page), is_needed)
            << DescribeCache(schedule) << ": page " << page << " from " << computed;
        given_up += is_needed ? 0 : 1;
      }
    }
  }
  EXPECT_GT(given_up, 1000);
}

TEST(CacheScheduleTest, NeededAreWhatIsKeptAndTheWindow) {
  const CacheSchedule rotating = Of({{0, 16, 33, 133}});  // the last 100
  const auto expect = [&](int position, size_t first, size_t from) {
    const NeededPages needed = NeededFrom(rotating, position);
    EXPECT_EQ(needed.first, first) << position;
    EXPECT_EQ(needed.from, from) << position;
  };
  expect(132, 0, 0);
  expect(133, 2, 1);
  expect(32 * 10 + 98, 2, 9);
  expect(32 * 10 + 99, 2, 10);
  // Who will see all once needs all now.
  const NeededPages all = NeededFrom(Of({{0, 16, 0, 64}, {5000, 16, 0, 0}}), 4000);
  for (size_t page = 0; page < 125; ++page) EXPECT_TRUE(all.Has(page));
  // What a larger window to come will begin with stays until then.
  const CacheSchedule larger = Of({{0, 16, 0, 64}, {640, 16, 0, 320}});
  EXPECT_EQ(NeededFrom(larger, 320).from, 8u);
  EXPECT_EQ(NeededFrom(larger, 480).from, 10u);
  EXPECT_EQ(NeededFrom(larger, 640).from, 10u);
}

TEST(CacheScheduleTest, PagesAreWantedAStepAheadWhereOthersAreGivenUp) {
  constexpr int kAhead = limits::kRotatingAheadTokens;
  const CacheSchedule rotating = Of({{0, 16, 4, 100}});
  EXPECT_EQ(WantedUpTo(CacheSchedule(), 0, 5000), 5000);
  EXPECT_EQ(WantedUpTo(rotating, 0, 5000), kAhead);
  EXPECT_EQ(WantedUpTo(rotating, 1, 5000), kPage + kAhead);
  EXPECT_EQ(WantedUpTo(rotating, kPage, 5000), kPage + kAhead);
  EXPECT_EQ(WantedUpTo(rotating, kPage + 1, 5000), 2 * kPage + kAhead);
  EXPECT_EQ(WantedUpTo(rotating, 4990, 5000), 5000);
  EXPECT_EQ(WantedUpTo(rotating, 0, kAhead - 1), kAhead - 1);
}

TEST(CacheScheduleTest, WhoSeesAllHoldsAll) {
  const CacheSchedule schedule =
      Of({{0, 16, 0, 0}, {64, 8, 0, 0}, {128, 4, 0, 0}, {160, 16, 0, 0}});
  const auto held = [&](int tokens) { return PagesHeld(schedule, tokens).values; };
  using Counts = std::array<uint64_t, 3>;  // 16, 8, 4 bits
  EXPECT_EQ(held(0), (Counts{0, 0, 0}));
  EXPECT_EQ(held(1), (Counts{1, 0, 0}));
  EXPECT_EQ(held(64), (Counts{2, 0, 0}));
  EXPECT_EQ(held(65), (Counts{2, 1, 0}));
  EXPECT_EQ(held(160), (Counts{2, 2, 1}));
  EXPECT_EQ(held(1000), (Counts{2 + 27, 2, 1}));
  // Until its window is full, so does who rotates, if it has not more ahead of it.
  EXPECT_EQ(PagesHeld(Of({{0, 8, 4, 400}}), 400).values, (Counts{0, 13, 0}));
}

TEST(CacheScheduleTest, WhoRotatesHoldsNoMoreHoweverLongItGets) {
  const CacheSchedule rotating = Of({{0, 16, 4, 1024}});
  const uint64_t most = PagesHeld(rotating, 4000).values[0];
  EXPECT_GE(most, static_cast<uint64_t>((1024 + limits::kRotatingAheadTokens) / kPage));
  // What is kept and a window that begins and ends within pages take two more.
  EXPECT_LE(most, static_cast<uint64_t>((1024 + limits::kRotatingAheadTokens) / kPage) + 3);
  EXPECT_EQ(PagesHeld(rotating, 100'000).values[0], most);
  EXPECT_EQ(PagesHeld(CacheSchedule(), 100'000).values[0], 3125u);
}

TEST(CacheScheduleTest, NoMorePagesAreEverHeldThanAreSaid) {
  Random random(7);
  std::vector<CacheSchedule> schedules = {
      Of({{0, 16, 4, 128}}),
      Of({{0, 16, 0, 100}}),
      // Pages in 8 bits are the most only once its window is full.
      Of({{0, 16, 4, 128}, {640, 8, 4, 128}}),
      // One that sees more comes later.
      Of({{0, 16, 0, 64}, {700, 16, 0, 500}}),
  };
  for (int round = 0; round < 60; ++round) schedules.push_back(RandomSchedule(random));
  for (const CacheSchedule& schedule : schedules) {
    const int tokens = 1 + Below(random, 2500);
    shm::PerFormat<uint64_t> most;
    for (int computed = 0; computed <= tokens; ++computed) {
      const NeededPages needed = NeededFrom(schedule, computed);
      const int end = engine::KvShape::PagesFor(WantedUpTo(schedule, computed, tokens));
      shm::PerFormat<uint64_t> held;
      for (size_t page = 0; page < static_cast<size_t>(end); ++page)
        held[FormatOf(schedule, page)] += needed.Has(page) ? 1 : 0;
      for (const shm::PageFormat format : shm::kAllFormats)
        most[format] = std::max(most[format], held[format]);
    }
    EXPECT_EQ(PagesHeld(schedule, tokens).values, most.values)
        << DescribeCache(schedule) << ", " << tokens << " tokens";
  }
}

// --- In words -----------------------------------------------------------------------------------

TEST(CacheScheduleTest, IsDescribed) {
  EXPECT_EQ(DescribeCache({}), "kv: 16 bits");
  CacheSchedule schedule = Of({{0, 16, 4, 4096}});
  schedule.type = "rotating_kv";
  EXPECT_EQ(DescribeCache(schedule),
            "rotating_kv: 16 bits, the first 4 and the last 4092 positions");
  schedule = Of({{0, 16, 0, 0}, {8192, 8, 0, 64}});
  schedule.type = "long";
  schedule.chunk_size = 512;
  schedule.pinned = true;
  EXPECT_EQ(DescribeCache(schedule),
            "long: 16 bits; from 8192 on 8 bits, the first 0 and the last 64 positions; in rows of "
            "512; pinned");
}

}  // namespace
}  // namespace perdure::worker
