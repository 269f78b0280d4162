// A persistence for tests: what a generator keeps lies in memory and outlives it. Jobs wait until
// the test has them done, and fail when it says so.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "shm/hashes.h"
#include "snapshot/turn_chain.h"
#include "worker/persistence.h"

namespace perdure::worker {

class MemoryPersistence : public Persistence {
 public:
  using ConversationName = std::pair<uint64_t, std::string>;  // owner, id
  struct Kept {
    snapshot::StoredConversation told;
    std::vector<snapshot::StoredTurn> turns;
  };

  // --- What is stored ---
  std::map<ConversationName, Kept> conversations;
  std::map<std::pair<uint64_t, uint32_t>, ConversationName> requests;  // by rid and choice
  std::map<uint64_t, PageToKeep> pages;                                // by chain hash

  // --- How it fails: what is done from now on ---
  bool fails_turns = false, fails_pages = false;
  bool loses_turns = false;                    // they cannot be read
  std::function<void(PageFetched*)> on_fetch;  // may change what was read
  bool is_slow = false;                        // nobody can wait for it
  std::set<ConversationName> undeletable;
  std::function<void()> on_manage;  // instead of what is to be done with the file
  size_t chain_tokens = 1 << 20;    // that are read at a time

  // --- What it was asked for, in order ---
  struct GivenTurn {
    snapshot::TurnOwner owner;
    snapshot::StoredTurn turn;
  };
  std::vector<GivenTurn> given_turns;
  std::vector<snapshot::StoredPage> given_pages;
  std::vector<uint64_t> superseded, dropped, erased, fetched_pages, touched;
  size_t deleted_at_once = 0;  // the most
  std::vector<std::string> fetched_turns;

  // --- Its jobs: turns and pages have a thread each ---
  size_t turn_jobs() const { return turn_jobs_.size(); }
  size_t page_jobs() const { return page_jobs_.size(); }
  size_t jobs() const { return turn_jobs() + page_jobs(); }
  bool has_answers() const { return !answers_.empty(); }
  bool DoTurnJob() { return DoFirst(&turn_jobs_); }
  bool DoPageJob() { return DoFirst(&page_jobs_); }
  void DoAll() {
    while (DoTurnJob() || DoPageJob()) {
    }
  }
  // Of either thread.
  template <class Random>
  bool DoAny(Random& random) {
    const bool turn_first = std::uniform_int_distribution<int>(0, 1)(random) == 0;
    return turn_first ? DoTurnJob() || DoPageJob() : DoPageJob() || DoTurnJob();
  }
  // Those that were kept for a disk that works again, in order.
  void RetryTurns() {
    while (!fails_turns && !unsaved_.empty()) {
      Commit(unsaved_.front());
      unsaved_.pop_front();
    }
  }
  // The worker dies: so many jobs are still done, and nobody hears of it.
  void Crash(size_t turn_jobs_done = 0, size_t page_jobs_done = 0) {
    for (size_t i = 0; i < turn_jobs_done && DoTurnJob(); ++i) {
    }
    for (size_t i = 0; i < page_jobs_done && DoPageJob(); ++i) {
    }
    turn_jobs_.clear();
    page_jobs_.clear();
    answers_.clear();
    unsaved_.clear();
  }

  std::vector<snapshot::StoredConversation> Conversations() const {
    std::vector<snapshot::StoredConversation> all;
    for (const auto& [name, kept] : conversations) all.push_back(kept.told);
    return all;
  }
  std::vector<snapshot::StoredPage> Pages() const {
    std::vector<snapshot::StoredPage> all;
    for (const auto& [hash, page] : pages) all.push_back(page.page);
    return all;
  }
  bool HasTurn(uint64_t rid, uint32_t choice = 0) const { return requests.contains({rid, choice}); }

