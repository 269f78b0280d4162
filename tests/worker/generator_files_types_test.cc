// What a file of a conversation is worth on another server, for every type of cache: little is
// computed again, and the answer is that of a conversation which was never disturbed.
#include <gtest/gtest.h>

#include <string>

#include "tests/worker/files_fixture.h"

namespace perdure::worker {
namespace {

CacheChoice Composed() {
  CacheChoice cache = OfType("kv");
  cache.then = {{64, Quantized(8).settings}, {128, Rotating(69, 5).settings}};
  return cache;
}

struct TypeCase {
  const char* name;
  CacheChoice cache;
};

class FilesOfTypeTest : public FilesTest, public testing::WithParamInterface<TypeCase> {
 protected:
  // All but at most a page of what was computed before is read from the disk.
  void ExpectGoesOn(const protocol::Submit& next, size_t history) {
    const protocol::Usage usage = UsageOf(next.rid);
    EXPECT_EQ(usage.from_arena, 0);
    EXPECT_GE(usage.from_snapshot, static_cast<int>(history) - 1 - kPage);
    EXPECT_LE(usage.computed, usage.prompt_tokens - static_cast<int>(history) + 1 + kPage);
    EXPECT_EQ(Answer(next.rid), Cold(next));
  }
};

TEST_P(FilesOfTypeTest, AConversationGoesOnElsewhere) {
  BootServer("here");
  SayHere(AskIn("mine", Text(100, 1), 40, GetParam().cache));
  Ids history = History(last_rid_);
  SayHere(AskIn("mine", history + Text(200, 2), 90));
  const auto ticket = Ticket(last_rid_);
  history = History(last_rid_);
  const UniqueFd file = Export("mine");
  ASSERT_TRUE(file);
  BootServer("there");
  const Json imported = Import(file);
  ASSERT_EQ(imported.value("id", ""), "mine") << imported;
  EXPECT_TRUE(imported["kv"]["used"].get<bool>()) << imported;
  EXPECT_GT(imported["kv"]["pages"].get<int>(), 0);
  EXPECT_FALSE(imported["kv"].contains("reason")) << imported;
  const auto next = AskIn("mine", history + Text(20, 3), 40);
  SayHere(next);
  EXPECT_EQ(Ticket(next.rid).cache, ticket.cache) << "its type is remembered";
  ExpectGoesOn(next, history.size());
  // And once more, from what is in memory and on the disk by now.
  history = History(next.rid);
  const UniqueFd further = Export("mine");
  BootServer("elsewhere");
  ASSERT_TRUE(Import(further, "other")["kv"]["used"].get<bool>());
  const auto last = AskIn("other", history + Text(20, 4), 40);
  SayHere(last);
  ExpectGoesOn(last, history.size());
}

TEST_P(FilesOfTypeTest, ItComesBackAfterItWasDeleted) {
  BootServer("here");
  const Json messages = Json::array({Question(Letters(100, 1))});
  const auto first = AskChat(messages, 200, GetParam().cache);
  SayHere(first);
  const Json heard = Heard(messages, first.rid);
  const size_t history = History(first.rid).size();
  const std::string id = Ticket(first.rid).conversation_id;
  const UniqueFd file = Export(id);
  protocol::ConversationCommand remove;
  remove.rid = ++last_rid_;
  remove.operation = protocol::ConversationOperation::kDelete;
  remove.id = id;
  generator_->Command(remove);
  RunFiles();
  ASSERT_EQ(AnswerOf(remove.rid).value("deleted", false), true);
  EXPECT_TRUE(generator_->conversations().all().empty());
  ASSERT_EQ(Import(file).value("id", ""), id);
  const auto second = AskChat(With(heard, Question(Letters(20, 2))), 40);
  SayHere(second);
  EXPECT_EQ(Ticket(second.rid).conversation_id, id) << "it is recognised";
  ExpectGoesOn(second, history);
}

TEST_P(FilesOfTypeTest, PagesComeFromTheDiskWhereMemoryIsLost) {
  BootServer("here");
  SayHere(AskIn("mine", Text(300, 1), 90, GetParam().cache));
  const Ids history = History(last_rid_);
  BootServer("here");
  const UniqueFd file = Export("mine");
  BootServer("there");
  const Json imported = Import(file);
  EXPECT_TRUE(imported["kv"]["used"].get<bool>()) << imported;
  const auto next = AskIn("mine", history + Text(20, 2), 40);
  SayHere(next);
  ExpectGoesOn(next, history.size());
}

INSTANTIATE_TEST_SUITE_P(
    Types, FilesOfTypeTest,
    testing::Values(TypeCase{"kv", OfType("kv")}, TypeCase{"quantized_8", Quantized(8)},
                    TypeCase{"quantized_4", Quantized(4)}, TypeCase{"rotating_69", Rotating(69, 5)},
                    TypeCase{"rotating_200", Rotating(200, 64)}, TypeCase{"chunked", Chunked(64)},
                    TypeCase{"concatenate", OfType("concatenate_kv")},
                    TypeCase{"composed", Composed()}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace perdure::worker
