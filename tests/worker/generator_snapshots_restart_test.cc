// Conversations that go on after all memory was lost: what is read, what is told of it, and whose
// it is.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "shm/hashes.h"
#include "tests/worker/snapshot_fixture.h"

namespace perdure::worker {
namespace {

class SnapshotRestartTest : public SnapshotTest {
 protected:
  SnapshotRestartTest() { Boot(256); }
};

TEST_F(SnapshotRestartTest, AllThatWasComputedIsRead) {
  const auto first = Say(AskIn("mine", Text(100, 1), 40));
  const Ids history = History(first);
  Reboot();
  const auto second = AskIn("mine", history + Text(30, 2), 40);
  Say(second);
  EXPECT_EQ(FromDisk(second.rid), 139) << "the last token drawn was not computed";
  EXPECT_EQ(computed_, 1u + 30 + 40 - 1);
}

TEST_F(SnapshotRestartTest, AConcatenatedConversationIsPinnedAgain) {
  const Ids history = History(Say(AskIn("mine", Text(100, 1), 40, OfType("concatenate_kv"))));
  EXPECT_GT(generator_->conversations().pinned_bytes(), 0u);
  Reboot();
  EXPECT_EQ(generator_->conversations().pinned_bytes(), 0u);
  const auto next = AskIn("mine", history + Text(20, 2), 20);
  Say(next);
  EXPECT_EQ(generator_->conversations().pinned_bytes(), 6 * store_->page_bytes());
}

TEST_F(SnapshotRestartTest, WithoutANameOrMessagesPagesAreFoundByTheirTokens) {
  const Ids history = History(Say(Text(100, 1), 40));
  Reboot();
  const auto next = Ask(history + Text(20, 2), 20);
  Say(next);
  EXPECT_EQ(FromDisk(next.rid), 139);
  EXPECT_TRUE(disk_.fetched_turns.empty());
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(SnapshotRestartTest, AnEditedHistoryIsOfUseUpToTheEdit) {
  Ids history = History(Say(AskIn("mine", Text(100, 1), 40)));
  Reboot();
  history[70] = '!';
  const auto edited = AskIn("mine", history + Text(20, 2), 20);
  Say(edited);
  EXPECT_EQ(FromDisk(edited.rid), 70);
  EXPECT_EQ(Answer(edited.rid), Cold(edited));
}

TEST_F(SnapshotRestartTest, OfARotatingConversationOnlyTheNeededPagesAreRead) {
  Ids history = Text(20, 1);
  for (int turn = 0; turn < 10; ++turn)
    history = History(Say(AskIn("mine", history + Text(19, turn), 21, Rotating(69, 5))));
  const size_t stored = disk_.pages.size();
  EXPECT_GT(stored, 8u) << "or this would show nothing";
  Reboot();
  const auto next = AskIn("mine", history + Text(20, 2), 20);
  Say(next);
  // The one with what is kept, and the window, which begins and ends within pages.
  EXPECT_LE(disk_.fetched_pages.size(), 1u + 69 / kPage + 2);
  EXPECT_EQ(FromDisk(next.rid), static_cast<int>(history.size()) - 1);
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(SnapshotRestartTest, EachChoiceIsGoneOnWith) {
  auto submit = Ask(Text(100, 1), 40);
  submit.request.choices = 3;
  Say(submit);
  std::vector<Ids> histories;
  for (int choice = 0; choice < 3; ++choice) histories.push_back(History(submit.rid, choice));
  const std::string id = Ticket(submit.rid).conversation_id;
  for (int choice = 2; choice >= 0; --choice) {
    Reboot();
    const std::string own = choice == 0 ? id : id + "_" + std::to_string(choice);
    const auto next = AskIn(own, histories[static_cast<size_t>(choice)] + Text(20, 2), 20);
    Say(next);
    EXPECT_EQ(disk_.fetched_turns.back(), own);
    EXPECT_EQ(FromDisk(next.rid), 139) << "choice " << choice;
    EXPECT_EQ(Answer(next.rid), Cold(next));
  }
}

// --- What is told ------------------------------------------------------------------------------

TEST_F(SnapshotRestartTest, WhatIsInMemoryIsNotReadAndToldApart) {
  const Ids history = History(Say(AskIn("mine", Text(100, 1), 40)));
  Reboot();
  // A beginning of it comes to memory, in whole pages.
  Say(AskIn("other", First(history, 70), 5));
  disk_.fetched_pages.clear();
  const auto next = AskIn("mine", history + Text(20, 2), 20);
  Say(next);
  const protocol::Usage usage = UsageOf(next.rid);
  EXPECT_EQ(usage.from_arena, 3 * kPage);
  EXPECT_EQ(usage.from_snapshot, 139 - 3 * kPage);
  EXPECT_EQ(usage.computed, 21);
  EXPECT_EQ(disk_.fetched_pages.size(), 2u) << "pages 3 and 4";
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(SnapshotRestartTest, OfChoicesThatFollowNoMoreIsToldToBeReadThanWas) {
  const Ids history = History(Say(AskIn("mine", Text(100, 1), 40)));
  Reboot();
  auto next = AskIn("mine", history + Text(60, 2), 20);
  next.request.choices = 3;
  Say(next);
  EXPECT_EQ(FromDisk(next.rid, 0), 139);
  for (int choice = 1; choice < 3; ++choice) {
    const protocol::Usage usage = UsageOf(next.rid, choice);
    EXPECT_EQ(usage.computed, 1) << "the prompt is computed once";
    EXPECT_LE(usage.from_snapshot, 139) << "the rest was in memory when it began";
  }
}

TEST_F(SnapshotRestartTest, ASecondRequestFindsItInMemory) {
  const Ids history = History(Say(AskIn("mine", Text(100, 1), 40)));
  Reboot();
  const Ids longer = History(Say(AskIn("mine", history + Text(20, 2), 20)));
  disk_.fetched_pages.clear();
  disk_.fetched_turns.clear();
  const auto next = AskIn("mine", longer + Text(20, 3), 20);
  Say(next);
  EXPECT_EQ(UsageOf(next.rid).from_arena, 179);
  EXPECT_EQ(FromDisk(next.rid), 0);
  EXPECT_TRUE(disk_.fetched_pages.empty());
  EXPECT_TRUE(disk_.fetched_turns.empty());
}

// --- Whose it is -------------------------------------------------------------------------------

TEST_F(SnapshotRestartTest, TenantsFindNothingOfEachOther) {
  const Ids history = History(Say(AskIn("mine", Text(100, 1), 40)));
  Reboot();
  auto thief = AskIn("mine", history + Text(20, 2), 20);
  thief.request.tenant = "thief";
  Say(thief);
  EXPECT_EQ(FromDisk(thief.rid), 0);
  EXPECT_TRUE(disk_.fetched_turns.empty());
  EXPECT_EQ(Answer(thief.rid), Cold(thief));
}

TEST_F(SnapshotRestartTest, WhatAllShareIsStoredOnceForAll) {
  const Ids system = Text(70, 1);
  options_.shared_prefixes = {system};
  Boot(256);
  auto one = Ask(system + Text(60, 2), 10), other = Ask(system + Text(60, 3), 10);
  one.request.tenant = "one";
  other.request.tenant = "other";
  Say(one);
  Say(other);
  std::set<uint64_t> once;
  for (const snapshot::StoredPage& page : disk_.given_pages)
    EXPECT_TRUE(once.insert(page.chain_hash).second);
  Reboot();
  auto third = Ask(system + Text(60, 4), 10);
  third.request.tenant = "third";
  Say(third);
  EXPECT_EQ(FromDisk(third.rid), 2 * kPage);
  EXPECT_EQ(Answer(third.rid), Cold(third));
}

// --- Other models and machines -----------------------------------------------------------------

TEST_F(SnapshotRestartTest, AnotherModelsTokensAreNotUsed) {
  const Json messages = Json::array({Question(Letters(100, 1))});
  const auto first = AskChat(messages, 40);
  Say(first);
  const std::string id = Ticket(first.rid).conversation_id;
  const Json heard = Heard(messages, first.rid);
  options_.fingerprint = 0xbad;
  // The memory of another model has another root: nothing stored is reached.
  disk_.pages.clear();
  Reboot();
  const auto second = AskChat(With(heard, Question("And?")), 20);
  Say(second);
  EXPECT_EQ(Ticket(second.rid).conversation_id, id) << "it is the same conversation";
  EXPECT_EQ(sink_[second.rid].accepted->spliced, 0);
  EXPECT_EQ(FromDisk(second.rid), 0);
  EXPECT_EQ(Answer(second.rid), Cold(second));
  EXPECT_EQ(disk_.given_turns.back().turn.fingerprint, 0xbadu);
}

TEST_F(SnapshotRestartTest, PagesOfAnotherRootAreNotReached) {
  const Ids history = History(Say(AskIn("mine", Text(100, 1), 40)));
  std::map<uint64_t, PageToKeep> others;
  // As they would be of a machine that computes otherwise: all hashes are others.
  std::map<uint64_t, uint64_t> renamed{{store_->memory().root(), 12345}};
  std::vector<const PageToKeep*> in_order;
  for (const auto& [hash, page] : disk_.pages) in_order.push_back(&page);
  std::ranges::sort(in_order, {}, [](const auto* page) { return page->page.position; });
  for (const PageToKeep* page : in_order) {
    PageToKeep other = *page;
    other.page.parent = renamed.at(page->page.parent);
    other.page.chain_hash =
        shm::ChainHash(other.page.parent, other.page.key, shm::TokensHash(other.page.tokens));
    renamed[page->page.chain_hash] = other.page.chain_hash;
    others[other.page.chain_hash] = other;
  }
  disk_.pages = others;
  Reboot();
  const auto next = AskIn("mine", history + Text(20, 2), 20);
  Say(next);
  EXPECT_EQ(FromDisk(next.rid), 0) << "it is computed again";
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(SnapshotRestartTest, AScheduleThatMakesNoSenseIsNotUsed) {
  Say(AskIn("mine", Text(100, 1), 40, Rotating(69, 5)));
  const Ids history = disk_.given_turns[0].turn.ids;
  auto& kept = disk_.conversations.begin()->second.turns.back();
  kept.schedule.segments = {{0, 13, 70, 3}};
  Reboot();
  const auto next = AskIn("mine", history + Text(20, 2), 20);
  Say(next);
  EXPECT_EQ(Ticket(next.rid).cache, CacheSchedule());
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

// --- Memory that forgets, while the disk does not -----------------------------------------------

TEST_F(SnapshotRestartTest, AnExpiredConversationComesBack) {
  options_.conversations.idle_timeout_s = 60;
  Boot(256);
  const Ids history = History(Say(AskIn("mine", Text(100, 1), 40, Quantized(8))));
  now_ms_ += 60'001;
  clock_us += 60'001'000;
  generator_->Tick();
  ASSERT_EQ(Conversations().size(), 0u);
  const auto next = AskIn("mine", history + Text(20, 2), 20);
  Say(next);
  EXPECT_EQ(Ticket(next.rid).cache.type, "quantized_kv");
  EXPECT_EQ(FromDisk(next.rid), 139);
  EXPECT_EQ(Conversations().front()->turns, 2u);
  EXPECT_EQ(Answer(next.rid), Cold(next));
}

TEST_F(SnapshotRestartTest, MoreConversationsThanMemoryHoldsComeBack) {
  options_.conversations.conversations_max = 3;
  Boot(256);
  std::vector<Json> heard;
  std::vector<std::string> ids;
  for (int i = 0; i < 8; ++i) {
    now_ms_ += 1000;
    const Json messages = Json::array({Question(Letters(60, i))});
    const auto submit = AskChat(messages, 20, Quantized(8));
    Say(submit);
    heard.push_back(Heard(messages, submit.rid));
    ids.push_back(Ticket(submit.rid).conversation_id);
  }
  EXPECT_EQ(Conversations().size(), 3u);
  for (size_t i = 0; i < heard.size(); ++i) {
    now_ms_ += 1000;
    const auto next = AskChat(With(heard[i], Question("And?")), 10);
    Say(next);
    EXPECT_EQ(Ticket(next.rid).conversation_id, ids[i]);
    EXPECT_EQ(Ticket(next.rid).cache.type, "quantized_kv");
    EXPECT_LE(Conversations().size(), 3u);
    EXPECT_EQ(Answer(next.rid), Cold(next));
  }
  EXPECT_EQ(disk_.conversations.size(), 8u);
  EXPECT_GE(disk_.fetched_turns.size(), 5u);
}

TEST_F(SnapshotRestartTest, KeepAllStoresEverything) {
  const auto submit = AskIn("mine", Text(700, 1), 40);
  Submit(submit);
  Steps();
  generator_->KeepAll(10'000);
  EXPECT_TRUE(Persisted(submit.rid));
  EXPECT_EQ(disk_.pages.size(), (739u + kPage - 1) / kPage);
  EXPECT_FALSE(generator_->HasUpkeep());
  const Ids history = History(submit.rid);
  Reboot();
  EXPECT_EQ(FromDisk(Say(AskIn("mine", history + Text(20, 2), 20))), 739);
}

TEST_F(SnapshotRestartTest, KeepAllEndsThoughTheDiskDoesNot) {
  disk_.is_slow = true;
  const auto submit = AskIn("mine", Text(100, 1), 40);
  Submit(submit);
  Steps();
  generator_->KeepAll(1);
  EXPECT_FALSE(HasEnded(submit.rid));
  disk_.is_slow = false;
  disk_.fails_pages = true;
  generator_->KeepAll(10'000);
  EXPECT_TRUE(Persisted(submit.rid));
  EXPECT_TRUE(disk_.pages.empty());
}

}  // namespace
}  // namespace perdure::worker
