// Which stored conversations are found: by name, and by what was said in them.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

#include "worker/persistence.h"

namespace perdure::worker {
namespace {

using snapshot::StoredConversation;

StoredConversation Said(uint64_t owner, const std::string& id, uint64_t hash, int64_t used_ms = 0) {
  StoredConversation conversation;
  conversation.owner = owner;
  conversation.id = id;
  conversation.messages_hash = hash;
  conversation.used_unix_ms = used_ms;
  conversation.turns = 1;
  return conversation;
}

class StoredConversationsTest : public testing::Test {
 protected:
  std::string Behind(uint64_t owner, const std::vector<uint64_t>& hashes) {
    const StoredConversation* found = stored_.FindBehind(owner, hashes);
    return found == nullptr ? "" : found->id;
  }
  StoredConversations stored_;
};

TEST_F(StoredConversationsTest, AnOwnersAreFoundByName) {
  stored_.Put(Said(1, "a", 10));
  stored_.Put(Said(2, "a", 20));
  ASSERT_NE(stored_.Find(1, "a"), nullptr);
  EXPECT_EQ(stored_.Find(1, "a")->messages_hash, 10u);
  EXPECT_EQ(stored_.Find(2, "a")->messages_hash, 20u);
  EXPECT_EQ(stored_.Find(3, "a"), nullptr);
  EXPECT_EQ(stored_.Find(1, "b"), nullptr);
  EXPECT_EQ(stored_.Find(1, ""), nullptr);
  EXPECT_EQ(stored_.size(), 2u);
}

TEST_F(StoredConversationsTest, NamesOfBytesAreNotMixedUpWithOwners) {
  // Owner and name together have the same bytes as another owner and name could.
  stored_.Put(Said(1, std::string("\0x", 2), 10));
  EXPECT_EQ(stored_.Find(1, "x"), nullptr);
  EXPECT_EQ(stored_.Find(1, std::string("\0", 1)), nullptr);
  EXPECT_NE(stored_.Find(1, std::string("\0x", 2)), nullptr);
}

TEST_F(StoredConversationsTest, TheOneThatEndsWithTheMostMessagesIsFound) {
  stored_.Put(Said(1, "short", 12));
  stored_.Put(Said(1, "long", 14));
  EXPECT_EQ(Behind(1, {11, 12, 13, 14, 15}), "long");
  EXPECT_EQ(Behind(1, {11, 12, 13}), "short");
  EXPECT_EQ(Behind(1, {11}), "");
  EXPECT_EQ(Behind(1, {}), "");
}

TEST_F(StoredConversationsTest, OfSeveralWithTheSameMessagesTheOneUsedLast) {
  stored_.Put(Said(1, "old", 12, 100));
  stored_.Put(Said(1, "new", 12, 300));
  stored_.Put(Said(1, "middle", 12, 200));
  EXPECT_EQ(Behind(1, {11, 12, 13}), "new");
  stored_.Put(Said(1, "old", 12, 400));
  EXPECT_EQ(Behind(1, {11, 12, 13}), "old");
}

TEST_F(StoredConversationsTest, OthersAndNamedOnesAreNotFoundByTheirMessages) {
  stored_.Put(Said(2, "another's", 12));
  auto named = Said(1, "named", 12);
  named.named = true;
  stored_.Put(named);
  EXPECT_EQ(Behind(1, {11, 12}), "");
  stored_.Put(Said(1, "own", 11));
  EXPECT_EQ(Behind(1, {11, 12}), "own") << "a shorter one that may be gone on with";
}

TEST_F(StoredConversationsTest, ALaterTurnTakesThePlaceOfTheOneBefore) {
  stored_.Put(Said(1, "a", 12));
  stored_.Put(Said(1, "a", 14));
  EXPECT_EQ(stored_.size(), 1u);
  EXPECT_EQ(Behind(1, {11, 12, 13}), "") << "it does not end there any more";
  EXPECT_EQ(Behind(1, {11, 12, 13, 14}), "a");
}

TEST_F(StoredConversationsTest, ATurnWithoutMessagesIsFoundByNameAlone) {
  stored_.Put(Said(1, "a", 0));
  EXPECT_EQ(Behind(1, {0}), "");
  EXPECT_NE(stored_.Find(1, "a"), nullptr);
  // With messages it is found, and without them again it is not.
  stored_.Put(Said(1, "a", 12));
  EXPECT_EQ(Behind(1, {12}), "a");
  stored_.Put(Said(1, "a", 0));
  EXPECT_EQ(Behind(1, {12}), "");
}

TEST_F(StoredConversationsTest, WhatIsRemovedIsFoundByNothing) {
  stored_.Put(Said(1, "a", 12));
  stored_.Put(Said(1, "b", 12));
  stored_.Remove(1, "a");
  EXPECT_EQ(stored_.Find(1, "a"), nullptr);
  EXPECT_EQ(Behind(1, {12}), "b");
  stored_.Remove(1, "b");
  EXPECT_EQ(Behind(1, {12}), "");
  stored_.Remove(1, "b");
  stored_.Remove(7, "a");
  EXPECT_EQ(stored_.size(), 0u);
}

TEST_F(StoredConversationsTest, ManyComeAndGoAndStayFound) {
  // The table grows meanwhile: what points into it must stay right.
  for (uint64_t i = 1; i <= 2000; ++i) stored_.Put(Said(1, std::to_string(i), 1000 + i % 500));
  for (uint64_t i = 1; i <= 2000; i += 2) stored_.Remove(1, std::to_string(i));
  for (uint64_t i = 2; i <= 2000; i += 2) {
    ASSERT_NE(stored_.Find(1, std::to_string(i)), nullptr);
    ASSERT_NE(Behind(1, {1000 + i % 500}), "");
  }
  EXPECT_EQ(Behind(1, {1001}), "") << "all of those were odd";
  EXPECT_EQ(stored_.size(), 1000u);
}

TEST_F(StoredConversationsTest, ThoseThatWereNotUsedSinceDependOnWhoseTheyAre) {
  stored_.Put(Said(1, "old", 1, 100));
  stored_.Put(Said(1, "new", 2, 300));
  stored_.Put(Said(2, "old", 3, 100));
  const auto before = [&](int64_t of_1, int64_t of_2) {
    std::set<std::string> names;
    for (const StoredConversation& each :
         stored_.Before([&](uint64_t owner) { return owner == 1 ? of_1 : of_2; }))
      names.insert(std::to_string(each.owner) + each.id);
    return names;
  };
  using Names = std::set<std::string>;
  EXPECT_EQ(before(100, 100), Names());
  EXPECT_EQ(before(101, 100), Names{"1old"});
  EXPECT_EQ(before(100, 101), Names{"2old"});
  EXPECT_EQ(before(301, 0), (Names{"1old", "1new"}));
}

}  // namespace
}  // namespace perdure::worker
