// What clients say stands in no log, and API keys may have settings of their own.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/masked.h"
#include "cli/http_client.h"
#include "client.h"
#include "conversation_files.h"
#include "service.h"
#include "snapshot/format.h"
#include "tests/snapshot/raw_lmdb.h"

namespace perdure::process_tests {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kCanary = "Quixwort";

// --- Logs --------------------------------------------------------------------------------------

class LogsTest : public testing::Test {
 protected:
  void Start() { service_.StartReady(1, {"--log-level", "info"}); }
  std::string Url(const std::string& rest) const { return service_.url() + rest; }
  Json Body(const Json& more = Json::object()) const {
    Json body = ChatBody("my name is " + kCanary + " and i live in Zurich",
                         {{"conversation_id", kId}, {"user", kCanary}, {"max_tokens", 20}});
    for (const auto& [key, value] : more.items()) body[key] = value;
    return body;
  }
  // A conversation whose name, user and text have it, and its second turn.
  void Talk() {
    const Answer first = Chat(service_.url(), Body());
    ASSERT_EQ(first.status, 200) << first.body;
    Json body = Body();
    body["messages"].push_back({{"role", "assistant"}, {"content", first.content()}});
    body["messages"].push_back({{"role", "user"}, {"content", "what's my name?"}});
    const Answer second = Chat(service_.url(), body);
    ASSERT_EQ(second.status, 200) << second.body;
    EXPECT_THAT(second.content(), HasSubstr(kCanary)) << "the answer has it too";
  }
  void ExpectNoCanary() const {
    EXPECT_THAT(service_.Log(), Not(HasSubstr(kCanary)));
    EXPECT_THAT(DumpJson(service_.Ps()), Not(HasSubstr(kCanary)));
  }

  const std::string kId = "of " + kCanary;
  Service service_;
};

TEST_F(LogsTest, NothingOfWhatClientsSayIsLogged) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(Talk());
  // Requests that are refused.
  const Json bad[] = {Body({{"temperature", kCanary}}),
                      Body({{"model", kCanary}}),
                      Body({{"stop", Json::array({kCanary, 5})}}),
                      Body({{"conversation_id", kCanary + "\n" + kCanary}}),
                      Body({{"messages", Json::array({{{"role", kCanary}, {"content", "x"}}})}}),
                      Body({{"chat_template_kwargs", {{"chat_template", kCanary}}}}),
                      Body({{"response_format", {{"type", kCanary}}}}),
                      Body({{"logit_bias", {{kCanary, 1}}}}),
                      Body({{"max_tokens", 1}, {"n", 1000}, {"user", kCanary}})};
  for (const Json& body : bad) EXPECT_GE(Chat(service_.url(), body).status, 400) << body;
  const auto response = cli::Perform({.url = Url("/v1/chat/completions"),
                                      .body = "{\"messages\": \"" + kCanary,
                                      .api_key = kCanary,
                                      .timeout_s = 60,
                                      .on_data = nullptr});
  EXPECT_EQ(response->status, 400);
  Json too_long = Body();
  for (int i = 0; i < 12; ++i)
    too_long["messages"].push_back(
        {{"role", i % 2 == 0 ? "assistant" : "user"}, {"content", std::string(2000, 'x')}});
  EXPECT_EQ(Chat(service_.url(), too_long).status, 400);
  // Conversations: not there, asked for wrongly, shown, copied, rewound, imported, deleted.
  const std::string conversations = Url("/v1/conversations");
  const std::string own = conversations + "/of%20" + kCanary;
  EXPECT_EQ(Get(conversations + "/" + kCanary).status, 404);
  EXPECT_EQ(Get(conversations + "?limit=" + kCanary).status, 400);
  EXPECT_EQ(Get(Url("/v1/" + kCanary)).status, 404);
  const Answer document = Get(own + "?tokens=true");
  EXPECT_EQ(document.status, 200) << document.body;
  EXPECT_EQ(Post(own + "/fork", {{"id", kCanary}}).status, 200);
  EXPECT_EQ(Post(own + "/fork", {{"id", kCanary}}).status, 400);
  EXPECT_EQ(Post(own + "/rewind", {{"turn", 9}}).status, 404);
  EXPECT_EQ(Post(own + "/rewind", {{"turn", 1}}).status, 200);
  EXPECT_EQ(Post(conversations, {{"id", kCanary}, {"messages", kCanary}}).status, 400);
  EXPECT_EQ(Post(conversations + "?id=" + kCanary + "2", document.body).status, 200);
  EXPECT_EQ(Delete(own).status, 200);
  EXPECT_EQ(Delete(own).status, 404);
  EXPECT_EQ(Delete(conversations + "?user=" + kCanary).status, 200);
  EXPECT_EQ(Chat(service_.url(), Body({{"cache", kCanary}})).status, 200);
  // Pinned ones are told of in the log.
  for (int i = 0; i < 3; ++i)
    EXPECT_EQ(Chat(service_.url(), Body({{"cache", "concatenate_kv"},
                                         {"conversation_id", kId + std::to_string(i)}}))
                  .status,
              200);
  ExpectNoCanary();
}

