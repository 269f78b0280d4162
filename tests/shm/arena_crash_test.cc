// A death between any two stores to shared memory: what a successor finds is right.
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "shm/page_store.h"
#include "tests/shm/chains.h"
#include "tests/shm/watched_memory.h"

namespace perdure::shm {
namespace {

constexpr PageIndex kPages = 8;
constexpr ArenaShape kShape{kMixedBytes, kPages, 4};

struct Found {
  PageIndex kept = 0;
  size_t right = 0;
};

Found WhatASuccessorFinds(const WatchedMemory& memory) {
  PageStore successor(memory.Copy(), kPages);
  EXPECT_EQ(successor.recovery().dropped, 0u);
  const Found found{successor.recovery().kept, CountRightPages(&successor)};
  EXPECT_EQ(successor.damaged(), 0u);
  return found;
}

TEST(ArenaCrash, AtEveryStoreOfRandomWork) {
  size_t crashes = 0;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    auto owned = WatchedMemory::Make(kShape);
    WatchedMemory* memory = owned.get();
    PageStore store(std::move(owned), kPages);
    memory->stored = [&] {
      ++crashes;
      const Found found = WhatASuccessorFinds(*memory);
      ASSERT_EQ(found.kept, found.right);
      // All that is cached, but for the one page that is just becoming so, or no longer so.
      ASSERT_LE(found.kept, store.cached() + 1);
      ASSERT_GE(found.kept + 1, store.cached());
    };
    RandomUser user(&store, seed);
    for (int step = 0; step < 250 && !testing::Test::HasFailure(); ++step) {
      user.Step();
      // Between operations there is nothing in between.
      ASSERT_EQ(WhatASuccessorFinds(*memory).kept, store.cached());
    }
    memory->stored = nullptr;
  }
  EXPECT_GT(crashes, 1000u);
}

TEST(ArenaCrash, ASealIsOneStore) {
  auto owned = WatchedMemory::Make(kShape);
  WatchedMemory* memory = owned.get();
  PageStore store(std::move(owned), kPages);
  const PageIndex page = *store.Allocate(KeyOf(store, 1).format);
  Fill(BytesOf(store, page), {1});
  std::vector<PageIndex> kept;
  memory->stored = [&] { kept.push_back(WhatASuccessorFinds(*memory).kept); };
  store.Seal(page, kNoPage, KeyOf(store, 1), TokensOf({1}));
  memory->stored = nullptr;
  ASSERT_GE(kept.size(), 8u);
  EXPECT_EQ(kept.back(), 1u);
  for (size_t i = 0; i + 1 < kept.size(); ++i) EXPECT_EQ(kept[i], 0u) << "store " << i;
}

// Somebody else's store to the descriptor, between any two of the seal's: the page is lost or
// right.
TEST(ArenaCrash, ADescriptorThatChangesWhileItIsSealed) {
  size_t lost = 0;
  for (size_t store_number = 0; store_number < 16; ++store_number) {
    for (size_t byte = 0; byte < sizeof(PageDescriptorShm); byte += 4) {
      auto owned = WatchedMemory::Make(kShape);
      WatchedMemory* memory = owned.get();
      PageStore store(std::move(owned), kPages);
      const PageIndex page = *store.Allocate(KeyOf(store, 1).format);
      Fill(BytesOf(store, page), {1});
      size_t stores = 0;
      memory->stored = [&] {
        if (stores++ == store_number)
          reinterpret_cast<std::byte*>(&memory->descriptor(page))[byte] ^= std::byte{1};
      };
      store.Seal(page, kNoPage, KeyOf(store, 1), TokensOf({1}));
      memory->stored = nullptr;
      PageStore successor(memory->Copy(), kPages);
      ASSERT_EQ(CountRightPages(&successor), successor.cached()) << store_number << ' ' << byte;
      lost += successor.cached() == 0;
    }
  }
  EXPECT_GT(lost, 20u);
}

// The recovery is itself such work: it may die at any store, too.
TEST(ArenaCrash, DuringTheRecovery) {
  auto owned = WatchedMemory::Make(kShape);
  WatchedMemory* memory = owned.get();
  PageStore store(std::move(owned), kPages);
  RandomUser user(&store, 3);
  for (int step = 0; step < 200; ++step) user.Step();
  user.ReleaseAll();
  ASSERT_GT(store.cached(), 3u);
  auto second = memory->Copy();
  // An open page, a damaged one, and one whose parent is gone with it.
  for (PageIndex page = 0; page < 3; ++page)
    if (second->descriptor(page).position == 0) second->descriptor(page).chain_hash ^= 1;
  WatchedMemory* watched = second.get();
  size_t crashes = 0;
  watched->stored = [&] {
    ++crashes;
    PageStore successor(watched->Copy(), kPages);
    EXPECT_EQ(CountRightPages(&successor), successor.cached());
  };
  PageStore recovered(std::move(second), kPages);
  watched->stored = nullptr;
  EXPECT_GT(crashes, 0u);
}

}  // namespace
}  // namespace perdure::shm
