// Records and keys: what was sealed is read again, and nothing else is.
#include "snapshot/format.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "base/hash.h"

namespace perdure::snapshot {
namespace {

FormatRecord AFormat() {
  return {kFormatVersion, kFormatReaderMin, "turns", "nano", 1'700'000'000'000};
}

ConversationRecord AConversation() {
  return {7, true, -1, 1'700'000'000'123, 3, 40, 6, ~uint64_t{0}, "anna"};
}

TurnRecord ATurn() {
  TurnRecord turn;
  turn.rid = 0x0102030405060708;
  turn.choice = 2;
  turn.unix_ms = 5;
  turn.finish = 1;
  turn.base = 1;
  turn.base_tokens = 10;
  turn.ids = {1, -2, 1 << 30};
  turn.drawn = {0b110};
  turn.prompt_tokens = 11;
  turn.base_messages = 1;
  turn.messages = {"{}", std::string("a\0b", 3), ""};
  turn.message_hashes = {1, 2, 3};
  turn.schedule = {"mine", {{0, 16, 0, 0}, {100, 8, 4, 64}}, 32, true};
  turn.fingerprint = 8;
  turn.numerics = 9;
  return turn;
}

PageRecord APage() {
  PageRecord page;
  page.parent = 1;
  page.position = 2;
  page.format = 3;
  page.owner = 4;
  page.mask = 5;
  page.tokens = {6, 7};
  page.drawn = 8;
  page.data_checksum = 9;
  page.data_bytes = 10;
  page.chunks = 11;
  page.codec = 12;
  page.used_unix_s = 13;
  return page;
}

template <class Record>
void ExpectSealed(const std::string& key, Record record) {
  const std::string value = Seal(key, record);
  ASSERT_EQ(value.size(), kRecordHeaderBytes + Encode(record).size());
  auto read = Unseal<Record>(key, value);
  ASSERT_TRUE(read.has_value()) << read.error().message;
  EXPECT_EQ(Encode(*read), Encode(record));
  EXPECT_TRUE(read->Fields() == record.Fields());
}

template <class Record>
void ExpectNoFlippedBit(const std::string& key, const Record& record) {
  std::string value = Seal(key, record);
  for (size_t bit = 0; bit < 8 * value.size(); ++bit) {
    value[bit / 8] = static_cast<char>(value[bit / 8] ^ 1 << bit % 8);
    const auto read = Unseal<Record>(key, value);
    ASSERT_FALSE(read.has_value()) << "bit " << bit;
    ASSERT_EQ(read.error().code, ErrorCode::io_error);
    value[bit / 8] = static_cast<char>(value[bit / 8] ^ 1 << bit % 8);
  }
  std::string other = key;
  for (size_t bit = 0; bit < 8 * key.size(); ++bit) {
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ 1 << bit % 8);
    ASSERT_FALSE(Unseal<Record>(other, value).has_value()) << "key bit " << bit;
    other[bit / 8] = static_cast<char>(other[bit / 8] ^ 1 << bit % 8);
  }
}

// Calls run(key, record) with one of each kind.
template <class Run>
void OfEachKind(const Run& run) {
  run(std::string(kFormatKey), AFormat());
  run(ConversationKey(1, "mine"), AConversation());
  run(TurnKey(1, 2), ATurn());
  run(RequestKey(1, 2), RequestRecord{1, "mine", 2, 3});
  run(std::string(kSerialKey), CounterRecord{77});
  run(PageKeyBytes(1), APage());
}

TEST(Format, RecordsAreReadAgain) {
  OfEachKind([](const std::string& key, const auto& record) { ExpectSealed(key, record); });
  ExpectSealed(ConversationKey(0, "x"), ConversationRecord{});
  ExpectSealed(TurnKey(1, 1), TurnRecord{});
}

TEST(Format, AFlippedBitIsRefused) {
  OfEachKind([](const std::string& key, const auto& record) { ExpectNoFlippedBit(key, record); });
}

TEST(Format, ARecordThatIsCutShortOrLongerIsRefused) {
  OfEachKind([](const std::string& key, const auto& record) {
    using Record = std::remove_cvref_t<decltype(record)>;
    const std::string value = Seal(key, record);
    for (size_t size = 0; size < value.size(); ++size)
      ASSERT_FALSE(Unseal<Record>(key, value.substr(0, size)).has_value()) << size;
    EXPECT_FALSE(Unseal<Record>(key, value + '\0').has_value());
  });
}

TEST(Format, TheErrorSaysWhatIsWrong) {
  const std::string key = TurnKey(1, 2);
  const auto error = [&](const std::string& value) {
    return OpenRecord(RecordKind::kTurn, 1, key, value).error().message;
  };
  EXPECT_EQ(error("short"), "a turn record has 5 bytes, fewer than its header");
  EXPECT_EQ(error(Seal(TurnKey(1, 3), ATurn())), "a turn record has a wrong checksum");
  EXPECT_EQ(error(SealRecord(RecordKind::kRequest, 1, key, "x")),
            "a turn record is of another kind (4)");
  EXPECT_EQ(error(SealRecord(RecordKind::kTurn, 2, key, "x")),
            "a turn record has version 2; this program knows 1 to 1");
  EXPECT_EQ(error(SealRecord(RecordKind::kTurn, 0, key, "x")),
            "a turn record has version 0; this program knows 1 to 1");
}

TEST(Format, AnOlderVersionIsTold) {
  const std::string value = SealRecord(RecordKind::kTurn, 1, "key", "fields");
  const auto opened = OpenRecord(RecordKind::kTurn, 3, "key", value);
  ASSERT_TRUE(opened.has_value());
  EXPECT_EQ(opened->version, 1);
  EXPECT_EQ(opened->payload, "fields");
}

// Bytes with a right checksum that are no such record: a bug or somebody's work.
TEST(Format, FieldsThatAreNoneAreRefused) {
  const std::string key = TurnKey(1, 2);
  const std::string whole = Encode(ATurn());
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string value = SealRecord(RecordKind::kTurn, 1, key, whole.substr(0, size));
    ASSERT_FALSE(Unseal<TurnRecord>(key, value).has_value()) << size;
  }
  EXPECT_EQ(
      Unseal<TurnRecord>(key, SealRecord(RecordKind::kTurn, 1, key, whole + "x")).error().message,
      "a turn record is malformed");
  // A count that the rest cannot hold.
  std::string counts = whole;
  const size_t at = 8 + 4 + 8 + 1 + 4 + 4;  // of ids
  std::memset(counts.data() + at, 0xff, 4);
  EXPECT_FALSE(Unseal<TurnRecord>(key, SealRecord(RecordKind::kTurn, 1, key, counts)).has_value());
}

