// Damaged records: Open drops them and what hangs on them, says so, and the rest is whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/limits.h"
#include "base/masked.h"
#include "snapshot/format.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/raw_lmdb.h"
#include "tests/snapshot/turns.h"

namespace perdure::snapshot {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class TurnFileDamage : public testing::Test {
 protected:
  TurnFileDamage() {
    auto file = OpenTurns(path_);
    a_ = CommitTurns(file.get(), "a", 3, 10);  // serial 1
    b_ = CommitTurns(file.get(), "b", 2, 20);  // serial 2
    file.reset();
    std::filesystem::copy_file(path_, whole_);
  }
  void Restore() {
    std::filesystem::copy_file(whole_, path_, std::filesystem::copy_options::overwrite_existing);
  }
  RawDatabase Read(const std::string& database) { return ReadRaw(path_, database); }
  void Write(const std::string& database, const std::string& key,
             const std::optional<std::string>& value) {
    WriteRaw(path_, database, key, value);
  }
  void FlipBit(const std::string& database, const std::string& key, size_t byte) {
    std::string value = Read(database)[key];
    value[byte] = static_cast<char>(value[byte] ^ 1 << byte % 8);
    Write(database, key, value);
  }
  template <class Record>
  Record RecordOf(const std::string& database, const std::string& key) {
    return *Unseal<Record>(key, Read(database)[key]);
  }
  // With a right checksum.
  template <class Record>
  void Put(const std::string& database, const std::string& key, const Record& record) {
    Write(database, key, Seal(key, record));
  }
  void ChangeTurn(uint64_t serial, uint32_t turn, const std::function<void(TurnRecord&)>& change) {
    const std::string key = TurnKey(serial, turn);
    auto record = RecordOf<TurnRecord>("turns", key);
    change(record);
    Put("turns", key, record);
  }

  // Opens it: conversations "a" and "b" have so many turns left, and each problem is said. Another
  // Open finds nothing wrong, and what is left goes on.
  void ExpectLeft(size_t a, size_t b, std::vector<std::string>* problems) {
    auto file = OpenTurns(path_);
    ASSERT_NE(file, nullptr);
    *problems = file->problems();
    const auto found = [](TurnFile* of) {
      std::vector<std::string> texts;
      for (const StoredConversation& conversation : of->TakeConversations())
        texts.push_back(Text(conversation));
      std::ranges::sort(texts);
      return texts;
    };
    const std::vector<std::string> conversations = found(file.get());
    ExpectTurns(file.get(), 1, "a", {a_.begin(), a_.begin() + static_cast<std::ptrdiff_t>(a)});
    ExpectTurns(file.get(), 1, "b", {b_.begin(), b_.begin() + static_cast<std::ptrdiff_t>(b)});
    file.reset();
    EXPECT_EQ(Read("conversations").size(), size_t{a > 0} + size_t{b > 0});
    EXPECT_EQ(Read("turns").size(), a + b);
    file = OpenTurns(path_);
    EXPECT_EQ(file->problems(), std::vector<std::string>{});
    EXPECT_EQ(found(file.get()), conversations);
    const StoredTurn next = a == 0 ? FirstTurn(77) : NextTurn(a_[a - 1], 77);
    const auto stored = file->Commit({1, "a", true, ""}, next);
    ASSERT_TRUE(stored.has_value()) << stored.error().message;
    EXPECT_EQ(stored->turns, a + 1);
  }
  std::vector<std::string> ProblemsWith(size_t a, size_t b) {
    std::vector<std::string> problems;
    ExpectLeft(a, b, &problems);
    return problems;
  }

