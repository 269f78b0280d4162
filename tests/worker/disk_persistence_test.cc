// Real files: what is kept is there after the next Open.
#include "worker/disk_persistence.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/worker/disk_fixture.h"

namespace perdure::worker {
namespace {

using snapshot::StoredPage;

TEST_F(DiskPersistenceTest, WhatWasKeptIsThereAfterTheNextOpen) {
  for (const bool sync : {false, true}) {
    SCOPED_TRACE(sync);
    options_.sync = sync;
    options_.dir = folder_.path() / (sync ? "a" : "b");
    Open();
    EXPECT_TRUE(conversations_.empty());
    Keep("one", TurnOf(1), "ada");
    Keep("two", TurnOf(2));
    Keep("one", TurnOf(3));
    const PageToKeep page = PageOf(nullptr, 1), next = PageOf(&page.page, 2, 100'000);
    disk_->KeepPages({page, next}, {});
    Await(4);
    ASSERT_EQ(kept_.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(kept_[i].rid, i + 1) << "in order";
      ASSERT_TRUE(kept_[i].conversation);
    }
    EXPECT_EQ(kept_[2].conversation->turns, 2u);
    EXPECT_EQ(kept_[2].conversation->user, "ada");
    ASSERT_EQ(pages_kept_.size(), 1u);
    EXPECT_EQ(pages_kept_[0].pages.size(), 2u);
    EXPECT_EQ(pages_kept_[0].bytes, 101'000u);
    Open();
    ASSERT_EQ(conversations_.size(), 2u);
    EXPECT_EQ(conversations_.at("one").turns, 2u);
    EXPECT_EQ(conversations_.at("one").messages_hash, 4u);
    EXPECT_EQ(stored_pages_.size(), 2u);
    disk_->FetchTurn(77, 1, "one");
    Fetch(78, {next.page, page.page});
    Await(3);
    ASSERT_EQ(turns_.size(), 1u);
    EXPECT_EQ(turns_[0].ticket, 77u);
    ASSERT_TRUE(turns_[0].turn);
    EXPECT_EQ(turns_[0].turn->rid, 3u);
    EXPECT_EQ(turns_[0].turn->ids, TurnOf(3).ids);
    EXPECT_EQ(turns_[0].turn->messages, TurnOf(3).messages);
    ASSERT_EQ(pages_.size(), 2u);
    EXPECT_EQ(pages_[0].chain_hash, next.page.chain_hash) << "in the order that was asked for";
    EXPECT_EQ(pages_[0].ticket, 78u);
    EXPECT_EQ(pages_[0].data, next.data);
    EXPECT_EQ(pages_[1].data, page.data);
  }
}

TEST_F(DiskPersistenceTest, AnAnswerOfARequestIsStoredOnce) {
  Open();
  Keep("one", TurnOf(1));
  Keep("one", TurnOf(1));
  Await(2);
  EXPECT_EQ(kept_[1].conversation->turns, 1u);
  Open();
  Keep("one", TurnOf(1));
  Await(1);
  EXPECT_EQ(kept_[0].conversation->turns, 1u);
}

TEST_F(DiskPersistenceTest, TheFolderIsOnesOwn) {
  Open();
  const auto mode = std::filesystem::status(options_.dir).permissions();
  EXPECT_EQ(mode & std::filesystem::perms::all, std::filesystem::perms::owner_all);
}

TEST_F(DiskPersistenceTest, AFolderThatIsNoneIsAnError) {
  std::ofstream(folder_.path() / "file") << "x";
  options_.dir = folder_.path() / "file" / "model";
  const auto opened = DiskPersistence::Open(options_);
  ASSERT_FALSE(opened);
  EXPECT_NE(opened.error().message.find("file"), std::string::npos) << opened.error().message;
}

TEST_F(DiskPersistenceTest, ASecondOneIsRefusedWhileTheFirstLives) {
  Open();
  EXPECT_FALSE(DiskPersistence::Open(options_));
}

TEST_F(DiskPersistenceTest, WhatIsNotThereIsAnsweredToo) {
  Open();
  disk_->FetchTurn(1, 1, "none");
  Fetch(2, {PageOf(nullptr, 1).page});
  Await(2);
  EXPECT_FALSE(turns_.at(0).turn);
  EXPECT_TRUE(pages_.at(0).data.empty());
  EXPECT_EQ(pages_.at(0).chain_hash, PageOf(nullptr, 1).page.chain_hash);
}

TEST_F(DiskPersistenceTest, PagesAreDroppedTouchedAndSuperseded) {
  Open();
  const PageToKeep first = PageOf(nullptr, 1), partial = PageOf(&first.page, 2, 1000, 7),
                   longer = PageOf(&first.page, 2), other = PageOf(nullptr, 3);
  disk_->KeepPages({first, partial, other}, {});
  disk_->KeepPages({longer}, {partial.page.chain_hash});
  disk_->TouchPages({{first.page.chain_hash, 5000}});
  disk_->DropPages({other.page.chain_hash});
  Await(2);
  EXPECT_EQ(pages_kept_[1].superseded, std::vector<uint64_t>{partial.page.chain_hash});
  disk_->Wait(kLongMs);
  Open();
  std::map<uint64_t, uint32_t> used;
  for (const StoredPage& page : stored_pages_) used[page.chain_hash] = page.used_unix_s;
  EXPECT_EQ(used, (std::map<uint64_t, uint32_t>{{first.page.chain_hash, 5000},
                                                {longer.page.chain_hash, 1000}}));
}

TEST_F(DiskPersistenceTest, WaitingWaitsForAllJobs) {
  Open();
  for (uint64_t rid = 1; rid <= 50; ++rid) Keep("one", TurnOf(rid));
  disk_->KeepPages({PageOf(nullptr, 1)}, {});
  disk_->Wait(kLongMs);
  Take();
  EXPECT_EQ(kept_.size(), 50u);
  EXPECT_EQ(pages_kept_.size(), 1u);
  pollfd fd{disk_->fd(), POLLIN, 0};
  EXPECT_EQ(poll(&fd, 1, 0), 0) << "nothing is left to be taken";
}

TEST_F(DiskPersistenceTest, ItEndsWithJobsThatWait) {
  Open();
  for (uint64_t rid = 1; rid <= 300; ++rid) Keep("one", TurnOf(rid, 20'000));
  for (int i = 0; i < 100; ++i) disk_->KeepPages({PageOf(nullptr, i, 100'000)}, {});
  disk_.reset();
  Open();
  // What was begun is whole, and in order.
  if (conversations_.contains("one")) {
    const uint32_t turns = conversations_.at("one").turns;
    disk_->FetchTurn(1, 1, "one");
    Await(1);
    EXPECT_EQ(turns_[0].turn->rid, turns);
  }
}

}  // namespace
}  // namespace perdure::worker
