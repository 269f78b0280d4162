// Turns as differences: put together they are what was taken apart, and what cannot be is refused.
#include "snapshot/turn_chain.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "base/limits.h"
#include "tests/snapshot/turns.h"

namespace perdure::snapshot {
namespace {

TEST(TurnChain, ATurnTellsWhatDiffers) {
  const StoredTurn first = FirstTurn(1);
  const StoredTurn second = NextTurn(first, 2);
  const TurnRecord alone = DifferenceFrom({}, 0, 0, first);
  EXPECT_EQ(alone.base, 0u);
  EXPECT_EQ(alone.ids, first.ids);
  EXPECT_EQ(alone.drawn, (std::vector<uint8_t>{0b11110000, 0b1}));
  EXPECT_EQ(alone.messages, first.messages);

  const TurnRecord record = DifferenceFrom(first, 4, 1, second);
  EXPECT_EQ(record.base, 4u);
  EXPECT_EQ(record.base_tokens, 9u);
  EXPECT_EQ(record.ids.size(), 6u);
  EXPECT_EQ(record.drawn, std::vector<uint8_t>{0b111000});
  EXPECT_EQ(record.prompt_tokens, 12u);
  EXPECT_EQ(record.base_messages, 2u);
  EXPECT_EQ(record.messages.size(), 2u);
}

// Ids that are the same and drawn otherwise are another matter, and so is a message whose hash is
// another's.
TEST(TurnChain, CommonIsWhatIsTheSameInBoth) {
  const StoredTurn first = FirstTurn(1);
  StoredTurn second = NextTurn(first, 2);
  second.drawn[3] = !second.drawn[3];
  second.message_hashes[1] ^= 1;
  const TurnRecord record = DifferenceFrom(first, 1, 1, second);
  EXPECT_EQ(record.base, 1u);
  EXPECT_EQ(record.base_tokens, 3u);
  EXPECT_EQ(record.base_messages, 1u);
  second.messages[0] += ' ';
  EXPECT_EQ(CommonMessages(first, second), 0u);
}

TEST(TurnChain, ATurnStandsForItself) {
  const StoredTurn first = FirstTurn(1);
  const StoredTurn second = NextTurn(first, 2);
  EXPECT_EQ(DifferenceFrom(first, 1, limits::kTurnChainMax - 1, second).base, 1u);
  const TurnRecord record = DifferenceFrom(first, 1, limits::kTurnChainMax, second);
  EXPECT_EQ(record.base, 0u);
  EXPECT_EQ(record.ids, second.ids);
  EXPECT_EQ(record.messages, second.messages);
  // With nothing in common there is nothing to be based on.
  EXPECT_EQ(DifferenceFrom(first, 1, 1, FirstTurn(3)).base, 0u);
}

TEST(TurnChain, TheSizeIsThatOfTheWhole) {
  const StoredTurn first = FirstTurn(1);
  const auto size = SizeOf(DifferenceFrom({}, 0, 0, first), 1, {});
  ASSERT_TRUE(size.has_value());
  EXPECT_EQ(size->tokens, 9u);
  EXPECT_EQ(size->messages, 2u);
  EXPECT_EQ(size->records, 1u);
  const auto next = SizeOf(DifferenceFrom(first, 1, 1, NextTurn(first, 2)), 2, *size);
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->tokens, 15u);
  EXPECT_EQ(next->messages, 4u);
  EXPECT_EQ(next->records, 2u);
}

// Each of these has a right checksum; a reader that believed it would go astray.
TEST(TurnChain, WhatCannotBeIsRefused) {
  const TurnSize base{9, 2, 1};
  const TurnRecord good = DifferenceFrom(FirstTurn(1), 1, 1, NextTurn(FirstTurn(1), 2));
  ASSERT_TRUE(SizeOf(good, 2, base).has_value());
  const auto refused = [&](const std::function<void(TurnRecord&)>& change,
                           TurnSize of = {9, 2, 1}) {
    TurnRecord record = good;
    change(record);
    const auto size = SizeOf(record, 2, of);
    return size ? std::string("nothing") : size.error().message;
  };
  EXPECT_EQ(refused([](TurnRecord& r) { r.base = 2; }),
            "turn 2: is based on itself or a later one");
  EXPECT_EQ(refused([](TurnRecord& r) { r.base = ~0u; }),
            "turn 2: is based on itself or a later one");
  EXPECT_EQ(refused([](TurnRecord&) {}, {}), "turn 2: what it is based on is not there");
  EXPECT_EQ(refused([](TurnRecord& r) { r.base = 0; }),
            "turn 2: has more tokens of its base than that");
  EXPECT_EQ(refused([](TurnRecord& r) { r.base_tokens = 10; }),
            "turn 2: has more tokens of its base than that");
  EXPECT_EQ(refused([](TurnRecord& r) { r.base_messages = 3; }),
            "turn 2: has more messages of its base than that");
  EXPECT_EQ(refused([](TurnRecord& r) { r.drawn.push_back(0); }),
            "turn 2: tells of other tokens that they are drawn");
  EXPECT_EQ(refused([](TurnRecord& r) { r.drawn.clear(); }),
            "turn 2: tells of other tokens that they are drawn");
  EXPECT_EQ(refused([](TurnRecord& r) { r.drawn[0] |= 0x40; }),
            "turn 2: tells of tokens that are not there that they are drawn");
  EXPECT_EQ(refused([](TurnRecord& r) { r.message_hashes.push_back(1); }),
            "turn 2: has another number of hashes than of messages");
  EXPECT_EQ(refused([](TurnRecord& r) { r.prompt_tokens = 16; }),
            "turn 2: has a prompt of more tokens than it");
  EXPECT_EQ(refused([](TurnRecord& r) { r.schedule.segments.clear(); }),
            "turn 2: has a cache schedule that cannot be");
  EXPECT_EQ(refused([](TurnRecord& r) { r.schedule.segments.resize(17); }),
            "turn 2: has a cache schedule that cannot be");
  EXPECT_EQ(refused([](TurnRecord& r) { r.schedule.type.assign(65, 'x'); }),
            "turn 2: has a cache schedule that cannot be");
  EXPECT_EQ(refused([](TurnRecord&) {}, {9, 2, limits::kTurnChainMax}),
            "turn 2: is based on too many others");
  EXPECT_EQ(refused([](TurnRecord& r) { r.base_messages = limits::kTurnMessagesMax; },
                    {9, limits::kTurnMessagesMax, 1}),
            "turn 2: has more messages than a request can have");
  EXPECT_EQ(refused([](TurnRecord& r) { r.base_tokens = limits::kContextMax; },
                    {limits::kContextMax, 2, 1}),
            "turn 2: has more tokens than any model takes");
}

}  // namespace
}  // namespace perdure::snapshot
