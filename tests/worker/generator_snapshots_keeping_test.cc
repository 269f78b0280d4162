// Pages that are given to the disk: which, when, in which order, and what becomes of old ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/worker/snapshot_fixture.h"

namespace perdure::worker {
namespace {

class SnapshotKeepingTest : public SnapshotTest {
 protected:
  SnapshotKeepingTest() { Boot(128); }

  // Requests to their ends; pages wait.
  void RunTurns() {
    for (int i = 0; i < 100'000; ++i) {
      clock_us += 1000;
      if (generator_->HasWork())
        generator_->Step();
      else if (disk_.DoTurnJob())
        generator_->TakeAnswers();
      else
        return;
    }
  }
  void SayAlone(const protocol::Submit& submit) {
    ASSERT_TRUE(generator_->Submit(submit));
    RunTurns();
    ASSERT_TRUE(HasEnded(submit.rid));
  }
  std::vector<uint32_t> Positions(size_t from = 0) const {
    std::vector<uint32_t> positions;
    for (size_t i = from; i < disk_.given_pages.size(); ++i)
      positions.push_back(disk_.given_pages[i].position);
    return positions;
  }
  void ExpectEachOnce() const {
    std::set<uint64_t> seen;
    for (const snapshot::StoredPage& page : disk_.given_pages)
      EXPECT_TRUE(seen.insert(page.chain_hash).second) << "page " << page.position << " twice";
  }
};

// --- When, and in which order ------------------------------------------------------------------

TEST_F(SnapshotKeepingTest, PagesAreKeptWhileNothingIsComputed) {
  const auto first = Ask(Text(100, 1), 40), second = Ask(Text(100, 2), 200);
  Submit(first);
  Submit(second);
  for (int i = 0; i < 1000 && disk_.turn_jobs() == 0; ++i) generator_->Step();
  EXPECT_TRUE(generator_->HasWork());
  EXPECT_FALSE(generator_->HasUpkeep());
  Steps();
  EXPECT_TRUE(disk_.given_pages.empty());
  EXPECT_TRUE(generator_->HasUpkeep());
  generator_->Upkeep();
  EXPECT_FALSE(disk_.given_pages.empty());
}

TEST_F(SnapshotKeepingTest, InTheOrderOfTheChainAndEachOnce) {
  Say(Text(200, 1), 40);
  EXPECT_EQ(Positions(), (std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(disk_.given_pages.back().tokens.size(), 239u % kPage);
  for (size_t i = 0; i < disk_.given_pages.size(); ++i)
    EXPECT_EQ(disk_.given_pages[i].parent,
              i == 0 ? store_->memory().root() : disk_.given_pages[i - 1].chain_hash);
  ExpectEachOnce();
  EXPECT_FALSE(generator_->HasUpkeep());
}

TEST_F(SnapshotKeepingTest, OneJobAtATime) {
  const auto submit = Ask(Text(100, 1), 40);
  SayAlone(submit);
  generator_->Upkeep();
  EXPECT_EQ(disk_.page_jobs(), 1u);
  const auto other = Ask(Text(100, 2), 40);
  SayAlone(other);
  EXPECT_FALSE(generator_->HasUpkeep()) << "the first is not done";
  Deliver();
  EXPECT_TRUE(generator_->HasUpkeep());
  Run();
  EXPECT_EQ(disk_.pages.size(), 10u);
}

TEST_F(SnapshotKeepingTest, ATurnThatEndsWhilePagesAreWrittenDoesNotWriteThemAgain) {
  const auto first = Ask(Text(100, 1), 40);
  SayAlone(first);
  generator_->Upkeep();
  ASSERT_EQ(disk_.page_jobs(), 1u);
  const auto second = Ask(History(first.rid) + Text(60, 2), 40);
  SayAlone(second);
  Run();
  ExpectEachOnce();
  EXPECT_EQ(Positions(5), (std::vector<uint32_t>{4, 5, 6, 7}));
}

TEST_F(SnapshotKeepingTest, ALaterTurnKeepsWhatIsNewAlone) {
  const auto first = Say(Text(100, 1), 40);
  const size_t before = disk_.given_pages.size();
  Say(History(first) + Text(60, 2), 40);
  EXPECT_EQ(Positions(before), (std::vector<uint32_t>{4, 5, 6, 7}));
  ExpectEachOnce();
}

TEST_F(SnapshotKeepingTest, BranchesKeepWhatTheyHaveInCommonOnce) {
  const auto first = Say(Text(100, 1), 40);
  const Ids history = History(first);
  const auto one = Ask(history + Text(60, 2), 40), other = Ask(history + Text(60, 3), 40);
  Submit(one);
  Submit(other);
  Run();
  ExpectEachOnce();
}

TEST_F(SnapshotKeepingTest, ASuccessorKeepsWhatItsPredecessorCouldNot) {
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  Steps();
  const Ids history = History(submit.rid);
  DieWithDisk(1);
  EXPECT_TRUE(disk_.given_pages.empty());
  EXPECT_TRUE(generator_->HasUpkeep());
  Run();
  EXPECT_EQ(Positions(), (std::vector<uint32_t>{0, 1, 2, 3, 4}));
  // The next one has nothing to do.
  DieWithDisk();
  EXPECT_FALSE(generator_->HasUpkeep());
  Reboot();
  EXPECT_EQ(FromDisk(Say(history + Text(20, 2), 10)), 139);
}

TEST_F(SnapshotKeepingTest, OfADamagedPageNothingIsKept) {
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  Steps();
  const auto path = PagesOf(Ticket(submit.rid).conversation_id);
  ASSERT_EQ(path.size(), 5u);
  *store_->address(path[2]) ^= std::byte{1};
  DieWithDisk(1);
  Run();
  EXPECT_EQ(Positions(), (std::vector<uint32_t>{0, 1}));
}

// --- Shorter ones ------------------------------------------------------------------------------

TEST_F(SnapshotKeepingTest, AShorterPageGivesWayToALongerOne) {
  const auto first = Say(Text(100, 1), 40);
  const uint64_t partial = disk_.given_pages.back().chain_hash;
  EXPECT_LT(disk_.given_pages.back().tokens.size(), static_cast<size_t>(kPage));
  Say(History(first) + Text(5, 2), 4);
  EXPECT_EQ(disk_.superseded, std::vector<uint64_t>{partial});
  EXPECT_FALSE(disk_.pages.contains(partial));
  EXPECT_EQ(disk_.pages.size(), 5u);
}

TEST_F(SnapshotKeepingTest, AShorterPageWithAnotherEndStays) {
  const auto first = Say(Text(100, 1), 40);
  const size_t before = disk_.pages.size();
  Ids branch = First(History(first), 135);
  branch.push_back('!');
  Say(branch, 10);
  EXPECT_TRUE(disk_.superseded.empty());
  EXPECT_EQ(disk_.pages.size(), before + 1);
}

TEST_F(SnapshotKeepingTest, ABranchFromTheShorterPageIsFoundInTheLongerOne) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const Ids history = History(first);
  Say(AskIn("mine", history + Text(10, 2), 8));
  Reboot();
  const auto branch = AskIn("other", history + Text(10, 3), 10);
  Say(branch);
  EXPECT_GE(FromDisk(branch.rid), 139);
  EXPECT_EQ(Answer(branch.rid), Cold(branch));
}

// --- Little memory -----------------------------------------------------------------------------

TEST_F(SnapshotKeepingTest, WhatIsEvictedIsKeptFirst) {
  Boot(16);
  const auto first = AskIn("mine", Text(100, 1), 40);
  Submit(first);
  Steps();
  const Ids history = History(first.rid);
  EXPECT_TRUE(disk_.given_pages.empty());
  // No time for upkeep, and memory is short.
  for (int seed = 2; seed < 5; ++seed) {
    const auto other = Ask(Text(12 * kPage, seed), 30);
    Submit(other);
    Steps();
  }
  EXPECT_GT(store_->evicted(), 0u);
  EXPECT_GE(disk_.given_pages.size(), 5u);
  Run();
  disk_.fetched_pages.clear();
  const auto next = AskIn("mine", history + Text(20, 2), 20);
  Say(next);
  EXPECT_EQ(UsageOf(next.rid).computed, 21);
  EXPECT_EQ(disk_.fetched_pages.size(), 5u);
  EXPECT_EQ(Answer(next.rid), Cold(next));
  Reboot();
  EXPECT_GE(FromDisk(Say(AskIn("mine", history + Text(20, 4), 20))), 139);
}

TEST_F(SnapshotKeepingTest, WhatIsFoundDamagedWhenItIsEvictedIsNotKept) {
  Boot(16);
  const auto submit = Ask(Text(100, 1), 40);
  Submit(submit);
  Steps();
  const auto path = PagesOf(Ticket(submit.rid).conversation_id);
  ASSERT_EQ(path.size(), 5u);
  *store_->address(path[4]) ^= std::byte{1};
  DieWithDisk(1);
  // Before it is verified, memory is short.
  const auto large = Ask(Text(14 * kPage, 2), 20);
  Submit(large);
  Steps();
  EXPECT_EQ(Answer(large.rid), Cold(large));
  for (const snapshot::StoredPage& page : disk_.given_pages)
    EXPECT_FALSE(page.position == 4 && page.tokens.size() < static_cast<size_t>(kPage));
  Run();
}

TEST_F(SnapshotKeepingTest, EvictionOfWhatIsStoredWritesNothing) {
  Boot(16);
  Say(Text(100, 1), 40);
  for (int seed = 2; seed < 6; ++seed) Say(Text(12 * kPage, seed), 10);
  EXPECT_GT(store_->evicted(), 0u);
  ExpectEachOnce();
}

// --- A disk that fails -------------------------------------------------------------------------

TEST_F(SnapshotKeepingTest, AfterAFailureItPausesAndGoesOn) {
  disk_.fails_pages = true;
  const auto first = Say(Text(100, 1), 40);
  EXPECT_TRUE(Persisted(first)) << "the turn itself is stored";
  EXPECT_TRUE(disk_.pages.empty());
  const size_t tries = disk_.given_pages.size();
  Say(Text(100, 2), 40);
  EXPECT_EQ(disk_.given_pages.size(), tries) << "not again so soon";
  EXPECT_FALSE(generator_->HasUpkeep());
  disk_.fails_pages = false;
  clock_us += int64_t{limits::kPersistenceRetryMs} * 1000;
  EXPECT_TRUE(generator_->HasUpkeep());
  Run();
  EXPECT_EQ(disk_.pages.size(), 10u) << "those that failed as well";
  const Ids history = History(first);
  Reboot();
  EXPECT_EQ(FromDisk(Say(history + Text(20, 2), 10)), 139);
}

TEST_F(SnapshotKeepingTest, WhatAFailureHasLeftOutIsKeptWithTheNextTurn) {
  disk_.fails_pages = true;
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  disk_.fails_pages = false;
  clock_us += int64_t{limits::kPersistenceRetryMs} * 1000;
  const auto second = Say(AskIn("mine", History(first) + Text(20, 2), 20));
  const Ids history = History(second);
  Reboot();
  EXPECT_EQ(FromDisk(Say(AskIn("mine", history + Text(20, 3), 10))), 179);
}

TEST_F(SnapshotKeepingTest, EvictionsDoNotWaitForADiskThatFails) {
  Boot(16);
  disk_.fails_pages = true;
  Say(Text(100, 1), 40);
  const size_t tries = disk_.given_pages.size();
  for (int seed = 2; seed < 5; ++seed) {
    const auto other = Ask(Text(12 * kPage, seed), 30);
    Submit(other);
    Steps();
    EXPECT_EQ(Answer(other.rid), Cold(other));
  }
  EXPECT_GT(store_->evicted(), 0u);
  EXPECT_EQ(disk_.given_pages.size(), tries);
}

// --- A disk that is full -----------------------------------------------------------------------

TEST_F(SnapshotKeepingTest, BeyondTheLimitTheOldestGo) {
  const auto bytes = snapshot::PageFileBytes(static_cast<uint32_t>(store_->page_bytes()));
  options_.stored_bytes_max = 12 * bytes;
  Boot(128);
  const Ids oldest = History(Say(Text(100, 1), 40));
  Ids newest;
  for (int seed = 2; seed < 6; ++seed) {
    now_ms_ += 5000;
    newest = History(Say(Text(100, seed), 40));
  }
  uint64_t stored = 0;
  for (const auto& [hash, page] : disk_.pages)
    stored += snapshot::PageFileBytes(page.page.data_bytes);
  EXPECT_LE(stored, options_.stored_bytes_max);
  EXPECT_GE(disk_.pages.size(), 10u);
  EXPECT_EQ(disk_.given_pages.size(), disk_.pages.size() + disk_.dropped.size());
  Reboot();
  EXPECT_EQ(FromDisk(Say(newest + Text(20, 2), 10)), 139);
  EXPECT_EQ(FromDisk(Say(oldest + Text(20, 2), 10)), 0);
}

TEST_F(SnapshotKeepingTest, WhatIsOfUseIsNotTheOldest) {
  const auto bytes = snapshot::PageFileBytes(static_cast<uint32_t>(store_->page_bytes()));
  options_.stored_bytes_max = 12 * bytes;
  Boot(128);
  const Ids first = History(Say(AskIn("first", Text(100, 1), 40)));
  now_ms_ += 5000;
  Say(AskIn("second", Text(100, 2), 40));
  now_ms_ += 5000;
  Reboot();
  // The first one's beginning is read, and so is of use.
  Say(AskIn("third", First(first, 3 * kPage + 4), 3));
  now_ms_ += 5000;
  Say(AskIn("fourth", Text(60, 4), 10));
  Reboot();
  EXPECT_GE(FromDisk(Say(AskIn("first", first + Text(20, 2), 10))), 3 * kPage);
}

TEST_F(SnapshotKeepingTest, WhenPagesWereOfUseIsToldSeldom) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  Ids history = History(first);
  now_ms_ += 1000;
  history = History(Say(AskIn("mine", history + Text(20, 2), 20)));
  EXPECT_TRUE(disk_.touched.empty()) << "a second later it is not worth a commit";
  now_ms_ += int64_t{limits::kSnapshotUsedGranularityS} * 1000 + 1000;
  Say(AskIn("mine", history + Text(20, 3), 20));
  EXPECT_GE(disk_.touched.size(), 5u);
  std::set<uint64_t> once(disk_.touched.begin(), disk_.touched.end());
  EXPECT_EQ(once.size(), disk_.touched.size());
}

}  // namespace
}  // namespace perdure::worker
