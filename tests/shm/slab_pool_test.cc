// The pool beside a model of it that knows only how many slots are in use.
#include "shm/slab_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>

#include "tests/shm/chains.h"

namespace perdure::shm {
namespace {

class RandomSlots {
 public:
  explicit RandomSlots(uint64_t seed, bool pins = false)
      : random_(seed),
        pins_(pins),
        memory_(MakePrivateMemory(*ArenaGeometry::For({kMixedBytes, 80, 0})).value()),
        pool_(memory_.get(), 12, [this](SlotIndex from, SlotIndex to) { Move(from, to); }) {}

  void Step() {
    if (pins_) PinSome();
    const PageFormat format = kAllFormats[Random(3)];
    const uint32_t count = 1 + Random(20);
    switch (Random(10)) {
      case 0:
      case 1:
      case 2:
        Take(format);
        break;
      case 3:
        TakeRun(format, count);
        break;
      case 4:
        GiveSome(Random(static_cast<uint32_t>(slots_.size()) + 1));
        break;
      case 5:
        Compact();
        break;
      default:
        GiveSome(1);
    }
    Check();
  }
  int runs() const { return runs_; }
  int moves() const { return moves_; }

 private:
  uint32_t Random(uint32_t below) { return static_cast<uint32_t>(random_() % below); }

  void Move(SlotIndex from, SlotIndex to) {
    ++moves_;
    ASSERT_FALSE(pinned_.contains(from)) << from;
    ASSERT_TRUE(slots_.contains(from) && !slots_.contains(to));
    ASSERT_EQ(pool_.format_of(from), pool_.format_of(to));
    slots_[to] = slots_[from];
    slots_.erase(from);
  }
  // A few, each for a while.
  void PinSome() {
    if (!pinned_.empty() && Random(4) == 0) {
      pool_.Unpin(*pinned_.begin());
      pinned_.erase(pinned_.begin());
    }
    if (slots_.empty() || pinned_.size() >= 3 || Random(4) != 0) return;
    const SlotIndex slot =
        std::next(slots_.begin(), Random(static_cast<uint32_t>(slots_.size())))->first;
    if (pinned_.insert(slot).second) pool_.Pin(slot);
  }
  void Add(SlotIndex slot, PageFormat format) {
    ASSERT_TRUE(slots_.emplace(slot, format).second) << slot;
    ASSERT_TRUE(pool_.Exists(slot, format));
    ASSERT_EQ(pool_.format_of(slot), format);
    ++used_[format];
  }
  void Take(PageFormat format) {
    const uint64_t room = pool_.Room(format, used_);
    PerFormat<uint64_t> more = used_;
    ++more[format];
    ASSERT_EQ(pool_.Fits(more), room > 0);
    const auto slot = pool_.Take(format);
    // What is pinned may be in the way of what fits.
    if (pinned_.empty())
      ASSERT_EQ(slot.has_value(), room > 0);
    else
      ASSERT_LE(slot.has_value(), room > 0);
    if (slot) Add(*slot, format);
  }
  void TakeRun(PageFormat format, uint32_t count) {
    const ArenaGeometry& geometry = memory_->geometry();
    const uint32_t per_slab = geometry.slots_per_slab[format];
    const auto run = pool_.TakeRun(format, count);
    // One within a slab is always to be had where there is an empty slab's worth of room.
    if (run.empty()) {
      EXPECT_FALSE(pinned_.empty() && count <= per_slab &&
                   pool_.Room(format, used_) >= 2 * per_slab)
          << count << " of " << pool_.Room(format, used_);
      return;
    }
    ASSERT_EQ(run.size(), count);
    ++runs_;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t place = run[0] % geometry.slot_stride + i;
      ASSERT_EQ(run[i],
                geometry.FirstSlot(geometry.SlabOf(run[0]) + place / per_slab) + place % per_slab);
      Add(run[i], format);
    }
  }
  void GiveSome(uint32_t count) {
    for (; count > 0 && !slots_.empty(); --count) {
      const auto it = std::next(slots_.begin(), Random(static_cast<uint32_t>(slots_.size())));
      if (pinned_.contains(it->first)) continue;
      --used_[it->second];
      pool_.Give(it->first);
      slots_.erase(it);
    }
  }
  void Compact() {
    const uint64_t bytes_max = Random(2) == 0 ? 1 : UINT64_MAX;
    const uint64_t granted = pool_.bytes_granted(), spare = pool_.BytesSpare(used_);
    while (!pool_.Compact(bytes_max)) {
    }
    pool_.ReturnEmpty();
    if (!pinned_.empty()) {
      EXPECT_LE(pool_.bytes_granted(), granted);
      return;
    }
    EXPECT_EQ(pool_.bytes_granted(), granted - spare);
    uint32_t needed = 0;
    for (const PageFormat format : kAllFormats)
      needed += memory_->geometry().SlabsFor(format, used_[format]);
    EXPECT_EQ(pool_.slabs_granted(), needed);
  }
  void Check() {
    EXPECT_LE(pool_.slabs_granted(), pool_.slabs_max());
    for (const auto& [slot, format] : slots_) ASSERT_EQ(pool_.format_of(slot), format);
  }

  std::mt19937_64 random_;
  const bool pins_;
  const std::unique_ptr<PageMemory> memory_;
  SlabPool pool_;
  std::map<SlotIndex, PageFormat> slots_;
  std::set<SlotIndex> pinned_;
  PerFormat<uint64_t> used_;
  int runs_ = 0, moves_ = 0;
};

TEST(SlabPool, AgreesWithTheCountsThroughRandomUse) {
  int runs = 0, moves = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    RandomSlots slots(seed);
    for (int step = 0; step < 2000; ++step) {
      SCOPED_TRACE(step);
      slots.Step();
      if (testing::Test::HasFailure()) return;
    }
    runs += slots.runs();
    moves += slots.moves();
  }
  EXPECT_GT(runs, 1000);
  EXPECT_GT(moves, 1000);
}

TEST(SlabPool, WhatIsPinnedStaysAndKeepsNobodyElseFromMoving) {
  int moves = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    RandomSlots slots(seed, true);
    for (int step = 0; step < 2000; ++step) {
      SCOPED_TRACE(step);
      slots.Step();
      if (testing::Test::HasFailure()) return;
    }
    moves += slots.moves();
  }
  EXPECT_GT(moves, 500);
}

}  // namespace
}  // namespace perdure::shm
