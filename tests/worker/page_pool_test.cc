#include "worker/page_pool.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

namespace perdure::worker {
namespace {

TEST(PagePoolTest, HandsOutEveryPageOnce) {
  PagePool pool(100, 10, 300);
  std::set<PageIndex> pages;
  std::set<std::byte*> addresses;
  while (const auto page = pool.Allocate()) {
    EXPECT_TRUE(pages.insert(*page).second);
    EXPECT_TRUE(addresses.insert(pool.address(*page)).second);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pool.address(*page)) % PagePool::kPageAlignment, 0u);
    std::memset(pool.address(*page), static_cast<int>(*page), pool.page_bytes());
  }
  EXPECT_EQ(pages.size(), 10u);
  EXPECT_EQ(pool.available(), 0u);
  for (PageIndex page : pages) {
    EXPECT_EQ(pool.address(page)[0], static_cast<std::byte>(page));
    EXPECT_EQ(pool.address(page)[pool.page_bytes() - 1], static_cast<std::byte>(page));
  }
}

TEST(PagePoolTest, ReusesTheLastFreedFirst) {
  PagePool pool(64, 8, 128);
  const PageIndex a = *pool.Allocate();
  const PageIndex b = *pool.Allocate();
  const PageIndex c = *pool.Allocate();
  pool.Free(a);
  pool.Free(c);
  pool.Free(b);
  EXPECT_EQ(*pool.Allocate(), b);
  EXPECT_EQ(*pool.Allocate(), c);
  EXPECT_EQ(*pool.Allocate(), a);
}

TEST(PagePoolTest, MapsChunksOnlyWhenNeeded) {
  PagePool pool(64, 100, 640);
  EXPECT_EQ(pool.bytes_mapped(), 0u);
  std::vector<PageIndex> pages;
  for (int i = 0; i < 10; ++i) pages.push_back(*pool.Allocate());
  EXPECT_EQ(pool.bytes_mapped(), 640u);
  pages.push_back(*pool.Allocate());
  EXPECT_EQ(pool.bytes_mapped(), 1280u);
  EXPECT_EQ(pool.bytes_used(), 11u * 64);
  for (PageIndex page : pages) pool.Free(page);
  EXPECT_EQ(pool.used(), 0u);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(pool.Allocate());
  EXPECT_EQ(pool.bytes_mapped(), 1280u);
}

TEST(PagePoolTest, RefusesWhatTheSystemCannotMap) {
  // More address space than a process has: mapping fails, which is an answer and no crash.
  PagePool pool(size_t{1} << 46, 1000, size_t{1} << 46);
  std::vector<PageIndex> pages;
  while (const auto page = pool.Allocate()) pages.push_back(*page);
  EXPECT_LT(pages.size(), 1000u);
  EXPECT_FALSE(pool.Allocate());
}

TEST(PagePoolDeathTest, FreeingTwiceIsABug) {
  PagePool pool(64, 4, 256);
  const PageIndex page = *pool.Allocate();
  pool.Free(page);
  EXPECT_DEATH(pool.Free(page), "is_used_");
}

}  // namespace
}  // namespace perdure::worker
