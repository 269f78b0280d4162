#include "shm/page_store.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "tests/shm/chains.h"

namespace perdure::shm {
namespace {

constexpr uint64_t kPageBytes = 256;

std::unique_ptr<PageMemory> Memory(PageIndex pages, uint64_t page_bytes = kPageBytes) {
  return std::move(*MakePrivateMemory(*ArenaGeometry::For(page_bytes, pages)));
}

// Computes and seals `word` from its first page that is not cached; the references are kept.
std::vector<PageIndex> Put(PageStore* store, const Word& word) {
  std::vector<PageIndex> pages = store->Acquire(kRoot, TokensOf(word), SIZE_MAX);
  while (pages.size() < word.size()) {
    const auto page = store->Allocate();
    if (!page) break;
    const Word prefix(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(pages.size()) + 1);
    Fill(BytesOf(*store, *page), prefix);
    pages.push_back(store->Seal(*page, pages.empty() ? kNoPage : pages.back(), kRoot,
                                TokensOf({prefix.back()})));
  }
  return pages;
}

void ReleaseAll(PageStore* store, const std::vector<PageIndex>& pages) {
  for (const PageIndex page : pages) store->Release(page);
}

size_t CachedPages(PageStore* store, const Word& word) {
  const auto pages = store->Acquire(kRoot, TokensOf(word), SIZE_MAX);
  ReleaseAll(store, pages);
  return pages.size();
}

TEST(Geometry, FollowsFromThePages) {
  const auto geometry = *ArenaGeometry::For(3'670'016, 1000);
  EXPECT_EQ(geometry.pages_per_slab, 9u);
  EXPECT_EQ(geometry.slab_bytes, uint64_t{32} << 20);
  EXPECT_EQ(geometry.slabs(), 112u);
  EXPECT_EQ(geometry.slabs_offset % kArenaSlabAlignment, 0u);
  EXPECT_GE(geometry.slabs_offset, 4096 + 1000 * sizeof(PageDescriptorShm));
  EXPECT_EQ(geometry.PageOffset(10), geometry.slabs_offset + geometry.slab_bytes + 3'670'016);
  EXPECT_EQ(geometry.file_bytes, geometry.slabs_offset + 112 * geometry.slab_bytes);
  // A page larger than a usual slab has one of its own; few small ones make a small slab.
  EXPECT_EQ(ArenaGeometry::For(uint64_t{100} << 20, 3)->slab_bytes, uint64_t{100} << 20);
  EXPECT_EQ(ArenaGeometry::For(100, 3)->slab_bytes, kArenaSlabAlignment);
  EXPECT_EQ(ArenaGeometry::For(100, 3)->page_bytes, 128u);
}

TEST(Geometry, HasBounds) {
  EXPECT_FALSE(ArenaGeometry::For(0, 1).has_value());
  EXPECT_FALSE(ArenaGeometry::For(1, 0).has_value());
  EXPECT_FALSE(ArenaGeometry::For(limits::kArenaPageBytesMax + 1, 1).has_value());
  EXPECT_FALSE(ArenaGeometry::For(1, limits::kArenaPagesMax + 1).has_value());
  EXPECT_TRUE(ArenaGeometry::For(limits::kArenaPageBytesMax, limits::kArenaPagesMax).has_value());
}

TEST(PageStore, HandsOutTheMostRecentlyFreedPageFirst) {
  PageStore store(Memory(4), 4);
  EXPECT_EQ(store.bytes_granted(), 0u);
  EXPECT_EQ(store.Allocate(), 0u);
  EXPECT_EQ(store.Allocate(), 1u);
  EXPECT_EQ(store.Allocate(), 2u);
  store.Release(0);
  store.Release(2);
  EXPECT_EQ(store.Allocate(), 2u);
  EXPECT_EQ(store.Allocate(), 0u);
  EXPECT_EQ(store.Allocate(), 3u);
  EXPECT_EQ(store.Allocate(), std::nullopt);
  EXPECT_EQ(store.used(), 4u);
  EXPECT_EQ(store.available(), 0u);
}

TEST(PageStore, PagesAreAlignedAndApart) {
  PageStore store(Memory(40, uint64_t{3} << 20), 40);
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
  EXPECT_EQ(store.pages_max(), 3u);
  EXPECT_EQ(store.available(), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(store.Allocate().has_value());
  EXPECT_FALSE(store.Allocate().has_value());
}

TEST(PageStore, FindsTheLongestPrefixInWholePages) {
  PageStore store(Memory(8), 8);
  const auto pages = Put(&store, {0, 1, 2});
  EXPECT_EQ(store.Acquire(kRoot, TokensOf({0, 1, 2, 0}), SIZE_MAX), pages);
  EXPECT_EQ(store.Acquire(kRoot, TokensOf({0, 1, 0}), SIZE_MAX).size(), 2u);
  EXPECT_EQ(store.Acquire(kRoot, TokensOf({1, 2}), SIZE_MAX).size(), 0u);
  EXPECT_EQ(store.Acquire(kRoot + 1, TokensOf({0, 1, 2}), SIZE_MAX).size(), 0u);
  // A page that is cut short by the bound or the tokens is none.
  EXPECT_EQ(store.Acquire(kRoot, TokensOf({0, 1, 2}), 95).size(), 2u);
  EXPECT_EQ(store.Acquire(kRoot, TokensOf({0, 1, 2}), 96).size(), 3u);
  EXPECT_EQ(store.Acquire(kRoot, TokensOf({0, 1, 2}), 31).size(), 0u);
  auto tokens = TokensOf({0, 1, 2});
  tokens.pop_back();
  EXPECT_EQ(store.Acquire(kRoot, tokens, SIZE_MAX).size(), 2u);
  tokens[40] ^= 1;
  EXPECT_EQ(store.Acquire(kRoot, tokens, SIZE_MAX).size(), 1u);
}

TEST(PageStore, TheSameTokensAfterAnotherPageAreAnotherPage) {
  PageStore store(Memory(8), 8);
  const auto a = Put(&store, {0, 2});
  const auto b = Put(&store, {1, 2});
  EXPECT_NE(a[1], b[1]);
  EXPECT_EQ(CountRightPages(&store), 4u);
}

TEST(PageStore, TheSameChainIsCachedOnce) {
  PageStore store(Memory(8), 8);
  const auto pages = Put(&store, {0, 1});
  const PageIndex again = *store.Allocate();
  EXPECT_EQ(store.used(), 3u);
  EXPECT_EQ(store.Seal(again, pages[0], kRoot, TokensOf({1})), pages[1]);
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
  const auto pages = Put(&store, {0, 1});
  const PageIndex open = *store.Allocate();
  store.Release(open);
  ReleaseAll(&store, pages);
  EXPECT_EQ(store.used(), 2u);
  EXPECT_EQ(store.cached(), 2u);
  EXPECT_EQ(store.available(), 4u);
  EXPECT_EQ(CachedPages(&store, {0, 1}), 2u);
}

TEST(PageStore, EvictsTheLeastRecentlyUsed) {
  PageStore store(Memory(3), 3);
  for (const int letter : {0, 1, 2}) ReleaseAll(&store, Put(&store, {letter}));
  EXPECT_EQ(CachedPages(&store, {0}), 1u);
  ASSERT_TRUE(store.Allocate().has_value());
  EXPECT_EQ(CachedPages(&store, {1}), 0u);
  ASSERT_TRUE(store.Allocate().has_value());
  EXPECT_EQ(CachedPages(&store, {2}), 0u);
  EXPECT_EQ(CachedPages(&store, {0}), 1u);
}

TEST(PageStore, EvictsAChainFromItsEnd) {
  PageStore store(Memory(4), 4);
  ReleaseAll(&store, Put(&store, {0, 1, 2, 0}));
  for (size_t left = 4; left-- > 0;) {
    ASSERT_TRUE(store.Allocate().has_value());
    EXPECT_EQ(CachedPages(&store, {0, 1, 2, 0}), left);
  }
  EXPECT_FALSE(store.Allocate().has_value());
}

TEST(PageStore, APrefixInUseOutlivesWhatFollowsIt) {
  PageStore store(Memory(4), 4);
  ReleaseAll(&store, Put(&store, {0, 1}));
  ReleaseAll(&store, Put(&store, {2}));
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
  const auto pages = Put(&store, {0, 1, 2});
  store.Release(pages[0]);
  store.Release(pages[1]);
  EXPECT_EQ(store.available(), 0u);
  EXPECT_FALSE(store.Allocate().has_value());
  store.DropUnused();
  EXPECT_EQ(store.cached(), 3u);
  store.Release(pages[2]);
  EXPECT_EQ(store.available(), 3u);
  EXPECT_TRUE(store.Allocate().has_value());
  EXPECT_EQ(CachedPages(&store, {0, 1, 2}), 2u);
}

TEST(PageStore, ReturnsEmptySlabs) {
  const uint64_t page_bytes = limits::kArenaSlabBytes / 2;
  PageStore store(Memory(6, page_bytes), 6);
  std::vector<PageIndex> pages;
  for (int i = 0; i < 6; ++i) pages.push_back(*store.Allocate());
  EXPECT_EQ(store.bytes_granted(), 3 * limits::kArenaSlabBytes);
  store.Release(pages[2]);
  store.Release(pages[3]);
  store.Release(pages[5]);
  EXPECT_EQ(store.ReleaseUnused(), limits::kArenaSlabBytes);
  EXPECT_EQ(store.bytes_granted(), 2 * limits::kArenaSlabBytes);
  EXPECT_EQ(store.Allocate(), pages[5]);
  EXPECT_EQ(store.Allocate(), pages[2]);
  EXPECT_EQ(store.Allocate(), pages[3]);
  EXPECT_EQ(store.Allocate(), std::nullopt);
  store.address(pages[3])[0] = std::byte{1};
}

TEST(PageStore, WithoutMemoryItEvictsAndThenHasNoPage) {
  // Grants one slab of two pages, whatever is asked for.
  class Poor : public PageMemory {
   public:
    explicit Poor(std::unique_ptr<PageMemory> rich)
        : PageMemory(rich->geometry(), rich->address(0) - rich->geometry().slabs_offset),
          rich_(std::move(rich)) {}
    bool Grant(uint32_t slab) override { return slab == 0 && rich_->Grant(slab); }
    void Return(uint32_t slab) override { rich_->Return(slab); }
    bool Adopt(const std::vector<bool>&) override { return true; }

   private:
    std::unique_ptr<PageMemory> rich_;
  };
  PageStore store(std::make_unique<Poor>(Memory(6, limits::kArenaSlabBytes / 2)), 6);
  ReleaseAll(&store, Put(&store, {0}));
  const auto pages = Put(&store, {1});
  const auto third = store.Allocate();
  ASSERT_TRUE(third.has_value());
  EXPECT_EQ(CachedPages(&store, {0}), 0u);
  EXPECT_FALSE(store.Allocate().has_value());
  store.Release(*third);
  EXPECT_EQ(store.Allocate(), third);
}

TEST(PageStoreDeathTest, RefusesMisuse) {
  PageStore store(Memory(4), 4);
  const auto pages = Put(&store, {0});
  const PageIndex open = *store.Allocate();
  EXPECT_DEATH(store.Seal(pages[0], kNoPage, kRoot, TokensOf({1})), "kOpen");
  EXPECT_DEATH(store.Seal(open, open, kRoot, TokensOf({1})), "kCached");
  EXPECT_DEATH(store.Seal(open, kNoPage, kRoot, TokensOf({1, 2})), "kArenaPageTokens");
  store.Release(pages[0]);
  EXPECT_DEATH(store.Release(pages[0]), "references");
  EXPECT_DEATH(store.Seal(open, pages[0], kRoot, TokensOf({1})), "references");
  EXPECT_DEATH(store.Release(99), "pages_.size");
}

}  // namespace
}  // namespace perdure::shm