TEST_F(LogsTest, NothingOfWhatStandsInDamagedFilesIsLogged) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(Talk());
  service_.Signal(SIGTERM);
  EXPECT_EQ(service_.AwaitExit(), 0);
  service_.RemoveSharedMemory();
  // Its last turn.
  const auto turns = snapshot::ReadRaw(TurnsFile(service_), "turns");
  ASSERT_EQ(turns.size(), 2u);
  snapshot::WriteRaw(TurnsFile(service_), "turns", turns.rbegin()->first, "damaged");
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_THAT(service_.Log(), HasSubstr("conversation " + Masked(kId) + " has lost its turns"));
  // While the file is open nobody else writes it: its conversation's record, for the next start.
  service_.Signal(SIGTERM);
  EXPECT_EQ(service_.AwaitExit(), 0);
  const auto records = snapshot::ReadRaw(TurnsFile(service_), "conversations");
  ASSERT_EQ(records.size(), 1u);
  snapshot::WriteRaw(TurnsFile(service_), "conversations", records.begin()->first, "damaged");
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_THAT(service_.Log(), HasSubstr("conversation " + Masked(kId) + " is lost"));
  ExpectNoCanary();
}

TEST_F(LogsTest, NothingOfWhatIsBeingSaidStandsInAnObituary) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_NO_FATAL_FAILURE(Talk());
  for (const int signal : {SIGKILL, SIGABRT, SIGSEGV}) {
    Stream stream(service_.url(), Body({{"max_tokens", 1000}, {"ignore_eos", true}}));
    ASSERT_TRUE(stream.AwaitChunks(3));
    ASSERT_GT(service_.SignalModel("nano", signal), 0);
    stream.Join();
    EXPECT_TRUE(stream.done()) << stream.error_code();
  }
  EXPECT_GE(service_.Model("nano")["deaths"], 3);
  EXPECT_THAT(service_.Log(), HasSubstr("goes on after"));
  ExpectNoCanary();
}

// --- Keys --------------------------------------------------------------------------------------

class KeysTest : public testing::Test {
 protected:
  Answer Ask(const std::string& key, const Json& more = Json::object()) {
    Json body = ChatBody("Hello", {{"max_tokens", 4}});
    for (const auto& [name, value] : more.items()) body[name] = value;
    return PostWithKey(service_.url() + "/v1/chat/completions", body, key);
  }
  bool IsStored(const Answer& answer) {
    EXPECT_EQ(answer.status, 200) << answer.body;
    return answer.body.value("/timings/cache/stored"_json_pointer, false);
  }

  Service service_;
};

TEST_F(KeysTest, AKeyMaySayThatItsTurnsAreNotStored) {
  service_.WriteConfig(
      "[server]\napi_keys = [\"plain-key\"]\n"
      "[keys.secretive]\nkey = \"secretive-key\"\nstore = false\n"
      "[keys.archive]\nkey = \"archive-key\"\nretention_days = 3650\n"
      "[models.nano]\nretention_days = 3\n");
  service_.StartReady();
  EXPECT_TRUE(IsStored(Ask("plain-key")));
  EXPECT_TRUE(IsStored(Ask("archive-key")));
  EXPECT_FALSE(IsStored(Ask("secretive-key")));
  EXPECT_TRUE(IsStored(Ask("secretive-key", {{"store", true}})));
  EXPECT_FALSE(IsStored(Ask("plain-key", {{"store", false}})));
  EXPECT_EQ(Ask("unknown-key").status, 401);
  EXPECT_THAT(service_.Log(), Not(HasSubstr("-key")));
}

