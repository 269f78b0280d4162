#include "shm/page_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "base/limits.h"
#include "tests/shm/chains.h"

namespace perdure::shm {
namespace {

constexpr uint64_t kPageBytes = 256;
constexpr uint64_t kMiB = uint64_t{1} << 20;

std::unique_ptr<PageMemory> Memory(PageIndex pages, PerFormat<uint64_t> bytes = {{kPageBytes}}) {
  return std::move(*MakePrivateMemory(*ArenaGeometry::For({bytes, pages, 0})));
}

ArenaGeometry Geometry(PerFormat<uint64_t> bytes, PageIndex pages, uint32_t conversations = 0) {
  return *ArenaGeometry::For({bytes, pages, conversations});
}

TEST(Geometry, FollowsFromThePages) {
  // Qwen3-0.6B, of 16, 8 and 4 bits.
  const auto geometry = Geometry({{3'670'016, 1'949'696, 1'032'192}}, 1000, 10);
  EXPECT_EQ(geometry.slab_bytes, 32 * kMiB);
  EXPECT_EQ(geometry.slots_per_slab, (PerFormat<uint32_t>{{9, 16, 32}}));
  EXPECT_EQ(geometry.slot_stride, 32u);
  EXPECT_EQ(geometry.slabs, 112u);
  EXPECT_EQ(geometry.pages_max, 112u * 32 * limits::kArenaDescriptorsPerSlot);
  EXPECT_EQ(geometry.slabs_offset % kArenaSlabAlignment, 0u);
  EXPECT_GE(geometry.descriptors_offset, 4096 + 10 * sizeof(ConversationShm));
  EXPECT_GE(geometry.slabs_offset,
            geometry.descriptors_offset + geometry.pages_max * sizeof(PageDescriptorShm));
  EXPECT_EQ(geometry.SlotOffset(33, PageFormat::kBits8),
            geometry.slabs_offset + geometry.slab_bytes + 1'949'696);
  EXPECT_EQ(geometry.file_bytes, geometry.slabs_offset + 112 * geometry.slab_bytes);
  // A page larger than a usual slab has one of its own; a small arena has small slabs.
  EXPECT_EQ(Geometry({{100 * kMiB}}, 3).slab_bytes, 100 * kMiB);
  EXPECT_EQ(Geometry({{100}}, 3).slab_bytes, kArenaSmallSlabAlignment);
  EXPECT_EQ(Geometry({{100}}, 3).page_bytes[PageFormat::kFloat16], 128u);
  EXPECT_GE(Geometry({{64 << 10, 40 << 10, 20 << 10}}, 1000).slabs, limits::kArenaSlabsMin);
  // Where codes take more than halves: tiny heads.
  EXPECT_EQ(Geometry({{256, 1344, 832}}, 4).slots_per_slab, (PerFormat<uint32_t>{{5, 1, 1}}));
}

TEST(Geometry, HasBounds) {
  const auto is_possible = [](uint64_t bytes, uint32_t pages, uint32_t conversations = 0) {
    return ArenaGeometry::For({{{bytes}}, pages, conversations}).has_value();
  };
  EXPECT_FALSE(is_possible(0, 1));
  EXPECT_FALSE(is_possible(1, 0));
  EXPECT_FALSE(is_possible(limits::kArenaPageBytesMax + 1, 1));
  EXPECT_FALSE(is_possible(1, limits::kArenaPagesMax + 1));
  EXPECT_FALSE(is_possible(1, 1, limits::kConversationsMax + 1));
  EXPECT_TRUE(
      is_possible(limits::kArenaPageBytesMax, limits::kArenaPagesMax, limits::kConversationsMax));
}

TEST(PageStore, HandsOutTheMostRecentlyFreedPageFirst) {
  PageStore store(Memory(4), 4);
  EXPECT_EQ(store.bytes_granted(), 0u);
  EXPECT_EQ(store.Allocate(), 0u);
  EXPECT_EQ(store.Allocate(), 1u);
  EXPECT_EQ(store.Allocate(), 2u);
  const SlotIndex slot = store.slot(2);
  store.Release(0);
  store.Release(2);
  EXPECT_EQ(store.Allocate(), 2u);
  EXPECT_EQ(store.slot(2), slot);
  EXPECT_EQ(store.Allocate(), 0u);
  EXPECT_EQ(store.Allocate(), 3u);
  EXPECT_EQ(store.Allocate(), std::nullopt);
  EXPECT_EQ(store.used(), 4u);
  EXPECT_EQ(store.available(), 0u);
}

TEST(PageStore, PagesAreAlignedAndApart) {
  PageStore store(Memory(40, {{3 * kMiB}}), 40);
  std::set<std::byte*> addresses;
  for (int i = 0; i < 40; ++i) {
    std::byte* address = store.address(*store.Allocate());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(address) % kArenaPageAlignment, 0u);
    address[0] = address[store.page_bytes() - 1] = std::byte{1};
    addresses.insert(address);
  }
  ASSERT_EQ(addresses.size(), 40u);
  for (auto it = addresses.begin(); std::next(it) != addresses.end(); ++it)
    EXPECT_GE(static_cast<size_t>(*std::next(it) - *it), store.page_bytes());
}

TEST(PageStore, StaysWithinItsBudget) {
  PageStore store(Memory(10), 3);
  EXPECT_EQ(store.bytes_max(), 3 * kPageBytes);
  EXPECT_EQ(store.available(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(store.Allocate().has_value());
  EXPECT_FALSE(store.Allocate().has_value());
}

TEST(PageStore, FindsThePathInWholePages) {
  PageStore store(Memory(8), 8);
  const auto pages = PutWord(&store, {0, 1, 2});
  const auto find = [&](const std::vector<TokenId>& tokens) {
    return store.FindPath(tokens, [](size_t) { return PageKey(); });
  };
  EXPECT_EQ(find(TokensOf({0, 1, 2, 0})), pages);
  EXPECT_EQ(find(TokensOf({0, 1, 0})).size(), 2u);
  EXPECT_EQ(find(TokensOf({1, 2})).size(), 0u);
  // Tokens that fill no page are none.
  auto tokens = TokensOf({0, 1, 2});
  tokens.pop_back();
  EXPECT_EQ(find(tokens).size(), 2u);
  tokens[40] ^= 1;
  EXPECT_EQ(find(tokens).size(), 1u);
}

TEST(PageStore, AnotherKeyIsAnotherPage) {
  PageStore store(Memory(8, kMixedBytes), 8);
  const auto seal = [&](const PageKey& key, std::byte content) {
    const PageIndex page = *store.Allocate(key.format);
    store.address(page)[0] = content;
    return store.Seal(page, kNoPage, key, TokensOf({0}));
  };
  const PageKey keys[] = {{.format = PageFormat::kFloat16, .owner = 1, .mask = 0},
                          {.format = PageFormat::kFloat16, .owner = 2, .mask = 0},
                          {.format = PageFormat::kFloat16, .owner = 1, .mask = 7},
                          {.format = PageFormat::kBits8, .owner = 1, .mask = 0},
                          {.format = PageFormat::kBits4, .owner = 1, .mask = 0}};
  std::vector<PageIndex> pages;
  for (const PageKey& key : keys) pages.push_back(seal(key, static_cast<std::byte>(pages.size())));
  EXPECT_EQ(std::set<PageIndex>(pages.begin(), pages.end()).size(), std::size(keys));
  for (size_t i = 0; i < std::size(keys); ++i) {
    EXPECT_EQ(store.FindPath(TokensOf({0}), [&](size_t) { return keys[i]; }),
              std::vector<PageIndex>{pages[i]});
    EXPECT_EQ(store.address(pages[i])[0], static_cast<std::byte>(i));
  }
  EXPECT_TRUE(store.FindPath(TokensOf({0}), [](size_t) { return PageKey(); }).empty());
}

TEST(PageStore, TheSameTokensAfterAnotherPageAreAnotherPage) {
  PageStore store(Memory(8), 8);
  const auto a = PutWord(&store, {0, 2});
  const auto b = PutWord(&store, {1, 2});
  EXPECT_NE(a[1], b[1]);
  EXPECT_EQ(CountRightPages(&store), 4u);
}

TEST(PageStore, TheSameChainIsCachedOnce) {
  PageStore store(Memory(8), 8);
  const auto pages = PutWord(&store, {0, 1});
  const PageIndex again = *store.Allocate();
  EXPECT_EQ(store.used(), 3u);
  EXPECT_EQ(store.Seal(again, pages[0], {}, TokensOf({1})), pages[1]);
  EXPECT_EQ(store.used(), 2u);
  EXPECT_EQ(store.referenced(), 2u);
  EXPECT_EQ(store.Allocate(), again);
  store.Release(again);
  // Both references count.
  ReleaseAll(&store, pages);
  EXPECT_EQ(store.referenced(), 1u);
  store.Release(pages[1]);
  EXPECT_EQ(store.referenced(), 0u);
}

TEST(PageStore, SealedPagesStayAndOpenOnesDoNot) {
  PageStore store(Memory(4), 4);
  const auto pages = PutWord(&store, {0, 1});
  const PageIndex open = *store.Allocate();
  store.Release(open);
  ReleaseAll(&store, pages);
  EXPECT_EQ(store.used(), 2u);
  EXPECT_EQ(store.cached(), 2u);
  EXPECT_EQ(store.available(), 4u);
  EXPECT_EQ(CachedPages(&store, {0, 1}), 2u);
}

// --- Partial pages ------------------------------------------------------------------------------

class Fragments : public testing::Test {
 protected:
  // A page after `parent` with these tokens, released.
  PageIndex Put(PageIndex parent, std::vector<TokenId> tokens) {
    const PageIndex page = *store_.Allocate();
    Fill(BytesOf(store_, page), {static_cast<int>(tokens.size())});
    const PageIndex sealed = store_.Seal(page, parent, {}, tokens);
    store_.Release(sealed);
    return sealed;
  }
  // How far a page reaches that begins like this.
  uint32_t Reach(PageIndex parent, std::vector<TokenId> tokens) {
    const auto match = store_.FindFragment(parent, {}, tokens);
    return match ? match->tokens : 0;
  }

  PageStore store_{Memory(16), 16};
};

TEST_F(Fragments, AreFoundAsFarAsTheyAgree) {
  const PageIndex first = Put(kNoPage, TokensOf({0}));
  Put(first, {1, 2, 3, 4, 5});
  Put(first, {1, 2, 9});
  Put(kNoPage, {7, 7});
  EXPECT_EQ(Reach(first, {1, 2, 3, 4, 5, 6, 7}), 5u);
  EXPECT_EQ(Reach(first, {1, 2, 3, 4}), 4u);
  EXPECT_EQ(Reach(first, {1, 2, 3, 0}), 3u);
  EXPECT_EQ(Reach(first, {1, 2, 9, 9}), 3u);
  EXPECT_EQ(Reach(first, {1, 8}), 1u);
  EXPECT_EQ(Reach(first, {2}), 0u);
  EXPECT_EQ(Reach(kNoPage, {7, 7, 7}), 2u);
  // A full page is as good as a partial one.
  auto tokens = TokensOf({0});
  tokens.resize(20);
  tokens.push_back(-1);
  EXPECT_EQ(Reach(kNoPage, tokens), 20u);
  EXPECT_EQ(store_.cached(), 4u);
}

TEST_F(Fragments, ABeginningGoesWithTheFirstThatContinuesIt) {
  const PageIndex first = Put(kNoPage, TokensOf({0}));
  Put(first, {1, 2, 3});
  EXPECT_EQ(store_.cached(), 2u);
  Put(first, {1, 2, 3, 4});
  EXPECT_EQ(store_.cached(), 2u);
  Put(first, {1, 2, 5});  // branches off
  EXPECT_EQ(store_.cached(), 3u);
  Put(first, {1, 2});  // has nothing new
  EXPECT_EQ(store_.cached(), 3u);
  // One that is claimed stays until it is not.
  const PageIndex claimed = Put(first, {6, 6});
  store_.Claim(claimed);
  Put(first, {6, 6, 6});
  EXPECT_EQ(store_.cached(), 5u);
  store_.Unclaim(claimed);
  EXPECT_EQ(store_.cached(), 4u);
  EXPECT_EQ(Reach(first, {6, 6}), 2u);
}

TEST_F(Fragments, OneIsLookedForAmongManyOnItsSide) {
  for (TokenId token = 0; token < 12; ++token) Put(kNoPage, {5, token});
  EXPECT_EQ(Reach(kNoPage, {5, 7, 7}), 2u);
  EXPECT_EQ(Reach(kNoPage, {5, 99}), 1u);
  EXPECT_EQ(Reach(kNoPage, {5, -1}), 1u);
}

TEST_F(Fragments, AreCopied) {
  const PageIndex page = Put(kNoPage, {1, 2, 3});
  const PageIndex copy = *store_.Allocate();
  store_.Copy(page, copy);
  EXPECT_TRUE(IsFilled(BytesOf(store_, copy), {3}));
  EXPECT_NE(store_.slot(copy), store_.slot(page));
}

// --- What is dropped, and what is not -----------------------------------------------------------

TEST(PageStore, EvictsTheLeastRecentlyUsed) {
  PageStore store(Memory(3), 3);
  for (const int letter : {0, 1, 2}) ReleaseAll(&store, PutWord(&store, {letter}));
  EXPECT_EQ(CachedPages(&store, {0}), 1u);
  ASSERT_TRUE(store.Allocate().has_value());
  EXPECT_EQ(CachedPages(&store, {1}), 0u);
  ASSERT_TRUE(store.Allocate().has_value());
  EXPECT_EQ(CachedPages(&store, {2}), 0u);
  EXPECT_EQ(CachedPages(&store, {0}), 1u);
}

TEST(PageStore, EvictsAChainFromItsEnd) {
  PageStore store(Memory(4), 4);
  ReleaseAll(&store, PutWord(&store, {0, 1, 2, 0}));
  for (size_t left = 4; left-- > 0;) {
    ASSERT_TRUE(store.Allocate().has_value());
    EXPECT_EQ(CachedPages(&store, {0, 1, 2, 0}), left);
  }
  EXPECT_FALSE(store.Allocate().has_value());
}

TEST(PageStore, APrefixInUseOutlivesWhatFollowsIt) {
  PageStore store(Memory(4), 4);
  ReleaseAll(&store, PutWord(&store, {0, 1}));
  ReleaseAll(&store, PutWord(&store, {2}));
  // The beginning is used alone, again and again; its old continuation goes first, it does not.
  EXPECT_EQ(CachedPages(&store, {0, 2}), 1u);
  const PageIndex first = *store.Allocate();
  const PageIndex second = *store.Allocate();
  EXPECT_EQ(CachedPages(&store, {0, 1}), 1u);
  EXPECT_EQ(store.Allocate().has_value(), true);
  EXPECT_EQ(CachedPages(&store, {2}), 0u);
  EXPECT_EQ(CachedPages(&store, {0}), 1u);
  store.Release(first);
  store.Release(second);
}

TEST(PageStore, WhatIsReferencedIsNotEvictedNorWhatStandsBeforeIt) {
  PageStore store(Memory(3), 3);
  const auto pages = PutWord(&store, {0, 1, 2});
  store.Release(pages[0]);
  store.Release(pages[1]);
  EXPECT_FALSE(store.Allocate().has_value());
  store.DropUnneeded();
  EXPECT_EQ(store.cached(), 3u);
  store.Release(pages[2]);
  EXPECT_EQ(store.available(), 3u);
  EXPECT_TRUE(store.Allocate().has_value());
  EXPECT_EQ(CachedPages(&store, {0, 1, 2}), 2u);
}

TEST(PageStore, AClaimKeepsTokensButNotNumbers) {
  PageStore store(Memory(3), 3);
  const auto pages = PutWord(&store, {0, 1, 2});
  store.Claim(pages[2]);
  ReleaseAll(&store, pages);
  std::vector<PageIndex> open;
  while (const auto page = store.Allocate()) open.push_back(*page);
  EXPECT_EQ(open.size(), 3u);
  EXPECT_EQ(store.hollow(), 3u);
  EXPECT_EQ(store.cached(), 0u);
  EXPECT_EQ(store.FindPath(TokensOf({0, 1, 2}), [](size_t) { return PageKey(); }), pages);
  EXPECT_FALSE(store.Acquire(pages[0]));
  ReleaseAll(&store, open);
  // Computed again they are the same pages.
  EXPECT_EQ(PutWord(&store, {0, 1, 2}), pages);
  EXPECT_EQ(store.hollow(), 0u);
  EXPECT_EQ(CountRightPages(&store), 3u);
  // Without the claim the tokens go with the numbers.
  ReleaseAll(&store, pages);
  store.Unclaim(pages[2]);
  while (store.Allocate()) {
  }
  EXPECT_EQ(store.hollow(), 0u);
  EXPECT_TRUE(store.FindPath(TokensOf({0}), [](size_t) { return PageKey(); }).empty());
}

TEST(PageStore, ARetiredPageIsHollowAtOnceUnlessOthersGoOnFromIt) {
  PageStore store(Memory(8), 8);
  const auto pages = PutWord(&store, {0, 1, 2, 0});
  store.Retire(pages[1]);
  EXPECT_EQ(store.hollow(), 1u);
  EXPECT_EQ(store.used(), 3u);
  EXPECT_FALSE(store.Acquire(pages[1]));
  EXPECT_TRUE(store.is_loaded(pages[0]));
  // The way to what follows is still there.
  EXPECT_EQ(store.FindPath(TokensOf({0, 1, 2, 0}), [](size_t) { return PageKey(); }), pages);
  // Another chain forks off behind the first page: that one's numbers are of use to it.
  const auto fork = PutWord(&store, {0, 2});
  ReleaseAll(&store, fork);
  store.Retire(pages[0]);
  EXPECT_TRUE(store.is_loaded(pages[0]));
  // But they go first, though their successors have theirs.
  std::vector<PageIndex> open;
  while (store.is_loaded(pages[0])) open.push_back(*store.Allocate());
  EXPECT_TRUE(store.is_loaded(pages[2]));
  EXPECT_TRUE(store.is_loaded(pages[3]));
  ReleaseAll(&store, open);
  store.Release(pages[2]);
  store.Release(pages[3]);
  EXPECT_EQ(store.available(), 8u);
}

TEST(PageStore, ARetiredPageStaysWhereSomebodyElseGoesOnBehindIt) {
  PageStore store(Memory(8), 8);
  const auto pages = PutWord(&store, {0, 1, 2, 0});
  // A claim in the middle of the chain, as of a conversation that ends there.
  store.Claim(pages[2]);
  store.Retire(pages[0]);
  EXPECT_TRUE(store.is_loaded(pages[0]));
  // Unless it is this chain's own.
  ASSERT_TRUE(store.Acquire(pages[0]));
  store.Retire(pages[0], pages[2]);
  EXPECT_FALSE(store.is_loaded(pages[0]));
  // Two have it: one is another's.
  store.Claim(pages[2]);
  store.Retire(pages[1], pages[2]);
  EXPECT_TRUE(store.is_loaded(pages[1]));
  store.Unclaim(pages[2]);
  store.Unclaim(pages[2]);
  // A chain that ends within the page after it.
  const auto open = store.Allocate();
  ASSERT_TRUE(open);
  const PageIndex partial = store.Seal(*open, pages[1], PageKey(), std::vector<TokenId>{77, 78});
  store.Release(partial);
  ASSERT_TRUE(store.Acquire(pages[1]));
  store.Retire(pages[1]);
  EXPECT_TRUE(store.is_loaded(pages[1]));
  store.Claim(partial);
  ASSERT_TRUE(store.Acquire(pages[1]));
  store.Retire(pages[1], partial);
  EXPECT_FALSE(store.is_loaded(pages[1]));
}

TEST(PageStore, WhatNobodyNeedsGoesBeforeHollowPagesToo) {
  PageStore store(Memory(8), 8);
  const auto pages = PutWord(&store, {0, 1, 2});
  store.Retire(pages[1]);
  store.Release(pages[0]);
  store.Release(pages[2]);
  ASSERT_EQ(store.hollow(), 1u);
  store.DropUnneeded(pages[2]);
  EXPECT_EQ(store.hollow(), 0u);
  EXPECT_EQ(store.used(), 0u);
}

TEST(PageStore, SkippedNumbersGoBeforeTheirSuccessors) {
  PageStore store(Memory(3), 3);
  const auto pages = PutWord(&store, {0, 1, 2});
  ReleaseAll(&store, pages);
  ASSERT_TRUE(store.Acquire(pages[2]));
  store.Skip(pages[0]);
  store.Skip(pages[1]);
  EXPECT_EQ(store.available(), 2u);
  EXPECT_TRUE(store.Allocate().has_value());
  EXPECT_TRUE(store.Allocate().has_value());
  EXPECT_FALSE(store.Allocate().has_value());
  EXPECT_TRUE(store.is_loaded(pages[2]));
  EXPECT_EQ(store.hollow(), 2u);
  // What was hollow for that one page goes with it.
  store.Release(pages[2]);
  store.DropUnneeded(pages[2]);
  EXPECT_EQ(store.hollow(), 0u);
}

TEST(PageStore, DropsWhatNobodyNeeds) {
  PageStore store(Memory(8), 8);
  const auto claimed = PutWord(&store, {0, 1});
  store.Claim(claimed[1]);
  ReleaseAll(&store, claimed);
  ReleaseAll(&store, PutWord(&store, {0, 1, 2}));
  ReleaseAll(&store, PutWord(&store, {2, 2}));
  const auto used = PutWord(&store, {1});
  EXPECT_EQ(store.DropUnneeded(), 3 * kPageBytes);
  EXPECT_EQ(store.cached(), 3u);
  EXPECT_EQ(CachedPages(&store, {0, 1}), 2u);
  EXPECT_EQ(CachedPages(&store, {1}), 1u);
}

// --- Memory -------------------------------------------------------------------------------------

TEST(PageStore, ReturnsEmptySlabs) {
  const uint64_t page_bytes = limits::kArenaSlabBytes / 2;
  PageStore store(Memory(32, {{page_bytes}}), 6);
  std::vector<PageIndex> pages;
  for (int i = 0; i < 6; ++i) pages.push_back(*store.Allocate());
  EXPECT_EQ(store.bytes_granted(), 3 * limits::kArenaSlabBytes);
  store.Release(pages[2]);
  store.Release(pages[3]);
  store.Release(pages[5]);
  EXPECT_EQ(store.ReleaseUnused(), limits::kArenaSlabBytes);
  EXPECT_EQ(store.bytes_granted(), 2 * limits::kArenaSlabBytes);
  for (int i = 0; i < 3; ++i) {
    const auto page = store.Allocate();
    ASSERT_TRUE(page.has_value());
    store.address(*page)[0] = std::byte{1};
  }
  EXPECT_EQ(store.Allocate(), std::nullopt);
}

TEST(PageStore, FormatsShareTheMemory) {
  // 16 slabs of 4 pages of 16 bits, 7 of 8, 12 of 4.
  PageStore store(Memory(64, kMixedBytes), 64);
  ASSERT_EQ(store.memory().geometry().slots_per_slab, (PerFormat<uint32_t>{{4, 7, 12}}));
  std::vector<PageIndex> open;
  while (const auto page = store.Allocate(PageFormat::kBits4)) open.push_back(*page);
  EXPECT_EQ(open.size(), 16u * 12);
  EXPECT_EQ(store.available(PageFormat::kFloat16), 0u);
  // Every other one: no slab is empty, and yet there is room for pages of another format.
  for (size_t i = 0; i < open.size(); i += 2) store.Release(open[i]);
  EXPECT_EQ(store.available(PageFormat::kFloat16), 8u * 4);
  EXPECT_TRUE(store.CanHold({{8 * 4, 0, 0}}));
  EXPECT_FALSE(store.CanHold({{8 * 4, 1, 0}}));
  for (size_t i = 1; i < open.size(); i += 2) Fill(BytesOf(store, open[i]), {static_cast<int>(i)});
  for (int i = 0; i < 8 * 4; ++i) {
    const auto page = store.Allocate(PageFormat::kFloat16);
    ASSERT_TRUE(page.has_value()) << i;
    Fill(BytesOf(store, *page), {-i});
  }
  EXPECT_EQ(store.Allocate(PageFormat::kFloat16), std::nullopt);
  // Those that had to move are whole.
  for (size_t i = 1; i < open.size(); i += 2)
    EXPECT_TRUE(IsFilled(BytesOf(store, open[i]), {static_cast<int>(i)})) << i;
  EXPECT_EQ(store.bytes_granted(), 16 * store.memory().geometry().slab_bytes);
}

TEST(PageStore, CachedPagesOfOneFormatMakeRoomForAnother) {
  PageStore store(Memory(64, kMixedBytes), 64);
  const PageKey key{.format = PageFormat::kBits8, .owner = 0, .mask = 0};
  int sealed = 0;
  while (store.used_bytes() + 576 <= store.bytes_max() && sealed < 16 * 7) {
    const PageIndex page = *store.Allocate(key.format);
    store.Release(store.Seal(page, kNoPage, key, std::vector<TokenId>{++sealed}));
  }
  EXPECT_EQ(store.available(PageFormat::kFloat16), 64u);
  std::vector<PageIndex> open;
  while (const auto page = store.Allocate(PageFormat::kFloat16)) open.push_back(*page);
  EXPECT_EQ(open.size(), 64u);
  EXPECT_EQ(store.cached(), 0u);
}

TEST(PageStore, ARunLiesInARow) {
  PageStore store(Memory(64, kMixedBytes), 64);
  const auto check = [&](const std::vector<PageIndex>& run) {
    const ArenaGeometry& geometry = store.memory().geometry();
    for (size_t i = 1; i < run.size(); ++i) {
      const SlotIndex before = store.slot(run[i - 1]), slot = store.slot(run[i]);
      const bool is_next_slab =
          geometry.SlabOf(slot) == geometry.SlabOf(before) + 1 &&
          slot == geometry.FirstSlot(geometry.SlabOf(slot)) &&
          before % geometry.slot_stride == geometry.slots_per_slab[store.format(run[i])] - 1;
      EXPECT_TRUE(slot == before + 1 || is_next_slab) << before << ", " << slot;
    }
  };
  const auto first = store.AllocateRun(PageFormat::kFloat16, 10);
  ASSERT_EQ(first.size(), 10u);
  check(first);
  // Memory that is taken here and there: what is in the way moves.
  std::vector<PageIndex> singles;
  while (const auto page = store.Allocate()) singles.push_back(*page);
  for (size_t i = 0; i < singles.size(); ++i) {
    Fill(BytesOf(store, singles[i]), {static_cast<int>(i)});
    if (i % 3 != 0) store.Release(singles[i]);
  }
  const auto second = store.AllocateRun(PageFormat::kFloat16, 20);
  ASSERT_EQ(second.size(), 20u);
  check(second);
  check(first);
  for (size_t i = 0; i < singles.size(); i += 3)
    EXPECT_TRUE(IsFilled(BytesOf(store, singles[i]), {static_cast<int>(i)})) << i;
  EXPECT_TRUE(store.AllocateRun(PageFormat::kFloat16, 60).empty());
  const auto third = store.AllocateRun(PageFormat::kBits4, 13);
  ASSERT_EQ(third.size(), 13u);
  check(third);
}

TEST(PageStore, CompactingEmptiesSlabs) {
  PageStore store(Memory(64, kMixedBytes), 64);
  std::vector<PageIndex> open;
  for (int i = 0; i < 32; ++i) open.push_back(*store.Allocate());
  for (int i = 0; i < 30; ++i) open.push_back(*store.Allocate(PageFormat::kBits8));
  for (size_t i = 0; i < open.size(); ++i) {
    Fill(BytesOf(store, open[i]), {static_cast<int>(i)});
    if (i % 4 != 0) store.Release(std::exchange(open[i], kNoPage));
  }
  EXPECT_EQ(store.ReleaseUnused(), 0u);
  const uint64_t slab = store.memory().geometry().slab_bytes;
  EXPECT_EQ(store.bytes_granted(), 13 * slab);
  int portions = 1;
  while (!store.Compact(1024)) ++portions;
  EXPECT_GT(portions, 3);
  store.ReleaseUnused();
  EXPECT_EQ(store.bytes_granted(), (2 + 2) * slab);
  for (size_t i = 0; i < open.size(); ++i) {
    if (open[i] == kNoPage) continue;
    EXPECT_TRUE(IsFilled(BytesOf(store, open[i]), {static_cast<int>(i)})) << i;
  }
  EXPECT_TRUE(store.Compact(1));
}

// Grants one slab, whatever is asked for.
class Poor : public PageMemory {
 public:
  explicit Poor(std::unique_ptr<PageMemory> rich)
      : PageMemory(rich->geometry(),
                   rich->address(0, PageFormat::kFloat16) - rich->geometry().slabs_offset, 0),
        rich_(std::move(rich)) {}
  bool Grant(uint32_t slab) override { return slab == 0 && rich_->Grant(slab); }
  void Return(uint32_t slab) override { rich_->Return(slab); }
  bool GrantDescriptors(uint32_t pages) override { return rich_->GrantDescriptors(pages); }
  uint32_t descriptors_granted() const override { return rich_->descriptors_granted(); }
  bool Adopt(const std::vector<bool>&) override { return true; }

 private:
  std::unique_ptr<PageMemory> rich_;
};

TEST(PageStore, WithoutMemoryItEvictsAndThenHasNoPage) {
  PageStore store(std::make_unique<Poor>(Memory(32, {{limits::kArenaSlabBytes / 2}})), 32);
  ReleaseAll(&store, PutWord(&store, {0}));
  const auto pages = PutWord(&store, {1});
  const auto third = store.Allocate();
  ASSERT_TRUE(third.has_value());
  EXPECT_EQ(CachedPages(&store, {0}), 0u);
  EXPECT_FALSE(store.Allocate().has_value());
  EXPECT_TRUE(store.AllocateRun(PageFormat::kFloat16, 2).empty());
  store.Release(*third);
  EXPECT_EQ(store.Allocate(), third);
}

TEST(PageStore, WithoutDescriptorsItEvictsToo) {
  // Claimed hollow pages take them all.
  PageStore store(Memory(1), 1);
  const PageIndex descriptors = store.memory().geometry().pages_max;
  ASSERT_EQ(store.pages_left(), descriptors);
  for (PageIndex i = 0; i < descriptors; ++i) {
    const auto page = store.Allocate();
    ASSERT_TRUE(page.has_value());
    const PageIndex sealed =
        store.Seal(*page, kNoPage, {}, std::vector<TokenId>{static_cast<TokenId>(i)});
    if (i + 1 < descriptors) store.Claim(sealed);
    store.Release(sealed);
  }
  EXPECT_EQ(store.pages_left(), 0u);
  // The last one is not claimed: it goes.
  EXPECT_TRUE(store.Allocate().has_value());
  EXPECT_FALSE(store.Allocate().has_value());
}

TEST(PageStoreDeathTest, RefusesMisuse) {
  PageStore store(Memory(4), 4);
  const auto pages = PutWord(&store, {0});
  const PageIndex open = *store.Allocate();
  EXPECT_DEATH(store.Seal(pages[0], kNoPage, {}, TokensOf({1})), "kOpen");
  EXPECT_DEATH(store.Seal(open, open, {}, TokensOf({1})), "kCached");
  EXPECT_DEATH(store.Seal(open, kNoPage, {}, TokensOf({1, 2})), "kArenaPageTokens");
  EXPECT_DEATH(store.Seal(open, kNoPage, {PageFormat::kBits8, 0, 0}, TokensOf({1})), "format");
  store.Release(pages[0]);
  EXPECT_DEATH(store.Release(pages[0]), "references");
  EXPECT_DEATH(store.Unclaim(pages[0]), "claims");
  EXPECT_DEATH(store.Release(99), "pages_.size");
}

TEST(PageStore, EvictsInPartsLeastRecentlyUsedFirst) {
  PageStore store(Memory(8, {{kMiB}}), 8);
  std::vector<PageIndex> pages;
  for (TokenId id = 0; id < 8; ++id) {
    const PageIndex page = store.Allocate().value();
    pages.push_back(store.Seal(page, kNoPage, {}, std::vector<TokenId>(kArenaPageTokens, id)));
  }
  for (size_t i = 1; i < 8; ++i) store.Release(pages[i]);  // the first stays in use
  int left = 2;
  EXPECT_TRUE(store.EvictTo(5 * kMiB, [&] { return left-- == 0; }));
  EXPECT_EQ(store.used_bytes(), 6 * kMiB);
  EXPECT_TRUE(store.is_loaded(pages[0]));
  EXPECT_TRUE(store.is_loaded(pages[3]));
  EXPECT_FALSE(store.EvictTo(5 * kMiB, [] { return false; }));
  EXPECT_EQ(store.used_bytes(), 5 * kMiB);
  EXPECT_FALSE(store.EvictTo(5 * kMiB, [] { return true; })) << "it is done";
  EXPECT_FALSE(store.EvictTo(0, [] { return false; }));
  EXPECT_EQ(store.used_bytes(), kMiB) << "what is in use stays";
}

TEST(PageStore, ALimitIsKeptToAndMayMove) {
  // Slabs of 8 MiB with 8 pages each.
  PageStore store(Memory(64, {{kMiB}}), 64);
  const uint64_t slab = store.memory().geometry().slab_bytes;
  ASSERT_GE(store.bytes_max() / slab, 4u);
  EXPECT_EQ(store.limit_bytes(), store.bytes_max());
  EXPECT_EQ(store.SetLimit(2 * slab), 2 * slab);
  std::vector<PageIndex> held;
  while (const auto page = store.Allocate()) held.push_back(*page);
  EXPECT_EQ(held.size(), 2 * slab / kMiB);
  EXPECT_EQ(store.bytes_granted(), 2 * slab);
  EXPECT_EQ(store.available(), 0u);
  EXPECT_FALSE(store.CanHold({{1}}));
  EXPECT_TRUE(store.CanEverHold({{64}})) << "whatever the limit is now";

  // More is of use at once, but never more than at the start.
  EXPECT_EQ(store.SetLimit(UINT64_MAX), store.bytes_max());
  EXPECT_EQ(store.available(), 64 - held.size());
  while (const auto page = store.Allocate()) held.push_back(*page);
  EXPECT_EQ(held.size(), 64u);

  // What is in use stays, and is told.
  EXPECT_EQ(store.SetLimit(slab), store.bytes_granted());
  EXPECT_EQ(store.used(), 64u);
  EXPECT_FALSE(store.Allocate());

  // What is only cached is dropped, and goes back to the system.
  PageIndex parent = kNoPage;
  for (size_t i = 0; i < held.size(); ++i) {
    std::vector<TokenId> tokens(kArenaPageTokens, static_cast<TokenId>(i));
    parent = store.Seal(held[i], i % 4 == 0 ? kNoPage : parent, {}, tokens);
    held[i] = parent;
  }
  for (size_t i = 4; i < held.size(); ++i) store.Release(held[i]);
  EXPECT_EQ(store.SetLimit(slab), slab);
  EXPECT_EQ(store.bytes_granted(), slab);
  EXPECT_LE(store.used_bytes(), slab);
  for (size_t i = 0; i < 4; ++i) EXPECT_TRUE(store.is_loaded(held[i]));
  EXPECT_EQ(store.SetLimit(1), slab) << "one slab at least";
}

}  // namespace
}  // namespace perdure::shm
