// /v1/conversations of a real service: what applications do with conversations on disk.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class ConversationsTest : public testing::Test {
 protected:
  ConversationsTest() { service_.StartReady(); }

  std::string Url(const std::string& rest = "") const {
    return service_.url() + "/v1/conversations" + rest;
  }
  Answer Say(const std::string& id, const std::vector<std::string>& told, int tokens = 12,
             const std::string& user = "") {
    Json messages = Json::array();
    for (size_t i = 0; i < told.size(); ++i)
      messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", told[i]}});
    Json body = {{"messages", messages}, {"conversation_id", id}, {"temperature", 0},
                 {"max_tokens", tokens}, {"ignore_eos", true},    {"user", user}};
    const Answer answer = Chat(service_.url(), body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_EQ(answer.body.value("/timings/cache/stored"_json_pointer, false), true);
    return answer;
  }
  std::vector<std::string> Ids(const std::string& query = "") {
    const Answer list = Get(Url(query));
    EXPECT_EQ(list.status, 200) << list.body;
    std::vector<std::string> ids;
    for (const Json& each : list.body["data"]) ids.push_back(each["id"]);
    return ids;
  }
  bool StandsInFiles(const std::string& text) const {
    for (const char* file : {"turns.mdb", "kv.mdb"}) {
      std::ifstream in(service_.folder() / "state" / "conversations" / "nano" / file,
                       std::ios::binary);
      EXPECT_TRUE(in) << file;
      const std::string bytes{std::istreambuf_iterator<char>(in), {}};
      if (bytes.find(text) != std::string::npos) return true;
    }
    return false;
  }

  Service service_;
};

TEST_F(ConversationsTest, AreListedShownForkedAndRewound) {
  const std::string first = Say("a", {"My name is Anna."}).content();
  const std::string second = Say("a", {"My name is Anna.", first, "What is 2+2?"}).content();
  Say("b", {"Hello"}, 12, "bert");
  EXPECT_THAT(Ids(), UnorderedElementsAre("a", "b"));
  EXPECT_THAT(Ids("?user=bert"), ElementsAre("b"));
  const Answer page = Get(Url("?limit=1"));
  EXPECT_EQ(page.body["has_more"], true);
  EXPECT_EQ(Ids("?limit=1&after=" + page.body["last_id"].get<std::string>()).size(), 1u);

  const Answer whole = Get(Url("/a"));
  ASSERT_EQ(whole.status, 200) << whole.body;
  EXPECT_EQ(whole.body["turns"], 2);
  ASSERT_EQ(whole.body["messages"].size(), 4u);
  EXPECT_EQ(whole.body["messages"][3]["content"], second);
  EXPECT_EQ(Get(Url("/a?turn=1")).body["messages"].size(), 2u);
  EXPECT_EQ(Get(Url("/a?turn=3")).status, 404);
  EXPECT_EQ(Get(Url("/c")).status, 404);

  const Answer fork = Post(Url("/a/fork"), {{"turn", 1}, {"id", "c"}});
  ASSERT_EQ(fork.status, 200) << fork.body;
  EXPECT_EQ(fork.body["turns"], 1);
  EXPECT_EQ(Post(Url("/a/fork"), {{"id", "c"}}).status, 400) << "there is one";
  EXPECT_EQ(Post(Url("/a/rewind"), {{"turn", 1}}).body["turns"], 1);
  EXPECT_EQ(Get(Url("/a")).body["messages"].size(), 2u);
  // Both are gone on with as if the second turn had never been.
  EXPECT_EQ(Say("a", {"My name is Anna.", first, "What is 2+2?"}).content(), second);
  EXPECT_EQ(Say("c", {"My name is Anna.", first, "What is 2+2?"}).content(), second);
  EXPECT_EQ(Get(Url("/c")).body["turns"], 2);
}

TEST_F(ConversationsTest, ComeBackFromADocument) {
  const std::string first = Say("a", {"My name is Anna."}).content();
  const Answer document = Get(Url("/a?tokens=true"));
  ASSERT_EQ(document.status, 200);
  EXPECT_EQ(Post(Url(), document.body).status, 400) << "it is there";
  EXPECT_EQ(Post(Url("?id=b"), document.body).status, 200);
  EXPECT_EQ(Delete(Url("/a")).status, 200);
  EXPECT_EQ(Post(Url(), document.body).status, 200);
  EXPECT_THAT(Ids(), UnorderedElementsAre("a", "b"));
  EXPECT_EQ(Get(Url("/a")).body["messages"], document.body["messages"]);
  Json broken = document.body;
  broken["token_ids"][0] = 1'000'000'000;
  EXPECT_EQ(Post(Url("?id=c"), broken).status, 400);
  // What grows where it is written down again ends no worker.
  broken = document.body;
  broken["messages"] = Json::array({Json::array({1e14, 1e14})});
  EXPECT_EQ(Post(Url("?id=c"), broken).status, 400);
  EXPECT_EQ(service_.Model("nano")["deaths"], 0);
}