TEST_F(KeysTest, ConversationsAreKeptForAsLongAsTheirKeySays) {
  service_.WriteConfig(
      "[server]\napi_keys = [\"plain-key\"]\n"
      "[keys.archive]\nkey = \"archive-key\"\nretention_days = 3650\n"
      "[keys.brief]\nkey = \"brief-key\"\nretention_days = 3\n"
      "[models.nano]\nretention_days = 60\n");
  service_.StartReady();
  for (const char* key : {"plain-key", "archive-key", "brief-key"})
    for (const char* id : {"recent", "old", "ancient"})
      ASSERT_TRUE(IsStored(Ask(key, {{"conversation_id", id}})));
  service_.Signal(SIGTERM);
  EXPECT_EQ(service_.AwaitExit(), 0);
  // Nobody has gone on with them for so long.
  for (const auto& [key, value] : snapshot::ReadRaw(TurnsFile(service_), "conversations")) {
    auto record = snapshot::Unseal<snapshot::ConversationRecord>(key, value);
    ASSERT_TRUE(record);
    const std::string id = snapshot::ParseConversationKey(key)->id;
    const int64_t age_days = id == "recent" ? 1 : id == "old" ? 30 : 100;
    record->used_unix_ms -= age_days * 24 * 3600 * 1000;
    snapshot::WriteRaw(TurnsFile(service_), "conversations", key, snapshot::Seal(key, *record));
  }
  service_.StartReady();
  const auto listed = [&](const std::string& key) {
    const auto response = cli::Perform({.url = service_.url() + "/v1/conversations",
                                        .body = {},
                                        .api_key = key,
                                        .timeout_s = 60,
                                        .on_data = nullptr});
    std::set<std::string> ids;
    if (!response || response->status != 200) return ids;
    const Json list = Json::parse(response->body);
    for (const Json& each : list["data"]) ids.insert(each["id"]);
    return ids;
  };
  using Ids = std::set<std::string>;
  EXPECT_TRUE(Eventually([&] { return listed("brief-key") == Ids{"recent"}; }));
  EXPECT_TRUE(Eventually([&] { return listed("plain-key") == (Ids{"recent", "old"}); }));
  EXPECT_EQ(listed("archive-key"), (Ids{"recent", "old", "ancient"}));
}

TEST_F(KeysTest, ChangesOfKeysRestartNoWorker) {
  service_.WriteConfig("[keys.one]\nkey = \"first-key\"\nretention_days = 7\n");
  service_.StartReady();
  EXPECT_TRUE(IsStored(Ask("first-key")));
  const pid_t pid = service_.ModelPid("nano");
  service_.WriteConfig(
      "[keys.one]\nkey = \"first-key\"\nretention_days = 9\nstore = false\n"
      "[keys.two]\nkey = \"second-key\"\n");
  service_.Signal(SIGHUP);
  ASSERT_TRUE(Eventually([&] { return Ask("second-key").status == 200; }));
  EXPECT_FALSE(IsStored(Ask("first-key")));
  EXPECT_TRUE(IsStored(Ask("second-key")));
  EXPECT_EQ(service_.ModelPid("nano"), pid);
  // Two places with the same key: all stays as it was.
  service_.WriteConfig("[keys.one]\nkey = \"same-key\"\n[keys.two]\nkey = \"same-key\"\n");
  service_.Signal(SIGHUP);
  ASSERT_TRUE(Eventually([&] {
    return service_.Log().find("keys.one and keys.two have the same key") != std::string::npos;
  }));
  EXPECT_TRUE(IsStored(Ask("second-key")));
  EXPECT_THAT(service_.Log(), Not(HasSubstr("-key")));
}

}  // namespace
}  // namespace perdure::process_tests
