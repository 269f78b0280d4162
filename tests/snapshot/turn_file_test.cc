// A file of turns as its owner uses it.
#include "snapshot/turn_file.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "base/limits.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/raw_lmdb.h"
#include "tests/snapshot/turns.h"

namespace perdure::snapshot {
namespace {

class TurnFileTest : public testing::Test {
 protected:
  TurnFileTest() { Reopen(); }
  void Reopen() {
    file_.reset();
    file_ = OpenTurns(path_);
    ASSERT_NE(file_, nullptr);
    EXPECT_EQ(file_->problems(), std::vector<std::string>{});
  }
  // What Open finds, by id.
  std::string Found() {
    Reopen();
    std::vector<StoredConversation> found = file_->TakeConversations();
    std::ranges::sort(found, {}, &StoredConversation::id);
    std::string text;
    for (const StoredConversation& conversation : found) text += Text(conversation) + '\n';
    return text;
  }
  size_t Records(const std::string& database) {
    file_.reset();
    const size_t records = ReadRaw(path_, database).size();
    Reopen();
    return records;
  }

  TempFolder folder_;
  const std::filesystem::path path_ = folder_.path() / "turns.mdb";
  std::unique_ptr<TurnFile> file_;
};

TEST_F(TurnFileTest, WhatWasStoredIsFoundAgain) {
  const StoredTurn first = FirstTurn(10), second = NextTurn(first, 11);
  const auto begun = file_->Commit({3, "mine", true, "anna"}, first);
  ASSERT_TRUE(begun.has_value()) << begun.error().message;
  const std::string hash = fmt::format("{:x}", first.message_hashes.back());
  EXPECT_EQ(Text(*begun),
            "3 mine named true created 1700000000010 used 1700000000010 turns 1 tokens 9 "
            "messages 2 " +
                hash + " for anna");
  const auto gone_on = file_->Commit({3, "mine", false, ""}, second);
  ASSERT_TRUE(gone_on.has_value()) << gone_on.error().message;
  EXPECT_EQ(gone_on->turns, 2u);
  EXPECT_EQ(gone_on->created_unix_ms, first.unix_ms);
  EXPECT_EQ(gone_on->used_unix_ms, second.unix_ms);
  EXPECT_TRUE(gone_on->named);
  EXPECT_EQ(gone_on->user, "anna");
  // The same id of another owner is another conversation.
  ASSERT_TRUE(file_->Commit({4, "mine", false, ""}, FirstTurn(12)).has_value());
  EXPECT_EQ(Found().substr(0, Text(*gone_on).size()), Text(*gone_on));
  ExpectTurns(file_.get(), 3, "mine", {first, second});
  ExpectTurns(file_.get(), 4, "mine", {FirstTurn(12)});
}

TEST_F(TurnFileTest, TheFileIsItsOwnersAlone) {
  struct stat st {};
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_F(TurnFileTest, AnAnswerIsStoredOnce) {
  const auto turns = CommitTurns(file_.get(), "mine", 2, 10);
  const std::string before = Found();
  for (const StoredTurn& turn : turns) {
    StoredTurn again = turn;
    again.ids.push_back(1);
    again.drawn.push_back(true);
    const auto stored = file_->Commit({1, "mine", true, ""}, again);
    ASSERT_TRUE(stored.has_value());
    EXPECT_EQ(Text(*stored) + '\n', before);
    // As that of the conversation that has it, whatever else is said.
    const auto elsewhere = file_->Commit({1, "other", true, ""}, again);
    ASSERT_TRUE(elsewhere.has_value());
    EXPECT_EQ(elsewhere->id, "mine");
  }
  EXPECT_EQ(Found(), before);
  ExpectTurns(file_.get(), 1, "mine", turns);
  // Another choice of the same request is another answer.
  StoredTurn other = turns[1];
  ++other.choice;
  ASSERT_TRUE(file_->Commit({1, "mine", true, ""}, other).has_value());
  ExpectTurns(file_.get(), 1, "mine", {turns[0], turns[1], other});
}

TEST_F(TurnFileTest, LongConversationsAreReadInBoundedSteps) {
  const auto turns = CommitTurns(file_.get(), "long", 2 * limits::kTurnChainMax + 3, 1000);
  ExpectTurns(file_.get(), 1, "long", turns);
  file_.reset();
  size_t alone = 0, number = 0;
  for (const auto& [key, value] : ReadRaw(path_, "turns")) {
    const auto record = Unseal<TurnRecord>(key, value);
    ASSERT_TRUE(record.has_value());
    EXPECT_EQ(record->base, number % limits::kTurnChainMax == 0 ? 0 : number);
    alone += record->base == 0;
    ++number;
  }
  EXPECT_EQ(alone, 3u);
  Reopen();
  ExpectTurns(file_.get(), 1, "long", turns);
}

TEST_F(TurnFileTest, AConversationCanTurnElsewhere) {
  const StoredTurn first = FirstTurn(1), second = NextTurn(first, 2);
  StoredTurn shorter = NextTurn(first, 3);  // its beginning is `first`'s, not `second`'s
  StoredTurn strange = FirstTurn(4);
  StoredTurn text = strange;  // a completion has no messages
  text.rid = 5;
  text.messages.clear();
  text.message_hashes.clear();
  StoredTurn empty;
  empty.rid = 6;
  std::vector<StoredTurn> turns = {first, second, shorter, strange, text, empty, first};
  turns.back().rid = 7;
  for (const StoredTurn& turn : turns)
    ASSERT_TRUE(file_->Commit({1, "mine", true, ""}, turn).has_value());
  ExpectTurns(file_.get(), 1, "mine", turns);
  Reopen();
  ExpectTurns(file_.get(), 1, "mine", turns);
}

TEST_F(TurnFileTest, WhatIsTooLongIsNotStored) {
  const auto code = [&](const TurnOwner& owner, const StoredTurn& turn) {
    const auto stored = file_->Commit(owner, turn);
    return stored ? ErrorCode::internal : stored.error().code;
  };
  const StoredTurn turn = FirstTurn(1);
  EXPECT_EQ(code({1, "", true, ""}, turn), ErrorCode::invalid_request);
  EXPECT_EQ(code({1, std::string(129, 'x'), true, ""}, turn), ErrorCode::invalid_request);
  EXPECT_EQ(code({1, "a", true, std::string(257, 'x')}, turn), ErrorCode::invalid_request);
  StoredTurn many = turn;
  many.messages.resize(limits::kTurnMessagesMax + 1);
  many.message_hashes.resize(limits::kTurnMessagesMax + 1);
  EXPECT_EQ(code({1, "a", true, ""}, many), ErrorCode::invalid_request);
  StoredTurn schedule = turn;
  schedule.schedule.segments.clear();
  EXPECT_EQ(code({1, "a", true, ""}, schedule), ErrorCode::invalid_request);
  EXPECT_EQ(Found(), "");
  EXPECT_TRUE(
      file_->Commit({1, std::string(128, 'x'), true, std::string(256, 'x')}, turn).has_value());
}

TEST_F(TurnFileTest, WhereThereIsNone) {
  CommitTurns(file_.get(), "mine", 2, 1);
  const auto code = [](const auto& result) {
    return result ? ErrorCode::internal : result.error().code;
  };
  EXPECT_EQ(code(file_->Load(1, "other")), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Load(2, "mine")), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Load(1, "mine", 3)), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Turns(1, "other")), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Rewind(1, "mine", 0)), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Rewind(1, "mine", 3)), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Rewind(1, "other", 1)), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Fork(1, "mine", 3, "new", 0)), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Fork(1, "other", 1, "new", 0)), ErrorCode::not_found);
  EXPECT_EQ(code(file_->Fork(1, "mine", 1, "mine", 0)), ErrorCode::invalid_request);
  EXPECT_EQ(code(file_->Fork(1, "mine", 1, "", 0)), ErrorCode::invalid_request);
  EXPECT_TRUE(file_->Delete(1, "other").has_value());
}