TEST_F(ConversationsTest, WhatIsDeletedIsNowhere) {
  Say("a", {"Tell nobody of Quetzalcoatl."});
  Say("b", {"Hello"});
  ASSERT_TRUE(StandsInFiles("Quetzalcoatl"));
  ASSERT_EQ(Delete(Url("/a")).status, 200);
  EXPECT_THAT(Ids(), ElementsAre("b"));
  EXPECT_EQ(Get(Url("/a")).status, 404);
  EXPECT_EQ(Delete(Url("/a")).status, 404);
  EXPECT_TRUE(Eventually([&] { return !StandsInFiles("Quetzalcoatl"); }));
  EXPECT_EQ(Delete(Url()).status, 400) << "all of them, without a word";
  EXPECT_EQ(Delete(Url("?all=true")).status, 200);
  EXPECT_THAT(Ids(), IsEmpty());
}

TEST_F(ConversationsTest, AnAnswerToWhatIsDeletedMeanwhileLeavesNothing) {
  for (const bool has_turns : {false, true}) {
    if (has_turns) Say("doomed", {"Tell nobody of Quetzalcoatl."});
    Json body = LongChatBody(1500, {{"conversation_id", "doomed"}});
    body["messages"] =
        Json::array({{{"role", "user"}, {"content", "Tell nobody of Quetzalcoatl."}}});
    Stream stream(service_.url(), body);
    ASSERT_TRUE(stream.AwaitChunks(5));
    const Answer deleted = Delete(Url("/doomed"));
    EXPECT_EQ(deleted.status, 200) << deleted.body;
    EXPECT_EQ(deleted.body["ids"], Json::array({"doomed"}));
    stream.Join();
    EXPECT_TRUE(stream.done()) << "its client has it all";
    EXPECT_THAT(Ids(), IsEmpty());
    EXPECT_TRUE(Eventually([&] { return !StandsInFiles("Quetzalcoatl"); }));
  }
}

TEST_F(ConversationsTest, WhatIsDeletedWhileItsWorkerDiesIsStoredByNoOther) {
  for (const bool has_turns : {false, true}) {
    SCOPED_TRACE(has_turns);
    if (has_turns) Say("doomed", {"Tell nobody of Quetzalcoatl."});
    Say("other", {"Hello"});
    Json body = LongChatBody(1500, {{"conversation_id", "doomed"}});
    body["messages"] =
        Json::array({{{"role", "user"}, {"content", "Tell nobody of Quetzalcoatl."}}});
    Stream stream(service_.url(), body);
    ASSERT_TRUE(stream.AwaitChunks(5));
    const Answer deleted = has_turns ? Delete(Url("/doomed")) : Delete(Url("?all=true"));
    ASSERT_EQ(deleted.status, 200) << deleted.body;
    const pid_t pid = service_.SignalModel("nano", SIGKILL);
    ASSERT_GT(pid, 0);
    ASSERT_FALSE(stream.ended()) << "it had an end before its worker had";
    stream.Join();
    EXPECT_TRUE(stream.done()) << "the stream goes on: " << stream.error_code();
    ASSERT_FALSE(stream.events().empty());
    const Json cache = stream.events().back().value("/timings/cache"_json_pointer, Json());
    EXPECT_EQ(cache.value("stored", true), false) << cache;
    EXPECT_FALSE(cache.contains("conversation_id"));
    EXPECT_EQ(Get(Url("/doomed")).status, 404);
    EXPECT_TRUE(Eventually([&] { return !StandsInFiles("Quetzalcoatl"); }));
  }
  EXPECT_THAT(Ids(), ElementsAre("other"));
}

TEST_F(ConversationsTest, WhatWasDeletedBeforeAKillIsNowhereAfterTheNextStart) {
  Say("a", {"Tell nobody of Quetzalcoatl."});
  Say("b", {"Hello"});
  ASSERT_EQ(Delete(Url("/a")).status, 200);
  service_.KillAll();
  service_.RemoveSharedMemory();
  ASSERT_TRUE(StandsInFiles("Quetzalcoatl")) << "the scrub is due some seconds later";
  service_.StartReady();
  EXPECT_TRUE(Eventually([&] { return !StandsInFiles("Quetzalcoatl"); }));
  EXPECT_THAT(Ids(), ElementsAre("b"));
}

TEST_F(ConversationsTest, ManyAreDeletedWhileOthersAreServed) {
  // More than are deleted at once.
  constexpr int kMany = 300;
  const Answer seed = Say("seed", {"Hello"}, 2);
  for (int i = 0; i < kMany; ++i)
    ASSERT_EQ(Post(Url("/seed/fork"), {{"id", "fork" + std::to_string(i)}}).status, 200);
  Stream stream(service_.url(), LongChatBody(300, {{"store", false}}));
  ASSERT_TRUE(stream.AwaitChunks(3));
  const Answer deleted = Delete(Url("?all=true"));
  ASSERT_EQ(deleted.status, 200) << deleted.body;
  EXPECT_EQ(deleted.body["count"], kMany + 2) << "and the one that is being answered";
  EXPECT_THAT(Ids(), IsEmpty());
  stream.Join();
  EXPECT_TRUE(stream.done());
  EXPECT_EQ(Delete(Url("?all=true")).body["count"], 0);
}

}  // namespace
}  // namespace perdure::process_tests
