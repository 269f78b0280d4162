// What is deleted is gone from the files, whenever the process ends; a file of pages that has
// become unusable is opened again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "snapshot/format.h"
#include "tests/snapshot/raw_lmdb.h"
#include "tests/worker/disk_fixture.h"

namespace perdure::worker {
namespace {

using Names = std::vector<std::pair<uint64_t, std::string>>;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class DiskDeletionTest : public DiskPersistenceTest {
 protected:
  std::filesystem::path turns_file() const { return options_.dir / "turns.mdb"; }
  std::filesystem::path kv_file() const { return options_.dir / "kv.mdb"; }
  bool Stands(const std::filesystem::path& file, const std::string& text) const {
    std::ifstream in(file, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    return bytes.find(text) != std::string::npos;
  }
  static bool Eventually(const std::function<bool()>& condition) {
    for (const int64_t end_ms = MonotonicMs() + kLongMs; MonotonicMs() < end_ms;) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
  }
  // With numbers that no other page has.
  static PageToKeep UniquePage(int number, size_t bytes) {
    PageToKeep page = PageOf(nullptr, number, bytes);
    std::mt19937 random(static_cast<unsigned>(number));
    for (std::byte& byte : page.data) byte = static_cast<std::byte>(random());
    page.page.data_checksum = Hash64(page.data);
    return page;
  }
  static std::string PartOf(const PageToKeep& page) {
    return {reinterpret_cast<const char*>(page.data.data()) + 300, 64};
  }
  bool HasNote(const std::filesystem::path& file) {
    return snapshot::ReadRaw(file, "meta").contains(std::string(snapshot::kScrubKey));
  }
  void DeleteNow(const Names& names) {
    const size_t before = Answers();
    disk_->Delete(9, names);
    Await(before + 1);
  }
};

TEST_F(DiskDeletionTest, DeletedConversationsAreGoneAndOthersStay) {
  Open();
  for (uint64_t rid = 1; rid <= 4; ++rid) Keep(std::to_string(rid), TurnOf(rid));
  Await(4);
  DeleteNow({{1, "1"}, {1, "3"}, {2, "2"}, {1, "none"}});
  ASSERT_EQ(deleted_.size(), 1u);
  EXPECT_EQ(deleted_[0].ticket, 9u);
  EXPECT_EQ(deleted_[0].removed.size(), 4u);
  EXPECT_THAT(deleted_[0].kept, IsEmpty());
  Open();
  EXPECT_EQ(conversations_.size(), 2u);
  EXPECT_TRUE(conversations_.contains("2"));
  EXPECT_TRUE(conversations_.contains("4"));
}

TEST_F(DiskDeletionTest, ABrokenConversationKeepsNoOthersFromBeingDeleted) {
  Open();
  for (const char* id : {"a", "b", "c"}) Keep(id, TurnOf(static_cast<uint64_t>(*id)));
  Await(3);
  // Damaged while the file is open.
  disk_->Manage(5, [this](snapshot::TurnFile& file) {
    const Status status = file.environment().Write([&](snapshot::Transaction& transaction) {
      return transaction.Put(file.environment().database(0), snapshot::ConversationKey(1, "b"),
                             "damaged");
    });
    EXPECT_TRUE(status.has_value());
    return Managed();
  });
  DeleteNow({{1, "a"}, {1, "b"}, {1, "c"}});
  EXPECT_THAT(deleted_[0].removed,
              ElementsAre(std::pair(uint64_t{1}, "a"), std::pair(uint64_t{1}, "c")));
  EXPECT_THAT(deleted_[0].kept, ElementsAre(std::pair(uint64_t{1}, "b")));
  EXPECT_NE(deleted_[0].why, "");
  Open();
  EXPECT_TRUE(conversations_.empty());
}

TEST_F(DiskDeletionTest, ChainsAreReadOfSeveralAndOfThoseThatThereAre) {
  Open();
  Keep("a", TurnOf(1));
  Keep("a", TurnOf(2));
  Keep("b", TurnOf(3));
  Await(3);
  disk_->FetchChains(7, {{1, "a"}, {1, "none"}, {1, "b"}, {1, "a", 2, 2}});
  Await(4);
  ASSERT_EQ(chains_.size(), 1u);
  EXPECT_EQ(chains_[0].ticket, 7u);
  const auto& all = chains_[0].conversations;
  ASSERT_EQ(all.size(), 4u);
  ASSERT_EQ(all[0].chains.size(), 2u);
  EXPECT_EQ(all[0].chains[1].ids, TurnOf(2).ids);
  EXPECT_THAT(all[1].chains, IsEmpty());
  EXPECT_EQ(all[2].chains[0].ids, TurnOf(3).ids);
  ASSERT_EQ(all[3].chains.size(), 1u);
  EXPECT_EQ(all[3].chains[0].ids, TurnOf(2).ids);
}

// --- Scrubbing ---------------------------------------------------------------------------------

TEST_F(DiskDeletionTest, OfWhatIsDeletedNoTraceIsLeft) {
  Open();
  snapshot::StoredTurn turn = TurnOf(1);
  turn.messages[0] = "Quetzalcoatl";
  Keep("mine", turn);
  const PageToKeep page = UniquePage(1, 100'000), other = UniquePage(2, 50'000);
  disk_->KeepPages({page, other}, {});
  Await(2);
  ASSERT_TRUE(Stands(turns_file(), "Quetzalcoatl"));
  ASSERT_TRUE(Stands(kv_file(), PartOf(page)));
  disk_->ErasePages(3, {page.page.chain_hash});
  disk_->Delete(3, {{1, "mine"}});
  EXPECT_TRUE(Eventually(
      [&] { return !Stands(turns_file(), "Quetzalcoatl") && !Stands(kv_file(), PartOf(page)); }));
  Await(4);
  EXPECT_EQ(erased_.size(), 1u);
  disk_.reset();
  EXPECT_FALSE(HasNote(turns_file()));
  EXPECT_FALSE(HasNote(kv_file()));
  Open();
  EXPECT_EQ(stored_pages_.size(), 1u);
}

TEST_F(DiskDeletionTest, AScrubThatWasDueIsMadeUpForByTheNextOpen) {
  snapshot::StoredTurn turn = TurnOf(1);
  turn.messages[0] = "Quetzalcoatl";
  const PageToKeep page = UniquePage(1, 100'000);
  // The process is killed right after it has answered.
  const pid_t child = fork();
  if (child == 0) {
    auto opened = DiskPersistence::Open(options_);
    if (!opened) _exit(2);
    DiskPersistence& disk = *opened->persistence;
    disk.KeepTurn({1, "mine", false, ""}, turn);
    disk.KeepPages({page}, {});
    disk.ErasePages(3, {page.page.chain_hash});
    disk.Delete(3, {{1, "mine"}});
    disk.Wait(kLongMs);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_TRUE(Stands(turns_file(), "Quetzalcoatl"));
  ASSERT_TRUE(Stands(kv_file(), PartOf(page)));
  EXPECT_TRUE(HasNote(turns_file()));
  EXPECT_TRUE(HasNote(kv_file()));
  Open();
  EXPECT_TRUE(conversations_.empty());
  EXPECT_TRUE(stored_pages_.empty());
  EXPECT_TRUE(Eventually(
      [&] { return !Stands(turns_file(), "Quetzalcoatl") && !Stands(kv_file(), PartOf(page)); }));
  disk_.reset();
  EXPECT_FALSE(HasNote(turns_file()));
  EXPECT_FALSE(HasNote(kv_file()));
}

TEST_F(DiskDeletionTest, WhatMakesRoomIsNotScrubbed) {
  Open();
  const PageToKeep page = UniquePage(1, 100'000);
  disk_->KeepPages({page}, {});
  disk_->DropPages({page.page.chain_hash});
  disk_->Wait(kLongMs);
  disk_.reset();
  EXPECT_FALSE(HasNote(kv_file()));
}

// --- A file of pages that fails ----------------------------------------------------------------

class DiskReopenTest : public DiskDeletionTest {
 protected:
  // The file can be used no more: it ends within a page that is about to be read.
  void Break(const PageToKeep& page) {
    std::filesystem::resize_file(kv_file(), 3 * 4096);
    const size_t before = pages_.size();
    Fetch(1, {page.page});
    Await(Answers() + 1);
    ASSERT_GT(pages_.size(), before);
    EXPECT_TRUE(pages_.back().data.empty());
  }
};

TEST_F(DiskReopenTest, AFileOfPagesThatHasBrokenIsOpenedAgain) {
  Open();
  const PageToKeep page = UniquePage(1, 200'000), other = UniquePage(2, 200'000);
  disk_->KeepPages({page}, {});
  Await(1);
  ASSERT_NO_FATAL_FAILURE(Break(page));
  disk_->KeepPages({other}, {});
  Await(3);
  EXPECT_THAT(pages_kept_.back().pages, IsEmpty());
  // By itself.
  Await(4);
  ASSERT_EQ(reopened_.size(), 1u);
  EXPECT_THAT(reopened_[0].pages, IsEmpty()) << "the old one is put aside";
  disk_->KeepPages({other}, {});
  Fetch(1, {other.page});
  Await(6);
  EXPECT_EQ(pages_.back().data, other.data);
  // Turns had nothing to do with it.
  Keep("mine", TurnOf(1));
  Await(7);
  EXPECT_TRUE(kept_.back().conversation);
}

TEST_F(DiskReopenTest, WhatItHasThenIsTold) {
  Open();
  const PageToKeep page = UniquePage(1, 200'000), other = UniquePage(2, 200'000);
  disk_->KeepPages({page, other}, {});
  Await(1);
  disk_->Wait(kLongMs);
  const auto whole = folder_.path() / "whole";
  std::filesystem::copy_file(kv_file(), whole);
  ASSERT_NO_FATAL_FAILURE(Break(page));
  // The disk works again, and has it all; but one of them is to be erased.
  std::filesystem::copy_file(whole, kv_file(), std::filesystem::copy_options::overwrite_existing);
  disk_->ErasePages(4, {page.page.chain_hash});
  Await(3);
  EXPECT_EQ(erased_.size(), 1u) << "who waits for it is not kept waiting";
  Await(4);
  ASSERT_EQ(reopened_.size(), 1u);
  ASSERT_EQ(reopened_[0].pages.size(), 1u);
  EXPECT_EQ(reopened_[0].pages[0].chain_hash, other.page.chain_hash);
  EXPECT_TRUE(Eventually([&] { return !Stands(kv_file(), PartOf(page)); }));
  Open();
  ASSERT_EQ(stored_pages_.size(), 1u);
  EXPECT_EQ(stored_pages_[0].chain_hash, other.page.chain_hash);
}

}  // namespace
}  // namespace perdure::worker
