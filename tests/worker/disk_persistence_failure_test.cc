// A disk that fails: it costs nothing but what could not be stored, and that not for ever.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "tests/worker/disk_fixture.h"

namespace perdure::worker {
namespace {

using snapshot::StoredPage;

// While it lives, no file of this process grows beyond so many bytes.
class FileLimit {
 public:
  explicit FileLimit(uint64_t bytes) : old_handler_(signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    signal(SIGXFSZ, old_handler_);
  }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;

 private:
  sighandler_t old_handler_;
  rlimit old_{};
};

class DiskFailureTest : public DiskPersistenceTest {
 protected:
  DiskFailureTest() { InitLogging("test", LogLevel::kInfo); }  // to standard error
  static size_t Times(const std::string& log, const std::string& text) {
    size_t count = 0;
    for (size_t at = log.find(text); at != std::string::npos; at = log.find(text, at + 1)) ++count;
    return count;
  }
};

TEST_F(DiskFailureTest, WhatADiskRefusesIsStoredInOrderWhenItWorksAgain) {
  Open();
  Keep("before", TurnOf(100));
  Await(1);
  std::string refused;
  testing::internal::CaptureStderr();
  {
    const FileLimit limit(std::filesystem::file_size(options_.dir / "turns.mdb"));
    for (uint64_t rid = 1; rid <= 5; ++rid)
      Keep(rid % 2 == 0 ? "even" : "odd", TurnOf(rid, 300'000));
    Await(6);
    // What it does while there is nothing to do changes nothing of that.
    std::this_thread::sleep_for(std::chrono::milliseconds(limits::kPersistencePeriodMs * 3 / 2));
    refused = testing::internal::GetCapturedStderr();
  }
  EXPECT_EQ(Times(refused, "are not stored"), 1u) << refused;
  EXPECT_EQ(Times(refused, "are stored again"), 0u) << refused;
  testing::internal::CaptureStderr();
  for (size_t i = 1; i < 6; ++i) {
    EXPECT_EQ(kept_[i].rid, i);
    EXPECT_FALSE(kept_[i].conversation) << "the client is told that it is not stored";
  }
  // Without being asked for anything.
  Await(11);
  const std::string log = testing::internal::GetCapturedStderr();
  ASSERT_EQ(kept_.size(), 11u);
  for (size_t i = 6; i < 11; ++i) {
    EXPECT_EQ(kept_[i].rid, i - 5) << "in the order in which they ended";
    EXPECT_TRUE(kept_[i].conversation);
  }
  EXPECT_EQ(Times(log, "are not stored"), 0u) << log;
  EXPECT_EQ(Times(log, "are stored again"), 1u) << log;
  Open();
  EXPECT_EQ(conversations_.at("odd").turns, 3u);
  EXPECT_EQ(conversations_.at("even").turns, 2u);
  EXPECT_EQ(conversations_.at("before").turns, 1u);
}

TEST_F(DiskFailureTest, OfTurnsThatWaitForTheDiskTheOldestGoWhenThereAreTooMany) {
  Open();
  Keep("before", TurnOf(100));
  Await(1);
  constexpr size_t kBytes = 9 << 20, kTurns = 10;
  static_assert(kBytes * kTurns > limits::kUnsavedTurnsBytesMax);
  {
    const FileLimit limit(std::filesystem::file_size(options_.dir / "turns.mdb"));
    for (uint64_t rid = 1; rid <= kTurns; ++rid) Keep(std::to_string(rid), TurnOf(rid, kBytes));
    Await(1 + kTurns);
    disk_->Wait(kLongMs);
  }
  constexpr size_t kFit = limits::kUnsavedTurnsBytesMax / kBytes;
  Await(1 + kTurns + kFit);
  Open();
  EXPECT_EQ(conversations_.size(), 1 + kFit);
  for (size_t rid = kTurns - kFit + 1; rid <= kTurns; ++rid)
    EXPECT_TRUE(conversations_.contains(std::to_string(rid))) << rid;
}

TEST_F(DiskFailureTest, ATurnThatCanNeverBeStoredDoesNotHoldUpOthers) {
  Open();
  Keep("one", TurnOf(1), std::string(limits::kConversationUserBytesMax + 1, 'u'));
  Keep("two", TurnOf(2));
  Keep(std::string(limits::kConversationIdBytesMax + 1, 'i'), TurnOf(3));
  Keep("four", TurnOf(4));
  Await(4);
  std::map<uint64_t, bool> stored;
  for (const TurnKept& kept : kept_) stored[kept.rid] |= kept.conversation.has_value();
  EXPECT_FALSE(stored.at(1));
  EXPECT_TRUE(stored.at(2));
  EXPECT_FALSE(stored.at(3));
  EXPECT_TRUE(stored.at(4));
}

TEST_F(DiskFailureTest, AFullFileOfTurnsIsNoErrorOfWhatIsThere) {
  options_.turns_bytes_max = 2 << 20;
  Open();
  Keep("one", TurnOf(1));
  for (uint64_t rid = 2; rid <= 12; ++rid) Keep(std::to_string(rid), TurnOf(rid, 500'000));
  Await(12);
  EXPECT_TRUE(kept_[0].conversation);
  EXPECT_FALSE(kept_[11].conversation);
  EXPECT_TRUE(IsStored("one"));
  Open();
  EXPECT_TRUE(conversations_.contains("one"));
  EXPECT_FALSE(conversations_.contains("12"));
}

TEST_F(DiskFailureTest, PagesThatADiskRefusesAreAnsweredAndOthersStay) {
  Open();
  const PageToKeep page = PageOf(nullptr, 1), more = PageOf(nullptr, 2, 1'000'000);
  disk_->KeepPages({page}, {});
  Await(1);
  testing::internal::CaptureStderr();
  {
    const FileLimit limit(std::filesystem::file_size(options_.dir / "kv.mdb"));
    disk_->KeepPages({more}, {page.page.chain_hash});
    disk_->KeepPages({more}, {page.page.chain_hash});
    Await(3);
  }
  for (size_t i = 1; i < 3; ++i) {
    EXPECT_TRUE(pages_kept_[i].pages.empty());
    EXPECT_TRUE(pages_kept_[i].superseded.empty());
    EXPECT_EQ(pages_kept_[i].bytes, 1'000'000u);
  }
  disk_->KeepPages({more}, {});
  Await(4);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(pages_kept_[3].pages.size(), 1u) << "it works again: " << log;
  Fetch(1, {page.page, more.page});
  Await(6);
  EXPECT_EQ(pages_[0].data, page.data) << "what was there before";
  EXPECT_EQ(pages_[1].data, more.data);
}

TEST_F(DiskFailureTest, AFullFileOfPagesRefusesAndGoesOnAfterADrop) {
  options_.kv_bytes_max = 2 << 20;
  Open();
  std::vector<PageToKeep> all;
  for (int i = 0; i < 40; ++i) {
    all.push_back(PageOf(nullptr, i, 100'000));
    disk_->KeepPages({all.back()}, {});
  }
  Await(40);
  std::vector<uint64_t> stored;
  for (const PagesKept& kept : pages_kept_)
    for (const StoredPage& page : kept.pages) stored.push_back(page.chain_hash);
  EXPECT_GT(stored.size(), 5u);
  EXPECT_LT(stored.size(), 40u);
  disk_->DropPages({stored.begin(), stored.begin() + 5});
  disk_->KeepPages({all.back()}, {});
  Await(41);
  EXPECT_EQ(pages_kept_.back().pages.size(), 1u);
}

TEST_F(DiskFailureTest, APageThatIsWrongKeepsNoOthersFromBeingStored) {
  Open();
  std::vector<PageToKeep> pages;
  for (int number = 1; number <= 3; ++number) pages.push_back(PageOf(nullptr, number));
  pages[1].data[5] ^= std::byte{1};  // as where memory fails
  const uint64_t wrong = pages[1].page.chain_hash;
  disk_->KeepPages(std::move(pages), {});
  Await(1);
  ASSERT_EQ(pages_kept_.size(), 1u);
  EXPECT_EQ(pages_kept_[0].pages.size(), 2u);
  EXPECT_EQ(pages_kept_[0].refused, std::vector<uint64_t>{wrong});
  EXPECT_EQ(pages_kept_[0].chain_hashes.size(), 2u) << "it is not to be tried again";
  Open();
  EXPECT_EQ(stored_pages_.size(), 2u);
}

TEST_F(DiskFailureTest, ADamagedPageIsAnsweredWithoutNumbers) {
  Open();
  const PageToKeep page = PageOf(nullptr, 1, 50'000);
  disk_->KeepPages({page}, {});
  Await(1);
  disk_.reset();
  const auto file = options_.dir / "kv.mdb";
  std::string bytes;
  {
    std::ifstream in(file, std::ios::binary);
    bytes.assign(std::istreambuf_iterator<char>(in), {});
  }
  const std::string part(reinterpret_cast<const char*>(page.data.data()) + 20'000, 64);
  const size_t at = bytes.find(part);
  ASSERT_NE(at, std::string::npos);
  bytes[at] ^= 1;
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
  Open();
  ASSERT_EQ(stored_pages_.size(), 1u) << "its record is whole";
  Fetch(1, {stored_pages_[0]});
  Await(1);
  EXPECT_TRUE(pages_[0].data.empty());
  Open();
  EXPECT_TRUE(stored_pages_.empty()) << "it is stored no more";
}

}  // namespace
}  // namespace perdure::worker