TEST(Format, TheHeaderIsAsWritten) {
  const std::string value = SealRecord(RecordKind::kTurn, 0x0102, "key", "abc");
  const std::string head("\x03\x00\x02\x01\x03\x00\x00\x00", 8);
  EXPECT_EQ(value.substr(0, 8), head);
  uint64_t checksum = 0;
  std::memcpy(&checksum, value.data() + 8, 8);
  EXPECT_EQ(checksum, Hash64("key" + head + "abc"));
  EXPECT_EQ(value.substr(kRecordHeaderBytes), "abc");
}

TEST(Format, KeysSortAsTheirNumbers) {
  std::vector<std::string> turns;
  for (const uint64_t serial :
       {uint64_t{0}, uint64_t{1}, uint64_t{255}, uint64_t{256}, uint64_t{1} << 32, ~uint64_t{0}})
    for (const uint32_t turn : {0u, 1u, 255u, 256u, 1u << 24, ~0u}) {
      turns.push_back(TurnKey(serial, turn));
      const auto parsed = ParseTurnKey(turns.back());
      ASSERT_TRUE(parsed.has_value());
      EXPECT_EQ(parsed->serial, serial);
      EXPECT_EQ(parsed->turn, turn);
      EXPECT_EQ(RequestKey(serial, turn), turns.back());
      EXPECT_EQ(ParseRequestKey(turns.back())->rid, serial);
      EXPECT_EQ(ParseRequestKey(turns.back())->choice, turn);
    }
  // As LMDB compares: byte by byte, without a sign.
  EXPECT_TRUE(std::ranges::is_sorted(turns, [](const std::string& a, const std::string& b) {
    return std::memcmp(a.data(), b.data(), a.size()) < 0;
  }));
  EXPECT_EQ(ChunkKey(0x0102030405060708, 0x090a),
            std::string("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a", 10));
  EXPECT_EQ(ParsePageKey(PageKeyBytes(0x8102030405060708)), 0x8102030405060708);
}

TEST(Format, KeysOfAnotherLengthAreNone) {
  EXPECT_FALSE(ParseTurnKey("").has_value());
  EXPECT_FALSE(ParseTurnKey(TurnKey(1, 2) + "x").has_value());
  EXPECT_FALSE(ParseTurnKey(TurnKey(1, 2).substr(1)).has_value());
  EXPECT_FALSE(ParseRequestKey(PageKeyBytes(1)).has_value());
  EXPECT_FALSE(ParsePageKey(TurnKey(1, 2)).has_value());
  EXPECT_FALSE(ParseConversationKey("1234567").has_value());
  const auto parsed = ParseConversationKey(ConversationKey(~uint64_t{0} - 1, "an id"));
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->owner, ~uint64_t{0} - 1);
  EXPECT_EQ(parsed->id, "an id");
}

}  // namespace
}  // namespace perdure::snapshot