TEST_F(TurnFileTest, AForkIsAConversationOfItsOwn) {
  const auto turns = CommitTurns(file_.get(), "mine", 3, 10);
  const auto fork = file_->Fork(1, "mine", 2, "fork", 1'800'000'000'000);
  ASSERT_TRUE(fork.has_value()) << fork.error().message;
  EXPECT_EQ(fork->turns, 2u);
  EXPECT_EQ(fork->created_unix_ms, 1'800'000'000'000);
  EXPECT_EQ(fork->used_unix_ms, 1'800'000'000'000);
  EXPECT_EQ(fork->tokens, turns[1].ids.size());
  EXPECT_EQ(fork->messages_hash, turns[1].message_hashes.back());
  ExpectTurns(file_.get(), 1, "fork", {turns[0], turns[1]});
  const StoredTurn other = NextTurn(turns[1], 50);
  ASSERT_TRUE(file_->Commit({1, "fork", true, ""}, other).has_value());
  ASSERT_TRUE(file_->Rewind(1, "mine", 1).has_value());
  Reopen();
  ExpectTurns(file_.get(), 1, "fork", {turns[0], turns[1], other});
  ExpectTurns(file_.get(), 1, "mine", {turns[0]});
  // Of a fork's turns no request tells: what is forgotten with it is not the original's.
  ASSERT_TRUE(file_->Delete(1, "fork").has_value());
  EXPECT_EQ(Records("requests"), 1u);
  EXPECT_EQ(Records("turns"), 1u);
  EXPECT_EQ(file_->Commit({1, "mine", true, ""}, turns[0])->turns, 1u);
}

