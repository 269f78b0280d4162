// What conversations hold of a store's memory, and what of them outlives their worker.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/limits.h"
#include "tests/worker/conversations_fixture.h"
#include "worker/conversations.h"

namespace perdure::worker {
namespace {

using Names = std::vector<std::string>;

// --- After a death -----------------------------------------------------------------------------

TEST_F(ConversationTableTest, ASuccessorKnowsAllThatWasKnown) {
  const Ids turn = Row(100, 'A');
  Turn first = TurnOf(turn);
  first.messages = {21, 22, 23};
  first.schedule.type = "of my own";
  first.schedule.segments = {{0, 16, 0, 0}, {64, 8, 4, 100}};
  first.schedule.chunk_size = 64;
  const std::string id = table_->Commit(std::move(first));
  now_ms_ += 1234;
  BeginNamed("mine", Row(40, 'B'), 8);
  const Conversation before = *table_->Get(kOwner, id);
  now_ms_ += 1000;
  Die();
  ASSERT_EQ(table_->all().size(), 2u);
  EXPECT_EQ(table_->totals().recovered, 2u);
  const Conversation* const after = table_->Get(kOwner, id);
  ASSERT_NE(after, nullptr);
  EXPECT_EQ(after->ids, turn) << "with the last token, which is not computed";
  EXPECT_EQ(after->messages, before.messages);
  EXPECT_EQ(after->message_count, 3u);
  EXPECT_EQ(after->schedule, before.schedule);
  EXPECT_EQ(after->used_ms, before.used_ms);
  EXPECT_EQ(after->turns, 1u);
  EXPECT_FALSE(after->named);
  const Conversation* const named = table_->Get(8, "mine");
  ASSERT_NE(named, nullptr);
  EXPECT_TRUE(named->named);
  EXPECT_EQ(named->ids, Row(40, 'B'));
  // It goes on with them.
  const Recognition found = RecognizeMessages({21, 22, 23, 24}, turn);
  EXPECT_EQ(found.id, id);
  EXPECT_EQ(found.schedule, before.schedule);
  EXPECT_EQ(GoOn(found, turn + Row(20, '1')), id);
  EXPECT_EQ(table_->Get(kOwner, id)->turns, 2u);
}

TEST_F(ConversationTableTest, ARecordThatMakesNoSenseIsNotTakenOver) {
  Turn turn = TurnOf(Row(100, 'A'));
  turn.schedule.segments = {{0, 5, 0, 0}};
  table_->Commit(std::move(turn));
  const std::string id = Begin(Row(100, 'B'));
  Die();
  EXPECT_EQ(Known(), Names{id});
  Die();
  EXPECT_EQ(table_->totals().recovered, 1u);
}

TEST_F(ConversationTableTest, ASuccessorWithLessMemoryKnowsTheTokens) {
  const Ids first = Row(200, 'A'), second = Row(200, 'B');
  const std::string older = Begin(first);
  now_ms_ += 1000;
  const std::string newer = Begin(second);
  Die(8);
  EXPECT_EQ(store_->used(), 8u);
  ASSERT_NE(table_->Get(kOwner, older), nullptr);
  EXPECT_EQ(table_->Get(kOwner, older)->ids, first);
  EXPECT_EQ(table_->Get(kOwner, newer)->ids, second);
}

TEST_F(ConversationTableTest, WhatAllShareStaysWhenItsLastConversationGoes) {
  const Ids ids = Row(100, 'A');
  Turn turn = TurnOf(First(ids, 1));
  turn.ids = ids;
  turn.drawn.resize(ids.size());
  turn.tail = Cache(First(ids, ids.size() - 1), kOwner, SIZE_MAX, 2);
  table_->Commit(std::move(turn));
  EXPECT_EQ(store_->cached(), 4u);
  now_ms_ += int64_t{1000} * (settings_.idle_timeout_s + 1);
  table_->Expire();
  EXPECT_EQ(Known(), Names{});
  EXPECT_EQ(store_->cached(), 2u);
}

TEST_F(ConversationTableTest, WhatWasDrawnIsKnownAfterADeath) {
  const Turn turn = TurnOf(Row(70, 'A'), kOwner, 40);
  const std::string id = table_->Commit(turn);
  Die();
  ASSERT_NE(table_->Get(kOwner, id), nullptr);
  EXPECT_EQ(table_->Get(kOwner, id)->ids, turn.ids);
  EXPECT_EQ(table_->Get(kOwner, id)->drawn, turn.drawn);
}

TEST_F(ConversationTableTest, ASuccessorForgetsWhatIsTooOld) {
  settings_.idle_timeout_s = 60;
  Open();
  Begin(Row(40, 'A'));
  now_ms_ += 30'000;
  Begin(Row(40, 'B'));
  now_ms_ += 31'000;
  Die();
  EXPECT_EQ(Known(), Names{"new2"});
  EXPECT_EQ(store_->cached(), 2u);
}

TEST_F(ConversationTableTest, ASuccessorWithRoomForFewerKeepsTheNewest) {
  for (TokenId first : {'A', 'B', 'C', 'D'}) {
    Begin(Row(40, first));
    now_ms_ += 1000;
  }
  settings_.conversations_max = 2;
  Die();
  EXPECT_EQ(Known(), (Names{"new3", "new4"}));
  settings_.conversations_max = 100;
  Die();
  EXPECT_EQ(Known(), (Names{"new3", "new4"})) << "the others' records are gone too";
}

TEST_F(ConversationTableTest, ADisabledSuccessorForgetsThemForGood) {
  Begin(Row(40, 'A'));
  settings_.enabled = false;
  Die();
  EXPECT_EQ(Known(), Names());
  settings_.enabled = true;
  Die();
  EXPECT_EQ(Known(), Names());
}

TEST_F(ConversationTableTest, WithoutItsPagesAllButTheTokensIsKnown) {
  Turn turn = TurnOf(Row(40, 'A'));
  turn.tail = shm::kNoPage;
  turn.messages = {21, 22, 23};
  turn.schedule.type = "of my own";
  const std::string id = table_->Commit(std::move(turn));
  Die();
  const Recognition found = RecognizeMessages({21, 22, 23, 24});
  EXPECT_EQ(found.id, id);
  EXPECT_EQ(found.position, 0u);
  EXPECT_EQ(found.schedule->type, "of my own");
  EXPECT_TRUE(table_->Get(kOwner, id)->ids.empty());
}

TEST_F(ConversationTableTest, OfALongChatTheLastMessagesOutliveAWorker) {
  std::vector<uint64_t> messages;
  for (uint64_t i = 1; i <= 200; ++i) messages.push_back(i);
  Turn turn = TurnOf(Row(40, 'A'));
  turn.messages = messages;
  const std::string id = table_->Commit(std::move(turn));
  Die();
  EXPECT_EQ(RecognizeMessages(messages).id, id);
  EXPECT_DOUBLE_EQ(RecognizeMessages(messages).similarity, 1.0);
  std::vector<uint64_t> edited = messages;
  edited[190] = 999;
  edited.back() = 998;
  EXPECT_EQ(RecognizeMessages(edited).id, id);
  // Where an edit lies before what is known, they have nothing in common that could be seen.
  for (size_t i = 150; i < 200; ++i) edited[i] = 999;
  EXPECT_EQ(RecognizeMessages(edited).id, "");
  static_assert(limits::kMessageHashesKept == 32);
}

// --- Pages -------------------------------------------------------------------------------------

TEST_F(ConversationTableTest, ItsTokensStayKnownWhenItsNumbersAreGone) {
  const Ids turn = Row(100, 'A');
  const std::string id = Begin(turn);
  const auto path = [&] {
    return store_->FindPath(turn, [](size_t) {
      return shm::PageKey{shm::PageFormat::kFloat16, kOwner, 0};
    });
  };
  ASSERT_EQ(path().size(), 3u);
  std::vector<PageIndex> all;
  while (const auto page = store_->Allocate()) all.push_back(*page);
  EXPECT_EQ(store_->cached(), 0u);
  EXPECT_EQ(path().size(), 3u);
  Die();
  EXPECT_EQ(table_->Get(kOwner, id)->ids, turn);
  EXPECT_TRUE(table_->ForgetOldest());
  EXPECT_EQ(path().size(), 0u) << "nobody needs them any more";
}

class PinnedTest : public ConversationTableTest {
 protected:
  std::string Pin(const Ids& ids, const std::string& id = "") {
    Turn turn = TurnOf(ids);
    turn.id = id;
    turn.schedule.type = "concatenate_kv";
    turn.schedule.pinned = true;
    return table_->Commit(std::move(turn));
  }
  uint64_t page_bytes() const { return store_->page_bytes(); }
};

TEST_F(PinnedTest, PinnedPagesStayWhenMemoryIsShort) {
  const std::string id = Pin(Row(100, 'A'));
  Begin(Row(100, 'B'));
  EXPECT_EQ(table_->pinned_bytes(), 4 * page_bytes());
  EXPECT_EQ(store_->referenced(), 4u);
  size_t allocated = 0;
  while (store_->Allocate()) ++allocated;
  EXPECT_EQ(allocated, kPages - 4);
  EXPECT_EQ(store_->cached(), 4u);
  for (const PageIndex page : table_->Get(kOwner, id)->pinned) EXPECT_TRUE(store_->is_loaded(page));
}

TEST_F(PinnedTest, TheyMayHoldAPartOfMemory) {
  const size_t most = kPages / limits::kPinnedPart;
  Pin(Row((most - 2) * engine::kPageTokens, 'A'));
  EXPECT_EQ(table_->pinned_bytes_left(), 2 * page_bytes());
  const std::string id = Pin(Row(3 * engine::kPageTokens, 'B'));
  EXPECT_TRUE(table_->Get(kOwner, id)->pinned.empty()) << "one page too many";
  Pin(Row(2 * engine::kPageTokens, 'C'));
  EXPECT_EQ(table_->pinned_bytes_left(), 0u);
}

TEST_F(PinnedTest, TheOneNotUsedForLongestGivesWay) {
  Pin(Row(40, 'A'));
  now_ms_ += 1000;
  Pin(Row(70, 'B'));
  EXPECT_TRUE(table_->UnpinOldest());
  EXPECT_EQ(table_->pinned_bytes(), 3 * page_bytes());
  EXPECT_TRUE(table_->Get(kOwner, "new1")->pinned.empty());
  EXPECT_TRUE(table_->UnpinOldest());
  EXPECT_FALSE(table_->UnpinOldest());
  EXPECT_EQ(table_->pinned_bytes(), 0u);
  EXPECT_EQ(store_->referenced(), 0u);
  EXPECT_EQ(Known(), (Names{"new1", "new2"}));
}

TEST_F(PinnedTest, TheNextTurnsPagesAreInTheirPlace) {
  const std::string id = Pin(Row(40, 'A'));
  Pin(Row(40, 'A') + Row(60, '1'), id);
  EXPECT_EQ(table_->pinned_bytes(), 4 * page_bytes());
  EXPECT_EQ(store_->referenced(), 4u);
  EXPECT_EQ(table_->Clear(), 1u);
  EXPECT_EQ(table_->pinned_bytes(), 0u);
  EXPECT_EQ(store_->referenced(), 0u);
}

TEST_F(PinnedTest, ItStaysPinnedTurnByTurnAsFarAsThereIsRoom) {
  const size_t most = kPages / limits::kPinnedPart;
  Ids turn = Row(engine::kPageTokens, 'A');
  const std::string id = Pin(turn);
  for (size_t pages = 1; pages <= most; ++pages) {
    EXPECT_EQ(table_->pinned_bytes(), pages * page_bytes());
    EXPECT_EQ(table_->Get(kOwner, id)->pinned.size(), pages);
    turn = turn + Row(engine::kPageTokens, static_cast<char>('a' + pages));
    Pin(turn, id);
  }
  EXPECT_TRUE(table_->Get(kOwner, id)->pinned.empty()) << "now it is too long";
  EXPECT_EQ(table_->pinned_bytes(), 0u);
  EXPECT_EQ(store_->referenced(), 0u);
}

TEST_F(PinnedTest, APageThatTwoHaveCountsOnce) {
  const Ids beginning = Row(3 * engine::kPageTokens, 'A');
  Pin(beginning + Row(engine::kPageTokens, '1'));
  Pin(beginning + Row(engine::kPageTokens, '2'));
  EXPECT_EQ(table_->pinned_bytes(), 5 * page_bytes());
  EXPECT_TRUE(table_->UnpinOldest());
  EXPECT_EQ(table_->pinned_bytes(), 4 * page_bytes());
  EXPECT_EQ(store_->referenced(), 4u);
  EXPECT_TRUE(table_->UnpinOldest());
  EXPECT_EQ(table_->pinned_bytes(), 0u);
}

TEST_F(PinnedTest, TheyAreAfterADeath) {
  const std::string id = Pin(Row(100, 'A'));
  Die();
  EXPECT_EQ(table_->pinned_bytes(), 4 * page_bytes());
  EXPECT_EQ(table_->Get(kOwner, id)->pinned.size(), 4u);
  table_->Unpin([](PageIndex) { return true; });
  EXPECT_EQ(store_->referenced(), 0u);
}

}  // namespace
}  // namespace perdure::worker
