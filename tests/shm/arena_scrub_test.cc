// Pages that a predecessor left are verified while nobody needs them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "shm/arena.h"
#include "shm/page_store.h"
#include "tests/shm/chains.h"

namespace perdure::shm {
namespace {

using testing::HasSubstr;

constexpr ArenaSpec kSpec{
    .fingerprint = 1, .numerics = 2, .shape = {{{1024}}, 64, 0}, .pages_budget = 64};

class ArenaScrub : public testing::Test {
 protected:
  ArenaScrub() { InitLogging("test", LogLevel::kInfo); }  // to standard error
  std::unique_ptr<PageStore> Open() {
    return std::make_unique<PageStore>(Arena::Attach(fd_.get(), kSpec).value(), kSpec.pages_budget);
  }
  // A chain of pages 0, 1, …, each with the letter 0; by a writer that is gone afterwards.
  void Leave(int pages) {
    const auto store = Open();
    PageIndex parent = kNoPage;
    for (int i = 0; i < pages; ++i) {
      const PageIndex page = *store->Allocate();
      Fill(BytesOf(*store, page), Word(static_cast<size_t>(i) + 1, 0));
      parent = store->Seal(page, parent, {}, TokensOf({0}));
    }
  }
  void Flip(PageIndex page) {
    const auto geometry = *ArenaGeometry::For(kSpec.shape);
    // Pages are in the slots of their number, four in a slab.
    ASSERT_EQ(geometry.slot_stride, 4u);
    const auto offset = static_cast<off_t>(geometry.SlotOffset(page, PageFormat::kFloat16) + 77);
    uint8_t byte = 0;
    ASSERT_EQ(pread(fd_.get(), &byte, 1, offset), 1);
    byte ^= 4;
    ASSERT_EQ(pwrite(fd_.get(), &byte, 1, offset), 1);
  }

  UniqueFd fd_{memfd_create("arena", MFD_CLOEXEC)};
};

TEST_F(ArenaScrub, IsDoneWhenEachPageWasVerifiedOnce) {
  EXPECT_FALSE(Open()->needs_scrub());
  Leave(5);
  const auto store = Open();
  // One page at least, two where they fit.
  int portions = 0;
  for (; store->needs_scrub(); ++portions) store->Scrub(portions == 0 ? 1 : 2 * 1024 + 1);
  EXPECT_EQ(portions, 3);
  EXPECT_EQ(store->cached(), 5u);
  EXPECT_EQ(store->damaged(), 0u);
  // What changes now is not looked at again: it was verified.
  Flip(0);
  store->Scrub(SIZE_MAX);
  EXPECT_EQ(store->cached(), 5u);
}

TEST_F(ArenaScrub, DropsADamagedPageWithAllThatFollowsAndNamesThem) {
  Leave(5);
  Flip(2);
  const auto store = Open();
  ASSERT_EQ(store->cached(), 5u);
  testing::internal::CaptureStderr();
  while (store->needs_scrub()) store->Scrub(1);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::AllOf(HasSubstr("KV page 2 (page 2 of its chain)"),
                             HasSubstr("with 2 that follow it (3, 4)")));
  EXPECT_EQ(store->cached(), 2u);
  EXPECT_EQ(store->damaged(), 3u);
  EXPECT_EQ(store->available(), 64u);
  EXPECT_EQ(CountRightPages(store.get()), 2u);
}

TEST_F(ArenaScrub, OfManyDamagedPagesTheLogNamesSome) {
  {
    const auto store = Open();
    for (int i = 0; i < 40; ++i) store->Seal(*store->Allocate(), kNoPage, {}, TokensOf({i}));
  }
  for (PageIndex page = 0; page < 40; ++page) Flip(page);
  const auto store = Open();
  testing::internal::CaptureStderr();
  while (store->needs_scrub()) store->Scrub(SIZE_MAX);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(static_cast<size_t>(std::count(log.begin(), log.end(), '\n')),
            limits::kArenaProblemsShown + 1);
  EXPECT_EQ(store->damaged(), 40u);
  EXPECT_EQ(store->cached(), 0u);
}

TEST_F(ArenaScrub, ACheckLooksAtAllPages) {
  const auto store = Open();
  const auto used = PutWord(store.get(), {0, 0});
  ReleaseAll(store.get(), PutWord(store.get(), {1, 0}));
  EXPECT_FALSE(store->needs_scrub());
  Flip(2);
  store->BeginCheck();
  EXPECT_TRUE(store->checks_all());
  int portions = 0;
  for (; store->needs_scrub(); ++portions) store->Scrub(1);
  EXPECT_GE(portions, 3);
  EXPECT_FALSE(store->checks_all());
  EXPECT_EQ(store->damaged(), 2u);
  EXPECT_EQ(store->cached(), 2u);
  ASSERT_EQ(store->problems().size(), 1u);
  EXPECT_THAT(store->problems().front(), HasSubstr("KV page 2 (page 0 of its chain)"));
  // One that is in use is not dropped, but told of; nobody begins with it any more.
  Flip(0);
  store->BeginCheck();
  while (store->needs_scrub()) store->Scrub(SIZE_MAX);
  EXPECT_EQ(store->TakeDamagedInUse(), std::vector<PageIndex>{used[0]});
  EXPECT_TRUE(store->TakeDamagedInUse().empty());
  EXPECT_EQ(store->cached(), 2u);
  EXPECT_TRUE(store->IsBefore(used[0], used[1]));
  EXPECT_TRUE(store->IsBefore(used[0], used[0]));
  EXPECT_FALSE(store->IsBefore(used[1], used[0]));
  EXPECT_FALSE(store->Acquire(used[0]));
  ReleaseAll(store.get(), used);
  store->DropDamaged(used[0]);
  EXPECT_EQ(store->cached(), 0u);
}

// Pages that are used in between are verified by that, and pages that come anew need no check.
TEST_F(ArenaScrub, BetweenAllOtherWork) {
  size_t scrubbed = 0;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const auto store = Open();
    const PageIndex kept = store->recovery().kept;
    RandomUser user(store.get(), seed);
    for (int i = 0; i < 200; ++i) {
      user.Step();
      if (!store->needs_scrub() || i % 3 != 0) continue;
      store->Scrub(1);
      ++scrubbed;
    }
    EXPECT_FALSE(store->needs_scrub());
    EXPECT_EQ(store->damaged(), 0u) << kept;
    user.ReleaseAll();
    EXPECT_EQ(CountRightPages(store.get()), store->cached());
  }
  EXPECT_GT(scrubbed, 300u);
}

}  // namespace
}  // namespace perdure::shm
