// What every type of cache owes a conversation after all memory was lost: little is computed again,
// and the answer is that of a cold run.
#include <gtest/gtest.h>

#include <string>

#include "tests/worker/snapshot_fixture.h"

namespace perdure::worker {
namespace {

constexpr size_t kQuestion = 100;
constexpr int kAnswer = 40;

CacheChoice Composed() {
  CacheChoice cache = OfType("kv");
  cache.then = {{64, Quantized(8).settings}, {128, Rotating(69, 5).settings}};
  return cache;
}

struct RestartCase {
  const char* name;
  CacheChoice cache;
};

class SnapshotRestartTypeTest : public SnapshotTest,
                                public testing::WithParamInterface<RestartCase> {
 protected:
  SnapshotRestartTypeTest() { Boot(256); }
  const CacheChoice& cache() const { return GetParam().cache; }

  // All but at most a page of what was computed before is read.
  void ExpectGoesOn(const protocol::Submit& next, size_t history) {
    const protocol::Usage usage = UsageOf(next.rid);
    EXPECT_EQ(usage.from_arena, 0);
    EXPECT_GE(usage.from_snapshot, static_cast<int>(history) - 1 - kPage);
    EXPECT_LT(usage.from_snapshot, usage.prompt_tokens);
    EXPECT_EQ(computed_, static_cast<size_t>(usage.computed) + Answer(next.rid).size() - 1);
    EXPECT_EQ(Answer(next.rid), Cold(next));
  }
};

TEST_P(SnapshotRestartTypeTest, AChatIsRecognised) {
  const Json messages = Json::array({Question(Letters(kQuestion, 1))});
  const auto first = AskChat(messages, kAnswer, cache());
  Say(first);
  const auto ticket = Ticket(first.rid);
  const size_t history = History(first.rid).size();
  const Json heard = Heard(messages, first.rid);
  Reboot();
  const auto second = AskChat(With(heard, Question(Letters(20, 2))), kAnswer);
  Say(second);
  EXPECT_EQ(Ticket(second.rid).conversation_id, ticket.conversation_id);
  EXPECT_EQ(Ticket(second.rid).cache, ticket.cache) << "its type is remembered";
  ExpectGoesOn(second, history);
  // And so on.
  const size_t longer = History(second.rid).size();
  const Json more = Heard(With(heard, Question(Letters(20, 2))), second.rid);
  Reboot();
  const auto third = AskChat(With(more, Question(Letters(20, 3))), kAnswer);
  Say(third);
  EXPECT_EQ(Ticket(third.rid).conversation_id, ticket.conversation_id);
  ExpectGoesOn(third, longer);
  EXPECT_EQ(disk_.conversations.size(), 1u);
}

TEST_P(SnapshotRestartTypeTest, APlainCompletionIsFoundByItsName) {
  const auto first = AskIn("mine", Text(kQuestion, 1), kAnswer, cache());
  Say(first);
  const auto ticket = Ticket(first.rid);
  const Ids history = History(first.rid);
  Reboot();
  const auto second = AskIn("mine", history + Text(20, 2), kAnswer);
  Say(second);
  EXPECT_EQ(Ticket(second.rid).cache, ticket.cache);
  ExpectGoesOn(second, history.size());
}

TEST_P(SnapshotRestartTypeTest, APromptFarLongerThanAnyWindowIsNotComputedAgain) {
  const auto first = AskIn("mine", Text(700, 1), 300, cache());
  Say(first);
  const Ids history = History(first.rid);
  Reboot();
  const auto second = AskIn("mine", history + Text(20, 2), kAnswer);
  Say(second);
  ExpectGoesOn(second, history.size());
}

TEST_P(SnapshotRestartTypeTest, ManyShortTurnsAreNotComputedAgain) {
  Ids history = Text(20, 1);
  for (int turn = 0; turn < 8; ++turn)
    history = History(Say(AskIn("mine", history + Text(19, turn), 21, cache())));
  Reboot();
  const auto next = AskIn("mine", history + Text(20, 2), kAnswer);
  Say(next);
  ExpectGoesOn(next, history.size());
}

TEST_P(SnapshotRestartTypeTest, AnAnswerGoesOnThoughMemoryIsLost) {
  const auto first = AskIn("mine", Text(kQuestion, 1), kAnswer, cache());
  Say(first);
  const auto second = AskIn("mine", History(first.rid) + Text(30, 2), kAnswer);
  const Ids whole = Cold(second, Ticket(first.rid).cache);
  const size_t history = History(first.rid).size();
  Submit(second);
  for (int i = 0; i < 1000 && Answer(second.rid).size() < 11; ++i) generator_->Step();
  const auto resume = Rest(second, Ticket(second.rid), Answer(second.rid));
  Reboot();
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  Run();
  EXPECT_EQ(Answer(second.rid), whole);
  EXPECT_TRUE(Persisted(second.rid));
  const size_t known = second.request.prompt_ids->size() + 11;
  EXPECT_LE(computed_, known - (history - 1 - kPage) + kAnswer - 11 - 1);
}

INSTANTIATE_TEST_SUITE_P(Types, SnapshotRestartTypeTest,
                         testing::Values(RestartCase{"kv", OfType("kv")},
                                         RestartCase{"quantized_8", Quantized(8)},
                                         RestartCase{"quantized_4", Quantized(4)},
                                         RestartCase{"rotating_69", Rotating(69, 5)},
                                         RestartCase{"rotating_128", Rotating(128, 0)},
                                         RestartCase{"rotating_200", Rotating(200, 64)},
                                         RestartCase{"chunked", Chunked(64)},
                                         RestartCase{"concatenate", OfType("concatenate_kv")},
                                         RestartCase{"composed", Composed()}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace perdure::worker