TEST_F(TurnFileTest, RewindForgets) {
  const auto turns = CommitTurns(file_.get(), "mine", 4, 10);
  const auto rewound = file_->Rewind(1, "mine", 2);
  ASSERT_TRUE(rewound.has_value());
  EXPECT_EQ(rewound->turns, 2u);
  EXPECT_EQ(rewound->used_unix_ms, turns[1].unix_ms);
  EXPECT_EQ(rewound->tokens, turns[1].ids.size());
  EXPECT_EQ(Text(*rewound) + '\n', Found());
  ExpectTurns(file_.get(), 1, "mine", {turns[0], turns[1]});
  EXPECT_EQ(Records("requests"), 2u);
  // The same request's answer may come once more.
  ASSERT_TRUE(file_->Commit({1, "mine", true, ""}, turns[3]).has_value());
  ExpectTurns(file_.get(), 1, "mine", {turns[0], turns[1], turns[3]});
  EXPECT_EQ(file_->Rewind(1, "mine", 3)->turns, 3u);
}

TEST_F(TurnFileTest, DeleteLeavesNothing) {
  CommitTurns(file_.get(), "mine", 3, 10);
  const auto others = CommitTurns(file_.get(), "other", 2, 20);
  ASSERT_TRUE(file_->Delete(1, "mine").has_value());
  EXPECT_EQ(Records("conversations"), 1u);
  EXPECT_EQ(Records("turns"), 2u);
  EXPECT_EQ(Records("requests"), 2u);
  ExpectTurns(file_.get(), 1, "mine", {});
  ExpectTurns(file_.get(), 1, "other", others);
}

TEST_F(TurnFileTest, SerialsAreNeverUsedAgain) {
  CommitTurns(file_.get(), "a", 1, 1);
  CommitTurns(file_.get(), "b", 1, 2);
  ASSERT_TRUE(file_->Delete(1, "b").has_value());
  Reopen();
  CommitTurns(file_.get(), "c", 1, 3);
  file_.reset();
  const std::string key = ConversationKey(1, "c");
  EXPECT_EQ(Unseal<ConversationRecord>(key, ReadRaw(path_, "conversations")[key])->serial, 3u);
}

TEST_F(TurnFileTest, TurnsAreTold) {
  const auto turns = CommitTurns(file_.get(), "mine", limits::kTurnChainMax + 2, 10);
  const auto told = file_->Turns(1, "mine");
  ASSERT_TRUE(told.has_value()) << told.error().message;
  ASSERT_EQ(told->size(), turns.size());
  for (size_t i = 0; i < turns.size(); ++i) {
    const TurnSummary& summary = (*told)[i];
    EXPECT_EQ(summary.turn, i + 1);
    EXPECT_EQ(summary.unix_ms, turns[i].unix_ms);
    EXPECT_EQ(summary.finish, turns[i].finish);
    EXPECT_EQ(summary.choice, turns[i].choice);
    EXPECT_EQ(summary.prompt_tokens, turns[i].prompt_tokens);
    EXPECT_EQ(summary.answer_tokens, i == 0 ? 5u : 3u);
    EXPECT_EQ(summary.messages, std::vector(turns[i].messages.end() - 2, turns[i].messages.end()));
  }
}