  TempFolder folder_;
  const std::filesystem::path path_ = folder_.path() / "turns.mdb";
  const std::filesystem::path whole_ = folder_.path() / "whole";
  std::vector<StoredTurn> a_, b_;
};

TEST_F(TurnFileDamage, AFlippedBitInAnyByteOfAConversation) {
  const std::string key = ConversationKey(1, "a");
  const size_t bytes = Read("conversations")[key].size();
  for (size_t byte = 0; byte < bytes && !HasFailure(); ++byte) {
    Restore();
    FlipBit("conversations", key, byte);
    EXPECT_THAT(ProblemsWith(0, 2),
                ElementsAre("conversation " + Masked("a") +
                                " is lost: a conversation record has a wrong checksum",
                            "turns of number 1 are lost: their conversation's record is not there",
                            "3 records of requests told of turns that are not there"));
  }
}

TEST_F(TurnFileDamage, AFlippedBitInAnyByteOfATurn) {
  for (const uint32_t turn : {1u, 2u, 3u}) {
    const std::string key = TurnKey(1, turn);
    const size_t bytes = Read("turns")[key].size();
    for (size_t byte = 0; byte < bytes && !HasFailure(); byte += byte < 100 ? 1 : 3) {
      Restore();
      FlipBit("turns", key, byte);
      const std::vector<std::string> problems = ProblemsWith(turn - 1, 2);
      ASSERT_EQ(problems.size(), 2u);
      EXPECT_THAT(problems[0], HasSubstr("a turn record has a wrong checksum"));
      EXPECT_THAT(problems[0],
                  HasSubstr(turn > 1 ? Masked("a") + " has lost its turns behind number"
                                     : "conversation " + Masked("a") + " is lost"));
    }
    Restore();
  }
}

TEST_F(TurnFileDamage, AFlippedBitInAnyByteOfARequest) {
  const std::string key = RequestKey(a_[1].rid, a_[1].choice);
  const size_t bytes = Read("requests")[key].size();
  for (size_t byte = 0; byte < bytes && !HasFailure(); ++byte) {
    Restore();
    FlipBit("requests", key, byte);
    EXPECT_THAT(ProblemsWith(3, 2), ElementsAre("of request 000000000000000b, choice 2: a request "
                                                "record has a wrong checksum"));
    EXPECT_EQ(Read("requests").count(key), 0u);
  }
}

TEST_F(TurnFileDamage, AFlippedBitInAnyByteOfTheCounter) {
  const std::string key(kSerialKey);
  for (size_t byte = 0; byte < kRecordHeaderBytes + 8 && !HasFailure(); ++byte) {
    Restore();
    FlipBit("counters", key, byte);
    EXPECT_THAT(
        ProblemsWith(3, 2),
        ElementsAre("of the counter of conversations: a counter record has a wrong checksum"));
    EXPECT_EQ(RecordOf<CounterRecord>("counters", key).next, 3u);
  }
  Restore();
  Put("counters", key, CounterRecord{2});
  EXPECT_THAT(ProblemsWith(3, 2), ElementsAre("the counter of conversations is too low"));
  Restore();
  Write("counters", key, std::nullopt);
  EXPECT_THAT(ProblemsWith(3, 2), ElementsAre("the counter of conversations is not there"));
}

TEST_F(TurnFileDamage, AMissingTurn) {
  Write("turns", TurnKey(1, 2), std::nullopt);
  EXPECT_THAT(ProblemsWith(1, 2),
              ElementsAre("conversation " + Masked("a") +
                              " has lost its turns behind number 1 of 3: turn 2 is "
                              "not there",
                          "2 records of requests told of turns that are not there"));
  Restore();
  Write("turns", TurnKey(1, 3), std::nullopt);
  EXPECT_EQ(ProblemsWith(2, 2).size(), 2u);
  Restore();
  for (const uint32_t turn : {1u, 2u, 3u}) Write("turns", TurnKey(1, turn), std::nullopt);
  EXPECT_THAT(ProblemsWith(0, 2),
              ElementsAre("conversation " + Masked("a") + " is lost: turn 1 is not there",
                          "3 records of requests told of turns that are not there"));
}

TEST_F(TurnFileDamage, BasesInACircle) {
  const auto problem = [&](uint32_t turn, uint32_t base) {
    Restore();
    ChangeTurn(1, turn, [&](TurnRecord& record) { record.base = base; });
    return ProblemsWith(turn - 1, 2)[0];
  };
  for (const uint32_t turn : {1u, 2u, 3u})
    for (const uint32_t base : {turn, turn + 1, ~0u})
      EXPECT_THAT(problem(turn, base), HasSubstr("is based on itself or a later one"));
}

TEST_F(TurnFileDamage, CountsThatOverflow) {
  const auto problem = [&](const std::function<void(TurnRecord&)>& change) {
    Restore();
    ChangeTurn(1, 2, change);
    return ProblemsWith(1, 2)[0];
  };
  EXPECT_THAT(problem([](TurnRecord& r) { r.base_tokens = ~0u; }), HasSubstr("more tokens"));
  EXPECT_THAT(problem([](TurnRecord& r) { r.base_messages = ~0u; }), HasSubstr("more messages"));
  EXPECT_THAT(problem([](TurnRecord& r) { r.prompt_tokens = ~0u; }), HasSubstr("a prompt of"));
  EXPECT_THAT(problem([](TurnRecord& r) { r.drawn.clear(); }), HasSubstr("are drawn"));
  EXPECT_THAT(problem([](TurnRecord& r) { r.message_hashes.clear(); }), HasSubstr("hashes"));
  EXPECT_THAT(problem([](TurnRecord& r) { r.schedule.segments.clear(); }), HasSubstr("schedule"));
}

// A record that is right for itself, of what is not so.
TEST_F(TurnFileDamage, AConversationThatSaysOtherwise) {
  const std::string key = ConversationKey(1, "a");
  auto record = RecordOf<ConversationRecord>("conversations", key);
  record.tokens = 1;
  Put("conversations", key, record);
  EXPECT_THAT(ProblemsWith(3, 2), ElementsAre("conversation " + Masked("a") +
                                              " has all of its turns; corrected: "
                                              "its record said otherwise"));
  Restore();
  record.turns = 2;  // and one turn is too many
  Put("conversations", key, record);
  EXPECT_THAT(ProblemsWith(2, 2)[0], HasSubstr("turn 3 is one too many"));
  Restore();
  record.turns = 4;
  Put("conversations", key, record);
  EXPECT_THAT(ProblemsWith(3, 2)[0], HasSubstr("behind number 3 of 4: turn 4 is not there"));
  Restore();
  record.serial = 2;  // those of "b": that it is "b" that is lost is as good
  Put("conversations", key, record);
  std::vector<std::string> problems;
  auto file = OpenTurns(path_);
  EXPECT_THAT(file->problems()[0],
              HasSubstr("conversation " + Masked("b") + " is lost: its turns are another"));
}

TEST_F(TurnFileDamage, KeysThatAreNone) {
  Put("conversations", "short",
      RecordOf<ConversationRecord>("conversations", ConversationKey(1, "a")));
  Put("conversations", ConversationKey(1, ""), ConversationRecord{});
  Put("conversations", ConversationKey(1, std::string(129, 'x')), ConversationRecord{});
  Put("turns", "x", TurnRecord{});
  Put("requests", "y", RequestRecord{});
  EXPECT_EQ(ProblemsWith(3, 2).size(), 5u);
  EXPECT_EQ(Read("requests").size(), 6u);  // with that of the turn that was added
}

TEST_F(TurnFileDamage, RequestsThatPointNowhere) {
  const std::string key = RequestKey(1000, 0);
  for (const RequestRecord& record :
       {RequestRecord{1, "a", 9, 1}, RequestRecord{1, "a", 1, 4}, RequestRecord{1, "a", 1, 0},
        RequestRecord{1, "b", 1, 1}, RequestRecord{2, "a", 1, 1}, RequestRecord{1, "a", 1, 1}}) {
    Restore();
    Put("requests", key, record);
    EXPECT_THAT(ProblemsWith(3, 2),
                ElementsAre("1 records of requests told of turns that are not there"));
    EXPECT_EQ(Read("requests").count(key), 0u);
  }
}

// The serial of turns without a conversation is not used for the next one.
TEST_F(TurnFileDamage, TurnsWithoutAConversation) {
  Put("turns", TurnKey(40, 1), TurnRecord{});
  Put("turns", TurnKey(40, 2), TurnRecord{});
  EXPECT_THAT(ProblemsWith(3, 2),
              ElementsAre("turns of number 40 are lost: their conversation's record is not there",
                          "the counter of conversations is too low"));
  auto file = OpenTurns(path_);
  CommitTurns(file.get(), "c", 1, 100);
  file.reset();
  EXPECT_EQ(RecordOf<ConversationRecord>("conversations", ConversationKey(1, "c")).serial, 41u);
}

TEST_F(TurnFileDamage, ProblemsAreBounded) {
  for (int i = 0; i < 30; ++i)
    Write("conversations", ConversationKey(5, "bad\n" + std::to_string(i)), "damaged");
  const auto problems = ProblemsWith(3, 2);
  ASSERT_EQ(problems.size(), limits::kSnapshotProblemsShown + 1);
  EXPECT_EQ(problems[0], "conversation " + Masked("bad\n0") +
                             " is lost: a conversation record has 7 bytes, fewer than its header");
  EXPECT_EQ(problems.back(), "and 10 more");
}

// Of the file, not of a record: what LMDB finds records by may lead anywhere.
TEST_F(TurnFileDamage, APageOfTheFile) {
  const auto pages = static_cast<std::streamoff>(std::filesystem::file_size(whole_) / 4096);
  std::mt19937 random(1);
  size_t refused = 0, read = 0;
  const auto expect_truth = [&] {
    for (int time = 0; time < 2; ++time) {
      auto file = TurnFile::Open(OptionsOf(path_));
      if (!file) {
        EXPECT_EQ(file.error().code, ErrorCode::io_error);
        ++refused;
        return;
      }
      for (const StoredConversation& found : (*file)->TakeConversations()) {
        const auto& turns = found.id == "a" ? a_ : b_;
        ASSERT_LE(found.turns, turns.size());
        EXPECT_EQ(Text(*(*file)->Load(1, found.id)), Text(turns[found.turns - 1]));
        ++read;
      }
      if (time == 0) continue;
      EXPECT_EQ((*file)->problems(), std::vector<std::string>{});
      // The list of free pages may be damaged: that is found out now.
      const auto stored = (*file)->Commit({1, "c", true, ""}, FirstTurn(99));
      EXPECT_TRUE(stored || stored.error().code == ErrorCode::io_error);
    }
  };
  for (std::streamoff page = 0; page < pages && !HasFailure(); ++page) {
    for (const char filler : {'\0', '\xff', '\1'}) {
      Restore();
      std::fstream(path_, std::ios::in | std::ios::out | std::ios::binary)
          .seekp(page * 4096)
          .write(std::string(4096, filler).data(), 4096);
      expect_truth();
    }
  }
  for (int i = 0; i < 200 && !HasFailure(); ++i) {
    Restore();
    {
      std::fstream out(path_, std::ios::in | std::ios::out | std::ios::binary);
      for (int bytes = 0; bytes < 20; ++bytes)
        out.seekp(static_cast<std::streamoff>(random() % (pages * 4096)))
            .put(static_cast<char>(random()));
    }
    expect_truth();
  }
  EXPECT_GT(read, 100u);
  EXPECT_LT(refused, 10u);
}

// What becomes damaged while the file is open.
TEST_F(TurnFileDamage, WhileItIsOpen) {
  auto file = OpenTurns(path_);
  // Through its own environment, as its database numbers are.
  const std::string key = TurnKey(1, 2);
  ASSERT_TRUE(file->environment()
                  .Write([&](Transaction& transaction) {
                    return transaction.Put(file->environment().database(1), key, "damaged");
                  })
                  .has_value());
  const auto code = [](const auto& result) {
    return result ? ErrorCode::internal : result.error().code;
  };
  EXPECT_EQ(code(file->Load(1, "a", 2)), ErrorCode::io_error);
  EXPECT_EQ(code(file->Load(1, "a", 3)), ErrorCode::io_error);
  EXPECT_EQ(Text(*file->Load(1, "a", 1)), Text(a_[0]));
  EXPECT_EQ(code(file->Commit({1, "a", true, ""}, NextTurn(a_[2], 50))), ErrorCode::io_error);
  EXPECT_EQ(code(file->Turns(1, "a")), ErrorCode::io_error);
  EXPECT_EQ(code(file->Fork(1, "a", 3, "fork", 0)), ErrorCode::io_error);
  EXPECT_EQ(file->Rewind(1, "a", 1)->turns, 1u);
  ASSERT_TRUE(file->Commit({1, "a", true, ""}, a_[1]).has_value());
  file.reset();
  EXPECT_THAT(ProblemsWith(2, 2), ElementsAre());
  Restore();
  file = OpenTurns(path_);
  ASSERT_TRUE(file->environment()
                  .Write([&](Transaction& transaction) {
                    return transaction.Put(file->environment().database(1), key, "damaged");
                  })
                  .has_value());
  ASSERT_TRUE(file->Delete(1, "a").has_value());
  file.reset();
  EXPECT_EQ(Read("requests").size(), 2u);
  EXPECT_THAT(ProblemsWith(0, 2), ElementsAre());
}

}  // namespace
}  // namespace perdure::snapshot
