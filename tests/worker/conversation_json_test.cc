#include "worker/conversation_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "base/json.h"
#include "base/limits.h"
#include "worker/message_hashes.h"

namespace perdure::worker {
namespace {

constexpr int32_t kVocab = 1000;

snapshot::StoredTurn Turn() {
  snapshot::StoredTurn turn;
  turn.messages = {R"({"role":"system","content":"Be brief."})",
                   R"({"role":"user","content":"Hello"})",
                   R"({"role":"assistant","content":"Hi."})"};
  turn.message_hashes = {0, 5, 6};
  turn.ids = {1, 2, 3, 4, 5, 999};
  turn.drawn = {false, false, true, false, true, true};
  turn.prompt_tokens = 4;
  turn.schedule.type = "mine";
  turn.schedule.segments = {{0, 16, 0, 0}, {64, 8, 4, 100}};
  turn.schedule.chunk_size = 64;
  turn.schedule.pinned = true;
  turn.fingerprint = 0xFEDCBA9876543210;
  return turn;
}
snapshot::StoredConversation Conversation() {
  snapshot::StoredConversation conversation;
  conversation.id = "a \"name\"";
  conversation.created_unix_ms = 1'000'500;
  conversation.used_unix_ms = 2'000'500;
  conversation.turns = 2;
  conversation.tokens = 6;
  conversation.user = "anna";
  return conversation;
}
Json Document() { return ConversationJson(Conversation(), Turn(), {}, true); }

TEST(ConversationJson, TellsWhatPeopleLookFor) {
  const Json json = ConversationJson(Conversation());
  EXPECT_EQ(json["id"], "a \"name\"");
  EXPECT_EQ(json["object"], "conversation");
  EXPECT_EQ(json["created_at"], 1000);
  EXPECT_EQ(json["last_used_at"], 2000);
  EXPECT_EQ(json["turns"], 2);
  EXPECT_EQ(json["user"], "anna");
  snapshot::TurnSummary summary;
  summary.turn = 1;
  summary.prompt_tokens = 3;
  summary.answer_tokens = 1;
  const Json whole = ConversationJson(Conversation(), Turn(), {summary}, false);
  EXPECT_EQ(whole["messages"].size(), 3u);
  EXPECT_EQ(whole["messages"][2]["content"], "Hi.");
  EXPECT_EQ(whole["history"][0]["answer_tokens"], 1);
  EXPECT_EQ(whole["cache"]["segments"][1]["bits"], 8);
  EXPECT_FALSE(whole.contains("token_ids"));
}

TEST(ConversationJson, OperatorsAreToldTheTenant) {
  snapshot::StoredConversation conversation = Conversation();
  conversation.owner = 0xabc;
  EXPECT_FALSE(ConversationJson(conversation).contains("tenant"));
  EXPECT_EQ(ConversationJson(conversation, true)["tenant"], "0000000000000abc");
}

TEST(ConversationJson, ComesBackAsItWas) {
  const auto imported = ParseConversation(DumpJson(Document()), kVocab, 100);
  ASSERT_TRUE(imported) << imported.error().message;
  const snapshot::StoredTurn turn = Turn();
  EXPECT_EQ(imported->owner.id, "a \"name\"");
  EXPECT_EQ(imported->owner.user, "anna");
  EXPECT_EQ(imported->owner.named, Conversation().named);
  EXPECT_EQ(imported->turn.messages, turn.messages);
  EXPECT_EQ(imported->turn.ids, turn.ids);
  EXPECT_EQ(imported->turn.drawn, turn.drawn);
  EXPECT_EQ(imported->turn.prompt_tokens, turn.prompt_tokens);
  EXPECT_EQ(imported->turn.schedule, turn.schedule);
  EXPECT_EQ(imported->turn.fingerprint, turn.fingerprint);
  // A system message at the beginning has no hash of its own.
  const auto hashes = MessageHashes(DumpJson(Json{{"messages", Document()["messages"]}}));
  ASSERT_EQ(hashes.size(), 2u);
  EXPECT_EQ(imported->turn.message_hashes, (std::vector<uint64_t>{0, hashes[0], hashes[1]}));
}

TEST(ConversationJson, RefusesWhatIsNoConversation) {
  using Change = std::function<void(Json*)>;
  for (const Change& change : {
           Change([](Json* j) { *j = Json::array(); }),
           Change([](Json* j) { (*j)["document_version"] = 2; }),
           Change([](Json* j) { j->erase("document_version"); }),
           Change([](Json* j) { (*j)["id"] = ""; }),
           Change(
               [](Json* j) { (*j)["id"] = std::string(limits::kConversationIdBytesMax + 1, 'x'); }),
           Change([](Json* j) { (*j)["id"] = 7; }),
           Change([](Json* j) { (*j)["messages"] = "no"; }),
           Change([](Json* j) {
             (*j)["messages"][0] = {1e14, 1e14};
           }),
           Change([](Json* j) { (*j)["id"] = "two\nlines"; }),
           Change([](Json* j) { (*j)["user"] = std::string(1000, 'x'); }),
           Change([](Json* j) {
             (*j)["token_ids"] = std::vector<int>(101, 1);
             (*j)["drawn_runs"] = {101};
           }),
           Change([](Json* j) { (*j)["messages"] = Json::array(); }),
           Change([](Json* j) { j->erase("token_ids"); }),
           Change([](Json* j) { (*j)["token_ids"][2] = kVocab; }),
           Change([](Json* j) { (*j)["token_ids"][2] = -1; }),
           Change([](Json* j) { (*j)["token_ids"][2] = "x"; }),
           Change([](Json* j) { (*j)["drawn_runs"] = {1}; }),
           Change([](Json* j) {
             (*j)["drawn_runs"] = {3, 4};
           }),
           Change([](Json* j) { (*j)["drawn_runs"] = {uint64_t{1} << 62}; }),
           Change([](Json* j) { (*j)["prompt_tokens"] = 7; }),
           Change([](Json* j) { (*j)["fingerprint"] = "no"; }),
           Change([](Json* j) { (*j)["cache"]["segments"][0]["bits"] = 5; }),
           Change([](Json* j) { (*j)["cache"]["segments"] = Json::array(); }),
           Change([](Json* j) { j->erase("cache"); }),
       }) {
    Json document = Document();
    change(&document);
    const auto imported = ParseConversation(DumpJson(document), kVocab, 100);
    ASSERT_FALSE(imported) << document;
    EXPECT_EQ(imported.error().code, ErrorCode::invalid_request);
  }
  EXPECT_FALSE(ParseConversation("{", kVocab, 100));
}

}  // namespace
}  // namespace perdure::worker
