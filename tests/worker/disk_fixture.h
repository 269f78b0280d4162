// Conversations in real files, in a folder of the test's own.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "shm/hashes.h"
#include "tests/base/temp_folder.h"
#include "worker/disk_persistence.h"

namespace perdure::worker {

inline constexpr int64_t kLongMs = 60'000;

inline snapshot::StoredTurn TurnOf(uint64_t rid, size_t bytes = 10) {
  snapshot::StoredTurn turn;
  turn.rid = rid;
  turn.unix_ms = 1'700'000'000'000 + static_cast<int64_t>(rid);
  turn.ids = {1, 2, static_cast<TokenId>(rid)};
  turn.drawn = {false, false, true};
  turn.prompt_tokens = 2;
  turn.messages = {"{\"n\":" + std::to_string(rid) + "}", std::string(bytes, 'a')};
  turn.message_hashes = {rid, rid + 1};
  return turn;
}

inline constexpr uint64_t kRoot = 5;

inline PageToKeep PageOf(const snapshot::StoredPage* parent, int number, size_t bytes = 1000,
                         size_t tokens = shm::kArenaPageTokens) {
  PageToKeep made;
  snapshot::StoredPage& page = made.page;
  page.parent = parent == nullptr ? kRoot : parent->chain_hash;
  page.position = parent == nullptr ? 0 : parent->position + 1;
  for (size_t i = 0; i < tokens; ++i)
    page.tokens.push_back(number * 1000 + static_cast<TokenId>(i));
  page.chain_hash = shm::ChainHash(page.parent, page.key, shm::TokensHash(page.tokens));
  made.data.resize(bytes);
  for (size_t i = 0; i < bytes; ++i)
    made.data[i] = static_cast<std::byte>(i * 7 + static_cast<size_t>(number));
  page.data_bytes = static_cast<uint32_t>(bytes);
  page.data_checksum = Hash64(made.data);
  page.used_unix_s = 1000;
  return made;
}

class DiskPersistenceTest : public testing::Test {
 protected:
  using Bytes = std::vector<std::byte>;
  DiskPersistenceTest() {
    options_.dir = folder_.path() / "conversations" / "model";
    options_.model = "nano";
    options_.sync = false;
    options_.turns_bytes_max = uint64_t{512} << 20;
    options_.kv_bytes_max = uint64_t{64} << 20;
  }
  void Open() {
    disk_.reset();
    kept_.clear();
    turns_.clear();
    pages_kept_.clear();
    pages_.clear();
    chains_.clear();
    erased_.clear();
    deleted_.clear();
    reopened_.clear();
    auto opened = DiskPersistence::Open(options_);
    ASSERT_TRUE(opened) << opened.error().message;
    disk_ = std::move(opened->persistence);
    conversations_.clear();
    for (snapshot::StoredConversation& each : opened->conversations) conversations_[each.id] = each;
    stored_pages_ = std::move(opened->pages);
  }
  void Fetch(uint64_t ticket, const std::vector<snapshot::StoredPage>& pages) {
    std::vector<PageToFetch> fetches;
    for (const snapshot::StoredPage& page : pages) {
      const auto place = static_cast<uint32_t>(places_.size());
      places_.emplace_back(page.data_bytes);
      fetches.push_back({page, places_.back(), place});
    }
    disk_->FetchPages(ticket, std::move(fetches));
  }
  void Keep(const std::string& id, const snapshot::StoredTurn& turn, const std::string& user = "") {
    disk_->KeepTurn({1, id, false, user}, turn);
  }

  // Takes answers until there are so many of all kinds, or none comes for long.
  void Await(size_t answers) {
    const int64_t end_ms = MonotonicMs() + kLongMs;
    while (Answers() < answers && MonotonicMs() < end_ms) {
      pollfd fd{disk_->fd(), POLLIN, 0};
      poll(&fd, 1, 1000);
      Take();
    }
    EXPECT_GE(Answers(), answers);
  }
  size_t Answers() const {
    return kept_.size() + turns_.size() + pages_kept_.size() + pages_.size() + chains_.size() +
           erased_.size() + deleted_.size() + reopened_.size();
  }
  void Take() {
    for (PersistenceAnswer& answer : disk_->TakeAnswers()) {
      if (auto* kept = std::get_if<TurnKept>(&answer)) kept_.push_back(*kept);
      if (auto* turn = std::get_if<TurnFetched>(&answer)) turns_.push_back(*turn);
      if (auto* kept = std::get_if<PagesKept>(&answer)) pages_kept_.push_back(*kept);
      if (auto* page = std::get_if<PageFetched>(&answer)) {
        pages_.push_back({*page, page->is_read ? places_.at(page->place) : Bytes()});
      }
      if (auto* chains = std::get_if<ChainsFetched>(&answer)) chains_.push_back(*chains);
      if (auto* erased = std::get_if<PagesErased>(&answer)) erased_.push_back(*erased);
      if (auto* deleted = std::get_if<ConversationsDeleted>(&answer)) deleted_.push_back(*deleted);
      if (auto* reopened = std::get_if<PagesReopened>(&answer)) reopened_.push_back(*reopened);
    }
  }
  bool IsStored(const std::string& id) {
    const size_t before = turns_.size(), all = Answers();
    disk_->FetchTurn(1, 1, id);
    Await(all + 1);
    return turns_.size() > before && turns_.back().turn.has_value();
  }

  TempFolder folder_;
  DiskPersistence::Options options_;
  std::unique_ptr<DiskPersistence> disk_;
  // What Open has found.
  std::map<std::string, snapshot::StoredConversation> conversations_;
  std::vector<snapshot::StoredPage> stored_pages_;
  // What was answered.
  std::vector<TurnKept> kept_;
  std::vector<TurnFetched> turns_;
  std::vector<PagesKept> pages_kept_;
  struct Fetched : PageFetched {
    Bytes data;  // empty: it could not be read
  };
  std::vector<Fetched> pages_;
  std::deque<Bytes> places_;
  std::vector<ChainsFetched> chains_;
  std::vector<PagesErased> erased_;
  std::vector<ConversationsDeleted> deleted_;
  std::vector<PagesReopened> reopened_;
};

}  // namespace perdure::worker
