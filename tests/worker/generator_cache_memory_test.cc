// What sets the types of cache apart: how much memory a conversation takes, where its pages lie,
// and whether they stay.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/worker/cache_fixture.h"

namespace perdure::worker {
namespace {

class CacheMemoryTest : public CacheTest {
 protected:
  uint64_t BytesOf(const CacheChoice& cache) {
    StartWith(64);
    Say(Text(10 * kPage - 20, 1), 21, cache);  // ten pages
    return store_->used_bytes();
  }
  int TokensOf(const CacheChoice& cache) {
    model_options_.max_context = 16'384;
    StartWith(64);
    return generator_->MemoryTokens(ResolveCache(cache, {}).schedule);
  }
  // Of the rows of `row` pages that a conversation has filled: how many lie in one piece.
  std::vector<size_t> RowsInOnePiece(protocol::RequestId rid, size_t row) {
    const std::vector<PageIndex> pages = PagesOf(Ticket(rid).conversation_id);
    size_t rows = 0, whole = 0;
    for (size_t first = 0; first + row <= pages.size(); first += row, ++rows) {
      bool in_one_piece = true;
      for (size_t i = 1; i < row; ++i)
        in_one_piece &= store_->address(pages[first + i]) ==
                        store_->address(pages[first]) + i * store_->page_bytes();
      if (in_one_piece) ++whole;
    }
    return {whole, rows};
  }
};

// --- quantized_kv ------------------------------------------------------------------------------

TEST_F(CacheMemoryTest, FewerBitsTakeLessMemory) {
  const uint64_t full = BytesOf(OfType("kv"));
  EXPECT_EQ(full, 10 * store_->page_bytes(shm::PageFormat::kFloat16));
  const uint64_t half = BytesOf(Quantized(8)), quarter = BytesOf(Quantized(4));
  EXPECT_EQ(half, 10 * store_->page_bytes(shm::PageFormat::kBits8));
  EXPECT_EQ(quarter, 10 * store_->page_bytes(shm::PageFormat::kBits4));
  EXPECT_LT(half, full * 54 / 100);
  EXPECT_LT(quarter, full * 29 / 100);
}

TEST_F(CacheMemoryTest, FewerBitsLeaveRoomForMoreTokens) {
  EXPECT_EQ(TokensOf(OfType("kv")), 64 * kPage);
  EXPECT_GT(TokensOf(Quantized(8)), 64 * kPage * 17 / 10);
  EXPECT_GT(TokensOf(Quantized(4)), 64 * kPage * 34 / 10);
  EXPECT_EQ(TokensOf(Chunked(64)), 64 * kPage);
}

TEST_F(CacheMemoryTest, NumbersOfOtherBitsAreAnotherCopy) {
  StartWith(64);
  const Ids prompt = Text(100, 1);
  Say(prompt, 10, OfType("kv"));
  auto other = Ask(prompt, 10, Quantized(8));
  other.request.conversation_id = "another one";
  Say(other);
  EXPECT_EQ(Cached(other.rid), 0);
  EXPECT_EQ(store_->loaded()[shm::PageFormat::kFloat16], 4u);
  EXPECT_EQ(store_->loaded()[shm::PageFormat::kBits8], 4u);
  // Where numbers lie and whether they stay does not make them others.
  for (const CacheChoice& cache : {Chunked(64), OfType("concatenate_kv")}) {
    auto same = Ask(prompt, 10, cache);
    same.request.conversation_id = cache.settings.type;
    Say(same);
    EXPECT_EQ(Cached(same.rid), 99) << cache.settings.type;
  }
}

// --- rotating_kv -------------------------------------------------------------------------------

TEST_F(CacheMemoryTest, ARotatingConversationHasACeiling) {
  constexpr int kSize = 128;
  constexpr int kPrompt = 300, kAnswer = 10 * kSize;
  StartWith(32);
  const auto submit = Ask(Text(kPrompt, 1), kAnswer, Rotating(kSize, 4));
  Submit(submit);
  const CacheSchedule schedule = Ticket(submit.rid).cache;
  const uint64_t most = PagesHeld(schedule, kPrompt + kAnswer)[shm::PageFormat::kFloat16];
  EXPECT_LE(most, 32u) << "or this would show nothing";
  EXPECT_GT(kPrompt + kAnswer, 32 * kPage);
  for (int i = 0; i < 10'000 && generator_->HasWork(); ++i) {
    generator_->Step();
    ASSERT_LE(store_->used(), most);
    // What is kept, the window, which begins and ends within pages, and the next page.
    if (Answer(submit.rid).size() > kSize) {
      ASSERT_LE(store_->used(), 1u + kSize / kPage + 1 + 1);
    }
  }
  EXPECT_EQ(Answer(submit.rid).size(), static_cast<size_t>(kAnswer));
  EXPECT_EQ(Answer(submit.rid), Cold(submit, schedule));
  const auto next = Ask(History(submit.rid) + Text(20, 2), 20);
  Say(next);
  EXPECT_EQ(Cached(next.rid), kPrompt + kAnswer - 1);
  EXPECT_EQ(Answer(next.rid), Cold(next, schedule));
}

TEST_F(CacheMemoryTest, WhatAnotherConversationNeedsDoesNotRotateAway) {
  StartWith(64);
  const Ids prompt = Text(200, 1);
  Say(prompt, 2, OfType("kv"));
  auto rotating = Ask(prompt, 300, Rotating(69, 5));
  rotating.request.conversation_id = "rotates";
  Say(rotating);
  // Up to 69 positions all is seen: those pages are the same.
  EXPECT_EQ(Cached(rotating.rid), 64 + 5);
  const auto again = Ask(prompt, 2, OfType("kv"));
  Say(again);
  EXPECT_EQ(Cached(again.rid), 199);
}

TEST_F(CacheMemoryTest, WhatAShortConversationNeedsDoesNotRotateAway) {
  StartWith(64);
  // It ends within the page behind the last one that rotates away.
  const Ids prompt = Text(66, 1);
  Say(prompt, 2, OfType("kv"));
  auto rotating = Ask(prompt, 300, Rotating(69, 5));
  rotating.request.conversation_id = "rotates";
  Say(rotating);
  const auto again = Ask(prompt, 2, OfType("kv"));
  Say(again);
  EXPECT_EQ(Cached(again.rid), 65);
}

TEST_F(CacheMemoryTest, ARotatingConversationHasACeilingTurnByTurn) {
  StartWith(256);
  Ids history = Text(100, 1);
  size_t after_first = 0;
  for (int turn = 0; turn < 6; ++turn) {
    history = History(Say(history, 300, Rotating(128, 4))) + Text(21, 2 + turn);
    if (turn == 0) after_first = store_->used();
    // What is kept, the window, which begins and ends within pages, and the last page.
    EXPECT_LE(store_->used(), 1u + 128 / kPage + 1 + 1) << turn;
  }
  EXPECT_GT(after_first, 4u);
}

// --- concatenate_kv ----------------------------------------------------------------------------

TEST_F(CacheMemoryTest, PinnedConversationsStayWhereOthersAreEvicted) {
  StartWith(32);
  const Ids pinned = History(Say(Text(100, 1), 40, OfType("concatenate_kv")));
  const Ids plain = History(Say(Text(100, 2), 40, OfType("kv")));
  EXPECT_EQ(generator_->conversations().pinned_bytes(), 5 * store_->page_bytes());
  for (int seed = 3; seed < 10; ++seed) Say(Text(100, seed), 40, OfType("kv"));
  EXPECT_GT(store_->evicted(), 0u);
  const auto first = Say(pinned + Text(20, 1), 10), second = Say(plain + Text(20, 1), 10);
  EXPECT_EQ(Cached(first), 139);
  EXPECT_EQ(Cached(second), 0);
}

TEST_F(CacheMemoryTest, APinnedConversationGivesWayToARequestThatIsAlone) {
  StartWith(16);
  const Ids pinned = History(Say(Text(100, 1), 40, OfType("concatenate_kv")));
  const auto large = Ask(Text(14 * kPage, 2), 20);
  Say(large);
  EXPECT_FALSE(sink_[large.rid].failed);
  EXPECT_EQ(Answer(large.rid), Cold(large, Ticket(large.rid).cache));
  EXPECT_EQ(generator_->conversations().pinned_bytes(), 0u);
  EXPECT_EQ(generator_->conversations().all().size(), 2u) << "it is not forgotten";
}

TEST_F(CacheMemoryTest, MoreThanAPartOfMemoryIsNotPinned) {
  StartWith(8);
  Say(Text(100, 1), 20, OfType("concatenate_kv"));
  EXPECT_EQ(generator_->conversations().pinned_bytes_left(), 0u);
  const auto second = Say(Text(50, 2), 10, OfType("concatenate_kv"));
  ASSERT_EQ(sink_[second].accepted->warnings.size(), 1u);
  EXPECT_EQ(Ticket(second).cache, CacheSchedule());
  EXPECT_EQ(generator_->conversations().pinned_bytes(), 4 * store_->page_bytes());
}

// --- chunked_kv --------------------------------------------------------------------------------

TEST_F(CacheMemoryTest, AChunksPagesLieInARow) {
  constexpr size_t kRow = 4;
  for (const bool chunked : {true, false}) {
    StartWith(128);
    const CacheChoice cache = chunked ? Chunked(kRow * kPage) : OfType("kv");
    // Side by side they take pages by turns.
    const auto one = Ask(Text(20, 1), 500, cache), two = Ask(Text(20, 2), 500, cache);
    Submit(one);
    Submit(two);
    RunAll();
    for (const auto rid : {one.rid, two.rid}) {
      const std::vector<size_t> rows = RowsInOnePiece(rid, kRow);
      ASSERT_EQ(rows[1], 4u);
      EXPECT_EQ(rows[0], chunked ? rows[1] : 0u);
    }
    // Nothing of the last rows is held that was not filled.
    EXPECT_EQ(store_->used(), 2u * ((519 + kPage - 1) / kPage));
  }
}

}  // namespace
}  // namespace perdure::worker