  // --- As a generator sees it ---
  void KeepTurn(snapshot::TurnOwner owner, snapshot::StoredTurn turn) override {
    // What TurnFile checks, at once.
    EXPECT_FALSE(owner.id.empty());
    EXPECT_EQ(turn.drawn.size(), turn.ids.size());
    EXPECT_EQ(turn.message_hashes.size(), turn.messages.size());
    EXPECT_LE(turn.prompt_tokens, turn.ids.size());
    given_turns.push_back({owner, turn});
    turn_jobs_.push_back([this, given = given_turns.back()] {
      RetryTurns();
      if (fails_turns) {
        unsaved_.push_back(given);
        answers_.push_back(TurnKept{given.turn.rid, given.turn.choice, std::nullopt});
      } else {
        Commit(given);
      }
    });
  }
  void Manage(uint64_t rid, Job) override {
    turn_jobs_.push_back([this, rid] {
      if (on_manage) on_manage();
      Managed managed;
      managed.answer.rid = rid;
      managed.answer.error_code = static_cast<uint16_t>(ErrorCode::unsupported);
      managed.answer.text = "there is no file";
      answers_.push_back(std::move(managed));
    });
  }
  void FetchTurn(uint64_t ticket, uint64_t owner, const std::string& id) override {
    fetched_turns.push_back(id);
    turn_jobs_.push_back([this, ticket, owner, id] {
      TurnFetched answer{ticket, std::nullopt};
      const auto found = conversations.find({owner, id});
      if (found != conversations.end() && !loses_turns) answer.turn = found->second.turns.back();
      answers_.push_back(std::move(answer));
    });
  }
  void FetchPages(uint64_t ticket, std::vector<PageToFetch> wanted) override {
    EXPECT_FALSE(wanted.empty());
    for (const PageToFetch& fetch : wanted) {
      EXPECT_EQ(fetch.to.size(), fetch.page.data_bytes);
      const uint64_t hash = fetch.page.chain_hash;
      fetched_pages.push_back(hash);
      const PageFetched begun{ticket, hash, fetch.place, fetch.page.data_checksum};
      page_jobs_.push_back([this, begun, to = fetch.to] {
        PageFetched answer = begun;
        const uint64_t hash = begun.chain_hash;
        if (const auto found = pages.find(hash); found != pages.end()) {
          answer.is_read = found->second.data.size() == to.size();
          if (answer.is_read) std::ranges::copy(found->second.data, to.begin());
        }
        if (on_fetch) on_fetch(&answer);
        if (!answer.is_read) {
          std::ranges::fill(to, std::byte{0xff});
          pages.erase(hash);
        }
        answers_.push_back(answer);
      });
    }
  }
  void KeepPages(std::vector<PageToKeep> kept, std::vector<uint64_t> shorter) override {
    EXPECT_FALSE(kept.empty());
    for (const PageToKeep& each : kept) {
      // What KvFile checks, at once.
      const snapshot::StoredPage& page = each.page;
      EXPECT_EQ(page.data_bytes, each.data.size());
      EXPECT_EQ(page.data_checksum, Hash64(each.data));
      EXPECT_EQ(page.chain_hash,
                shm::ChainHash(page.parent, page.key, shm::TokensHash(page.tokens)));
      given_pages.push_back(page);
    }
    superseded.insert(superseded.end(), shorter.begin(), shorter.end());
    page_jobs_.push_back([this, kept = std::move(kept), shorter = std::move(shorter)] {
      PagesKept answer;
      for (const PageToKeep& page : kept) {
        answer.bytes += page.data.size();
        answer.chain_hashes.push_back(page.page.chain_hash);
      }
      if (!fails_pages) {
        for (const PageToKeep& page : kept) {
          pages[page.page.chain_hash] = page;
          answer.pages.push_back(page.page);
        }
        for (const uint64_t hash : shorter) pages.erase(hash);
        answer.superseded = shorter;
      }
      answers_.push_back(std::move(answer));
    });
  }
  void TouchPages(std::vector<std::pair<uint64_t, uint32_t>> used_unix_s) override {
    for (const auto& [hash, unix_s] : used_unix_s) touched.push_back(hash);
    page_jobs_.push_back([this, used = std::move(used_unix_s)] {
      if (fails_pages) return;
      for (const auto& [hash, unix_s] : used)
        if (const auto found = pages.find(hash); found != pages.end())
          found->second.page.used_unix_s = unix_s;
    });
  }
  void DropPages(std::vector<uint64_t> chain_hashes) override {
    dropped.insert(dropped.end(), chain_hashes.begin(), chain_hashes.end());
    page_jobs_.push_back([this, hashes = std::move(chain_hashes)] {
      if (fails_pages) return;
      for (const uint64_t hash : hashes) pages.erase(hash);
    });
  }
  // There is no file.
  void WithPages(uint64_t ticket, PageJob job) override {
    page_jobs_.push_back([this, ticket, job = std::move(job)] {
      while (!job(nullptr)) {
      }
      answers_.push_back(FileStepDone{ticket});
    });
  }
  void FetchChains(uint64_t ticket, std::vector<TurnsOf> turns) override {
    turn_jobs_.push_back([this, ticket, turns = std::move(turns)] {
      ChainsFetched answer{ticket, {}};
      size_t tokens = 0;
      for (const TurnsOf& each : turns) {
        ChainsFetched::OfOne& of_it = answer.conversations.emplace_back();
        const auto found = conversations.find({each.owner, each.id});
        if (found == conversations.end() || loses_turns) continue;
        const auto& all = found->second.turns;
        const uint32_t last = each.to == 0 ? static_cast<uint32_t>(all.size()) : each.to;
        for (uint32_t turn = each.from; turn <= last && of_it.next == 0; ++turn) {
          if (tokens >= chain_tokens)
            of_it.next = turn;
          else
            tokens += snapshot::AddToChains(all[turn - 1], &of_it.chains);
        }
        if (of_it.next != 0 || tokens >= chain_tokens) break;
      }
      answers_.push_back(std::move(answer));
    });
  }
  void ErasePages(uint64_t ticket, std::vector<uint64_t> chain_hashes) override {
    erased.insert(erased.end(), chain_hashes.begin(), chain_hashes.end());
    page_jobs_.push_back([this, ticket, hashes = std::move(chain_hashes)] {
      for (const uint64_t hash : hashes) pages.erase(hash);
      answers_.push_back(PagesErased{ticket});
    });
  }
  void Delete(uint64_t ticket, std::vector<ConversationName> names) override {
    turn_jobs_.push_back([this, ticket, names = std::move(names)] {
      ConversationsDeleted answer;
      answer.ticket = ticket;
      for (const ConversationName& name : names) {
        if (undeletable.contains(name)) {
          answer.kept.push_back(name);
          answer.why = "it is damaged";
          continue;
        }
        conversations.erase(name);
        std::erase_if(requests, [&](const auto& each) { return each.second == name; });
        std::erase_if(unsaved_, [&](const GivenTurn& each) {
          return each.owner.owner == name.first && each.owner.id == name.second;
        });
        answer.removed.push_back(name);
      }
      deleted_at_once = std::max(deleted_at_once, names.size());
      answers_.push_back(std::move(answer));
    });
  }
  // As when the file of pages has become unusable, and another one was begun or found.
  void Reopen(std::map<uint64_t, PageToKeep> found) {
    pages = std::move(found);
    answers_.push_back(PagesReopened{Pages()});
  }
  std::vector<PersistenceAnswer> TakeAnswers() override { return std::exchange(answers_, {}); }
  int fd() const override { return -1; }
  void Wait(int64_t) override {
    if (!is_slow) DoAll();
  }

