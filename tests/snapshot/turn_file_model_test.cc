// A file of turns beside a model of it, a map of whole turns, through thousands of random
// operations and openings.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "base/limits.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/turns.h"

namespace perdure::snapshot {
namespace {

class TwoFiles {
 public:
  explicit TwoFiles(uint64_t seed) : random_(seed) { Reopen(); }

  void Step() {
    switch (Random(24)) {
      case 0:
        Reopen();
        break;
      case 1:
        Fork();
        break;
      case 2:
        Rewind();
        break;
      case 3:
        Delete();
        break;
      case 4:
      case 5:
        CommitAgain();
        break;
      case 6:
        if (Random(10) == 0) {
          EXPECT_TRUE(file_->Compact().has_value());
        }
        break;
      default:
        Commit();
    }
  }
  void CompareAll() {
    for (const auto& [key, conversation] : model_)
      ExpectTurns(file_.get(), key.first, key.second, conversation.turns);
  }
  void Reopen() {
    file_.reset();
    file_ = OpenTurns(folder_.path() / "turns.mdb");
    ASSERT_NE(file_, nullptr);
    EXPECT_EQ(file_->problems(), std::vector<std::string>{});
    std::vector<std::string> found, expected;
    for (const StoredConversation& stored : file_->TakeConversations())
      found.push_back(Text(stored));
    for (const auto& [key, conversation] : model_) expected.push_back(Expected(key));
    std::ranges::sort(found);
    std::ranges::sort(expected);
    EXPECT_EQ(found, expected);
  }

 private:
  using Key = std::pair<uint64_t, std::string>;
  struct Conversation {
    std::vector<StoredTurn> turns;
    std::vector<bool> answered;  // a request tells of the turn
    bool named = false;
    int64_t created = 0, used = 0;
    std::string user;
  };

  int Random(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  Key RandomKey() { return {Random(2), fmt::format("c{}", Random(5))}; }

  std::string Expected(const Key& key) {
    const Conversation& c = model_[key];
    const StoredTurn& last = c.turns.back();
    return Text(StoredConversation{
        key.first, key.second, c.named, c.created, c.used, static_cast<uint32_t>(c.turns.size()),
        static_cast<uint32_t>(last.ids.size()), static_cast<uint32_t>(last.messages.size()),
        last.message_hashes.empty() ? 0 : last.message_hashes.back(), c.user});
  }

  // Goes on with the last turn, or with some of it, or with nothing.
  StoredTurn RandomTurn(const Conversation& conversation) {
    const uint64_t rid = ++rid_;
    if (conversation.turns.empty() || Random(10) == 0) return FirstTurn(rid);
    StoredTurn turn = conversation.turns.back();
    const int change = Random(8);
    if (change == 0)
      turn.ids.resize(static_cast<size_t>(Random(static_cast<int>(turn.ids.size()) + 1)));
    turn.drawn.resize(turn.ids.size());
    if (change == 1 && !turn.ids.empty())
      turn.ids[static_cast<size_t>(Random(static_cast<int>(turn.ids.size())))] ^= 1;
    if (change == 2 && !turn.messages.empty())
      turn.messages[static_cast<size_t>(Random(static_cast<int>(turn.messages.size())))] += ' ';
    if (change == 3) {
      const auto keep = static_cast<size_t>(Random(static_cast<int>(turn.messages.size()) + 1));
      turn.messages.resize(keep);
      turn.message_hashes.resize(keep);
    }
    if (change == 4) turn.drawn.flip();
    return NextTurn(turn, rid);
  }

  void Commit() {
    const Key key = RandomKey();
    Conversation& conversation = model_[key];
    const StoredTurn turn = RandomTurn(conversation);
    const bool named = Random(2) == 0;
    const std::string user = Random(3) == 0 ? "anna" : "";
    const auto stored = file_->Commit({key.first, key.second, named, user}, turn);
    ASSERT_TRUE(stored.has_value()) << stored.error().message;
    if (conversation.turns.empty()) conversation.created = turn.unix_ms;
    conversation.turns.push_back(turn);
    conversation.answered.push_back(true);
    conversation.named |= named;
    conversation.used = turn.unix_ms;
    if (!user.empty()) conversation.user = user;
    EXPECT_EQ(Text(*stored), Expected(key));
  }

  void CommitAgain() {
    const Key key = RandomKey();
    const auto found = model_.find(key);
    if (found == model_.end()) return;
    const auto turn = static_cast<size_t>(Random(static_cast<int>(found->second.turns.size())));
    if (!found->second.answered[turn]) return;
    const auto stored = file_->Commit({1, "whatever", false, "x"}, found->second.turns[turn]);
    ASSERT_TRUE(stored.has_value()) << stored.error().message;
    EXPECT_EQ(Text(*stored), Expected(key));
  }

  void Fork() {
    const Key key = RandomKey(), to{key.first, RandomKey().second};
    const int64_t now = 1'800'000'000'000 + Random(1000);
    const auto found = model_.find(key);
    const auto turn =
        found == model_.end()
            ? 1u
            : static_cast<uint32_t>(1 + Random(static_cast<int>(found->second.turns.size())));
    const auto stored = file_->Fork(key.first, key.second, turn, to.second, now);
    if (found == model_.end() || model_.contains(to)) {
      EXPECT_FALSE(stored.has_value());
      return;
    }
    ASSERT_TRUE(stored.has_value()) << stored.error().message;
    Conversation copy = found->second;
    copy.turns.resize(turn);
    copy.answered.assign(turn, false);
    copy.named = true;
    copy.created = copy.used = now;
    model_[to] = copy;
    EXPECT_EQ(Text(*stored), Expected(to));
  }

  void Rewind() {
    const Key key = RandomKey();
    const auto found = model_.find(key);
    if (found == model_.end()) return;
    Conversation& conversation = found->second;
    const auto turn =
        static_cast<uint32_t>(1 + Random(static_cast<int>(conversation.turns.size())));
    const auto stored = file_->Rewind(key.first, key.second, turn);
    ASSERT_TRUE(stored.has_value()) << stored.error().message;
    if (turn < conversation.turns.size()) conversation.used = conversation.turns[turn - 1].unix_ms;
    conversation.turns.resize(turn);
    conversation.answered.resize(turn);
    EXPECT_EQ(Text(*stored), Expected(key));
  }

  void Delete() {
    if (Random(3) != 0) return;
    const Key key = RandomKey();
    EXPECT_TRUE(file_->Delete(key.first, key.second).has_value());
    model_.erase(key);
  }

  TempFolder folder_;
  std::mt19937_64 random_;
  std::unique_ptr<TurnFile> file_;
  std::map<Key, Conversation> model_;
  uint64_t rid_ = 0;
};

TEST(TurnFileModel, RandomWork) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    SCOPED_TRACE(seed);
    TwoFiles files(seed);
    for (int step = 0; step < 600 && !testing::Test::HasFailure(); ++step) {
      files.Step();
      if (step % 60 == 0) files.CompareAll();
    }
    files.Reopen();
    files.CompareAll();
  }
}

}  // namespace
}  // namespace perdure::snapshot