std::string BytesOf(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_F(TurnFileTest, CompactLeavesNoTrace) {
  StoredTurn secret = FirstTurn(1);
  secret.messages.back() = R"({"role":"assistant","content":"xyzzy-the-secret"})";
  ASSERT_TRUE(file_->Commit({1, "mine", true, ""}, secret).has_value());
  const auto kept = CommitTurns(file_.get(), "kept", 3, 10);
  ASSERT_TRUE(file_->environment().Sync().has_value());
  EXPECT_NE(BytesOf(path_).find("xyzzy"), std::string::npos);
  ASSERT_TRUE(file_->Delete(1, "mine").has_value());
  const Status compacted = file_->Compact();
  ASSERT_TRUE(compacted.has_value()) << compacted.error().message;
  EXPECT_EQ(BytesOf(path_).find("xyzzy"), std::string::npos);
  ExpectTurns(file_.get(), 1, "kept", kept);
  // It goes on in the new file.
  const auto more = CommitTurns(file_.get(), "more", 2, 20);
  Reopen();
  ExpectTurns(file_.get(), 1, "kept", kept);
  ExpectTurns(file_.get(), 1, "more", more);
  EXPECT_EQ(BytesOf(path_).find("xyzzy"), std::string::npos);
}

TEST_F(TurnFileTest, AFullFileIsToldAndGoesOn) {
  file_.reset();
  auto opened = TurnFile::Open(
      {.file = folder_.path() / "small.mdb", .model = "nano", .bytes_max = 512 << 10});
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  StoredTurn turn = FirstTurn(1);
  turn.messages.front().assign(50'000, 'x');
  uint32_t stored = 0;
  for (; stored < 1000; ++stored) {
    turn.rid = stored;
    if (!(*opened)->Commit({1, std::to_string(stored), true, ""}, turn)) break;
  }
  ASSERT_GT(stored, 2u);
  ASSERT_LT(stored, 1000u);
  EXPECT_EQ((*opened)->environment().last_failure(), Environment::Failure::kFull);
  EXPECT_FALSE((*opened)->Load(1, std::to_string(stored)).has_value());
  for (uint32_t i = 0; i < stored / 2; ++i)
    ASSERT_TRUE((*opened)->Delete(1, std::to_string(i)).has_value());
  const auto again = (*opened)->Commit({1, "again", true, ""}, turn);
  EXPECT_TRUE(again.has_value()) << again.error().message;
}

// --- Several, and what is left of them ---------------------------------------------------------

TEST_F(TurnFileTest, ManyAreDeletedAtOnceOrNone) {
  CommitTurns(file_.get(), "a", 2, 10);
  CommitTurns(file_.get(), "b", 1, 20);
  const auto others = CommitTurns(file_.get(), "other", 2, 30);
  using Names = std::vector<std::pair<uint64_t, std::string>>;
  EXPECT_FALSE(file_->Delete(Names{{1, "a"}, {1, ""}}).has_value());
  EXPECT_EQ(Records("conversations"), 3u);
  EXPECT_FALSE(file_->environment().needs_scrub());
  ASSERT_TRUE(file_->Delete(Names{{1, "a"}, {7, "other"}, {1, "b"}, {1, "none"}}).has_value());
  EXPECT_TRUE(file_->environment().needs_scrub());
  EXPECT_EQ(Records("conversations"), 1u);
  EXPECT_EQ(Records("turns"), 2u);
  EXPECT_EQ(Records("requests"), 2u);
  ExpectTurns(file_.get(), 1, "other", others);
}

TEST_F(TurnFileTest, WhereNothingWasDeletedNothingIsToBeScrubbed) {
  CommitTurns(file_.get(), "mine", 2, 10);
  ASSERT_TRUE(file_->Delete(1, "none").has_value());
  ASSERT_TRUE(file_->Rewind(1, "mine", 2).has_value());
  EXPECT_FALSE(file_->environment().needs_scrub());
  ASSERT_TRUE(file_->Rewind(1, "mine", 1).has_value());
  EXPECT_TRUE(file_->environment().needs_scrub());
}

TEST_F(TurnFileTest, ChainsAreTheTokensOfAllTurns) {
  const auto turns = CommitTurns(file_.get(), "mine", 3, 10);
  const auto chains = file_->ReadChains(1, "mine", 1, 0, 1'000'000);
  ASSERT_TRUE(chains.has_value()) << chains.error().message;
  EXPECT_EQ(chains->next, 0u);
  ASSERT_EQ(chains->chains.size(), 1u) << "each begins with the one before";
  const TurnChain& chain = chains->chains[0];
  EXPECT_EQ(chain.ids, turns[2].ids);
  EXPECT_EQ(chain.ends, (std::vector<uint32_t>{9, 15, 21}));
  EXPECT_EQ(chain.schedule, turns[2].schedule);
  EXPECT_EQ(chain.fingerprint, turns[2].fingerprint);
  EXPECT_EQ(chain.numerics, turns[2].numerics);
  // Of some of them.
  const auto last = file_->ReadChains(1, "mine", 3, 0, 1'000'000);
  ASSERT_EQ(last->chains.size(), 1u);
  EXPECT_EQ(last->chains[0].ids, turns[2].ids);
  EXPECT_EQ(last->chains[0].ends, std::vector<uint32_t>{21});
  EXPECT_EQ(file_->ReadChains(1, "mine", 1, 2, 1'000'000)->chains.back().ids, turns[1].ids);
  EXPECT_TRUE(file_->ReadChains(1, "mine", 4, 0, 1'000'000)->chains.empty());
  EXPECT_EQ(file_->ReadChains(1, "none", 1, 0, 1'000'000).error().code, ErrorCode::not_found);
}

TEST_F(TurnFileTest, ChainsThatBranchOrAreKeptOtherwiseStandForThemselves) {
  StoredTurn turn = FirstTurn(1);
  std::vector<StoredTurn> turns{turn};
  turn = NextTurn(turn, 2);
  turns.push_back(turn);
  turn.rid = 3;
  turn.ids[5] = 77;  // edited
  turns.push_back(turn);
  turn = NextTurn(turn, 4);
  turn.fingerprint = 99;  // other weights
  turns.push_back(turn);
  turn = NextTurn(turn, 5);
  turn.schedule.segments[0].bits = 8;
  turns.push_back(turn);
  for (const StoredTurn& each : turns)
    ASSERT_TRUE(file_->Commit({1, "mine", true, ""}, each).has_value());
  const auto chains = file_->ReadChains(1, "mine", 1, 0, 1'000'000);
  ASSERT_TRUE(chains.has_value());
  ASSERT_EQ(chains->chains.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(chains->chains[i].ids, turns[i + 1].ids) << i;
  EXPECT_EQ(chains->chains[0].ends.size(), 2u);
  EXPECT_EQ(chains->chains[2].fingerprint, 99u);
  EXPECT_EQ(chains->chains[3].schedule.segments[0].bits, 8);
}

TEST_F(TurnFileTest, ChainsOfMoreTurnsThanARecordHasBasesAreReadInPortions) {
  const auto turns = CommitTurns(file_.get(), "mine", limits::kTurnChainMax + 20, 10);
  uint32_t from = 1, portions = 0;
  std::vector<uint32_t> ends;
  do {
    const auto part = file_->ReadChains(1, "mine", from, 0, 50);
    ASSERT_TRUE(part.has_value());
    for (const TurnChain& chain : part->chains) {
      EXPECT_TRUE(
          std::ranges::equal(chain.ids, std::span(turns.back().ids).first(chain.ids.size())));
      ends.insert(ends.end(), chain.ends.begin(), chain.ends.end());
    }
    EXPECT_TRUE(part->next == 0 || part->next > from);
    from = part->next;
    ++portions;
  } while (from != 0);
  EXPECT_GT(portions, 10u);
  ASSERT_EQ(ends.size(), turns.size());
  for (size_t i = 0; i < turns.size(); ++i) EXPECT_EQ(ends[i], turns[i].ids.size());
}

TEST_F(TurnFileTest, ChainsOfATurnThatCannotBeReadAreLeftOut) {
  const auto turns = CommitTurns(file_.get(), "mine", 2, 10);
  StoredTurn other = FirstTurn(30);
  for (TokenId& id : other.ids) id += 500;  // it begins anew
  ASSERT_TRUE(file_->Commit({1, "mine", true, ""}, other).has_value());
  ASSERT_TRUE(file_->environment()
                  .Write([&](Transaction& transaction) {
                    return transaction.Put(file_->environment().database(1), TurnKey(1, 2), "x");
                  })
                  .has_value());
  const auto chains = file_->ReadChains(1, "mine", 1, 0, 1'000'000);
  ASSERT_TRUE(chains.has_value()) << chains.error().message;
  ASSERT_EQ(chains->chains.size(), 2u);
  EXPECT_EQ(chains->chains[0].ids, turns[0].ids);
  EXPECT_EQ(chains->chains[1].ids, other.ids);
}

}  // namespace
}  // namespace perdure::snapshot
