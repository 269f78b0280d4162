#include "shm/conversation_records.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <random>

#include "base/limits.h"
#include "base/unique_fd.h"
#include "shm/arena.h"
#include "tests/shm/watched_memory.h"

namespace perdure::shm {
namespace {

ConversationRecord Record(const std::string& id, uint32_t turns, uint64_t owner = 1) {
  ConversationRecord record;
  record.id = id;
  record.owner = owner;
  record.tail_page = turns;
  record.tail_hash = turns * 1000;
  record.last_token = static_cast<int32_t>(turns);
  record.used_unix_ms = 1'800'000'000'000 + turns;
  record.turns = turns;
  record.pinned = turns % 2 == 0;
  record.named = turns % 3 == 0;
  record.type = "rotating_kv";
  record.chunk_size = 512;
  record.segments = {{0, 16, 0, 0}, {4096, 8, 4, static_cast<int32_t>(turns)}};
  record.messages = turns;
  for (uint32_t i = 0; i < turns; ++i) record.message_hashes.push_back(i * 7);
  return record;
}

void ExpectEqual(const ConversationRecord& a, const ConversationRecord& b) {
  EXPECT_EQ(a.id, b.id);
  EXPECT_EQ(a.owner, b.owner);
  EXPECT_EQ(a.tail_page, b.tail_page);
  EXPECT_EQ(a.tail_hash, b.tail_hash);
  EXPECT_EQ(a.last_token, b.last_token);
  EXPECT_EQ(a.used_unix_ms, b.used_unix_ms);
  EXPECT_EQ(a.turns, b.turns);
  EXPECT_EQ(a.pinned, b.pinned);
  EXPECT_EQ(a.named, b.named);
  EXPECT_EQ(a.type, b.type);
  EXPECT_EQ(a.chunk_size, b.chunk_size);
  ASSERT_EQ(a.segments.size(), b.segments.size());
  for (size_t i = 0; i < a.segments.size(); ++i)
    EXPECT_EQ(std::memcmp(&a.segments[i], &b.segments[i], sizeof a.segments[i]), 0);
  EXPECT_EQ(a.messages, b.messages);
  EXPECT_EQ(a.message_hashes, b.message_hashes);
}

std::map<std::string, ConversationRecord> ById(const ConversationRecords& records) {
  std::map<std::string, ConversationRecord> found;
  for (const ConversationRecord& record : records.recovered()) found[record.id] = record;
  return found;
}

TEST(ConversationRecords, OutliveTheirWriter) {
  const auto memory = WatchedMemory::Make({kMixedBytes, 8, 4});
  {
    ConversationRecords records(memory.get());
    EXPECT_TRUE(records.recovered().empty());
    EXPECT_TRUE(records.Store(Record("a", 1)));
    EXPECT_TRUE(records.Store(Record("b", 2)));
    EXPECT_TRUE(records.Store(Record("a", 5)));
    EXPECT_TRUE(records.Store(Record("gone", 6)));
    records.Remove("gone", 1);
    records.Remove("never there", 1);
    EXPECT_EQ(records.room(), 2u);
  }
  const ConversationRecords records(memory.get());
  auto found = ById(records);
  ASSERT_EQ(found.size(), 2u);
  ExpectEqual(found["a"], Record("a", 5));
  ExpectEqual(found["b"], Record("b", 2));
  EXPECT_EQ(records.dropped(), 0u);
}

TEST(ConversationRecords, AnIdIsOfItsOwner) {
  const auto memory = WatchedMemory::Make({kMixedBytes, 8, 4});
  ConversationRecords records(memory.get());
  EXPECT_TRUE(records.Store(Record("a", 1, 1)));
  EXPECT_TRUE(records.Store(Record("a", 2, 2)));
  records.Remove("a", 1);
  const ConversationRecords next(memory.get());
  ASSERT_EQ(next.recovered().size(), 1u);
  EXPECT_EQ(next.recovered()[0].owner, 2u);
}

TEST(ConversationRecords, KeepTheNewestMessagesAndAreBounded) {
  const auto memory = WatchedMemory::Make({kMixedBytes, 8, 2});
  ConversationRecords records(memory.get());
  const auto longest = Record(std::string(limits::kConversationIdBytesMax, 'x'), 100);
  ASSERT_TRUE(records.Store(longest));
  ASSERT_TRUE(records.Store(longest));  // needs the second place for a moment
  ASSERT_TRUE(records.Store(Record("b", 1)));
  EXPECT_FALSE(records.Store(Record("b", 2)));
  EXPECT_FALSE(records.Store(Record("c", 1)));
  const ConversationRecords next(memory.get());
  auto found = ById(next);
  ASSERT_EQ(found.size(), 2u);
  const ConversationRecord& kept = found[longest.id];
  EXPECT_EQ(kept.messages, 100u);
  ASSERT_EQ(kept.message_hashes.size(), static_cast<size_t>(limits::kMessageHashesKept));
  EXPECT_EQ(kept.message_hashes.back(), 99u * 7);
}

TEST(ConversationRecords, ADeathAtAnyStoreLeavesTheOldOrTheNew) {
  const auto memory = WatchedMemory::Make({kMixedBytes, 8, 4});
  ConversationRecords records(memory.get());
  ASSERT_TRUE(records.Store(Record("a", 1)));
  uint32_t turns = 1;
  int looks = 0;
  memory->stored = [&] {
    ++looks;
    const auto copy = memory->Copy();
    const ConversationRecords successor(copy.get());
    ASSERT_EQ(successor.dropped(), 0u);
    auto found = ById(successor);
    ASSERT_TRUE(found.contains("a"));
    if (found["a"].turns == turns)
      ExpectEqual(found["a"], Record("a", turns));
    else
      ExpectEqual(found["a"], Record("a", turns - 1));
  };
  for (; turns < 30; ++turns) {
    memory->stored();
    ASSERT_TRUE(records.Store(Record("a", turns)));
  }
  memory->stored = nullptr;
  EXPECT_GT(looks, 100);
}

TEST(ConversationRecords, DamageIsLeftOut) {
  std::mt19937_64 random(3);
  size_t kept = 0, dropped = 0;
  for (int round = 0; round < 300; ++round) {
    const auto memory = WatchedMemory::Make({kMixedBytes, 8, 4});
    {
      ConversationRecords records(memory.get());
      for (const char* id : {"a", "b", "c"}) ASSERT_TRUE(records.Store(Record(id, 3)));
    }
    auto* bytes = reinterpret_cast<std::byte*>(&memory->conversation(0));
    bytes[random() % (4 * sizeof(ConversationShm))] ^= static_cast<std::byte>(1 + random() % 255);
    ConversationRecords records(memory.get());
    for (const auto& [id, record] : ById(records)) ExpectEqual(record, Record(id, 3));
    EXPECT_GE(records.recovered().size(), 2u);
    kept += records.recovered().size();
    dropped += records.dropped();
    EXPECT_TRUE(records.Store(Record("a", 4)));
  }
  EXPECT_GT(kept, 600u);
  EXPECT_GT(dropped, 100u);
}

}  // namespace
}  // namespace perdure::shm