 private:
  using Jobs = std::deque<std::function<void()>>;
  static bool DoFirst(Jobs* jobs) {
    if (jobs->empty()) return false;
    const auto job = std::move(jobs->front());
    jobs->pop_front();
    job();
    return true;
  }

  // As TurnFile does: once for each answer of a request.
  void Commit(const GivenTurn& given) {
    const snapshot::StoredTurn& turn = given.turn;
    ConversationName name{given.owner.owner, given.owner.id};
    const auto [request, is_new] = requests.try_emplace({turn.rid, turn.choice}, name);
    Kept& kept = conversations[request->second];
    if (is_new) {
      snapshot::StoredConversation& told = kept.told;
      if (kept.turns.empty()) told.created_unix_ms = turn.unix_ms;
      told.owner = name.first;
      told.id = name.second;
      told.named |= given.owner.named;
      told.used_unix_ms = turn.unix_ms;
      ++told.turns;
      told.tokens = static_cast<uint32_t>(turn.ids.size());
      told.messages = static_cast<uint32_t>(turn.messages.size());
      told.messages_hash = turn.message_hashes.empty() ? 0 : turn.message_hashes.back();
      if (!given.owner.user.empty()) told.user = given.owner.user;
      kept.turns.push_back(turn);
    }
    answers_.push_back(TurnKept{turn.rid, turn.choice, kept.told});
  }

  Jobs turn_jobs_, page_jobs_;
  std::deque<GivenTurn> unsaved_;
  std::vector<PersistenceAnswer> answers_;
};

}  // namespace perdure::worker
