// Caches and conversations of a real service: every type is gone on with, branched, killed and
// resumed; operations are asked for as people ask for them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cache_command.h"
#include "cli/http_client.h"
#include "client.h"
#include "service.h"
#include "shm/layout.h"

namespace perdure::process_tests {
namespace {

using testing::HasSubstr;

void Clear(const Service& service) { CacheJson(service, "clear"); }

Json User(const std::string& content) { return {{"role", "user"}, {"content", content}}; }
Json Assistant(const std::string& content) { return {{"role", "assistant"}, {"content", content}}; }
Json Body(const Json& messages, int tokens, const Json& cache = nullptr) {
  Json body = {{"messages", messages},
               {"temperature", 0.7},
               {"seed", 7},
               {"ignore_eos", true},
               {"max_tokens", tokens}};
  if (!cache.is_null()) body["cache"] = cache;
  return body;
}
Json CacheTimings(const Answer& answer) {
  return answer.body.value("/timings/cache"_json_pointer, Json::object());
}

// What an answer says, and how much of its prompt was there.
struct Told {
  std::string content;
  int cached = 0;
  std::string conversation;
};
Told Ask(const Service& service, const Json& body) {
  const Answer answer = Chat(service.url(), body);
  EXPECT_EQ(answer.status, 200) << answer.body;
  const Json cache = CacheTimings(answer);
  return {answer.content(), cache.value("arena", -1), cache.value("conversation_id", "")};
}

std::string TypeOf(const Json& cache) {
  return cache.is_string() ? cache.get<std::string>() : cache["type"].get<std::string>();
}

class EachType : public testing::TestWithParam<Json> {};

TEST_P(EachType, IsGoneOnWithBranchedKilledAndResumed) {
  Service service;
  service.StartReady();
  const Json type = GetParam();
  const Json first = Json::array({User("My name is Zorbit. " + std::string(150, 'x'))});

  // Undisturbed and computed from nothing.
  const std::string beginning = Ask(service, Body(first, 120, type)).content;
  const auto history = [&](const std::string& question) {
    Json messages = first;
    messages.push_back(Assistant(beginning));
    messages.push_back(User(question));
    return messages;
  };
  const Json left = history("What is my name?"), right = history("What is 2+2?");
  Clear(service);
  const Told cold_left = Ask(service, Body(left, 130, type));
  EXPECT_EQ(cold_left.cached, 0);
  Clear(service);
  const Told cold_right = Ask(service, Body(right, 130, type));
  EXPECT_EQ(cold_right.cached, 0);
  Clear(service);

  // Its worker is killed in the middle of the first answer.
  Stream stream(service.url(), Body(first, 120, type));
  ASSERT_TRUE(stream.AwaitChunks(20));
  const pid_t killed = service.SignalModel("nano", SIGKILL);
  ASSERT_GT(killed, 0);
  stream.Join();
  EXPECT_TRUE(stream.done()) << stream.error_code() << stream.transport_error();
  EXPECT_EQ(stream.content(), beginning);
  ASSERT_TRUE(service.AwaitModel("nano", "ready"));

  // Two ways on from there, the first without a word of how, the second one by another worker.
  const Told warm_left = Ask(service, Body(left, 130));
  ASSERT_GT(service.SignalModel("nano", SIGKILL), 0);
  const Told warm_right = Ask(service, Body(right, 130, type));
  EXPECT_EQ(warm_left.content, cold_left.content);
  EXPECT_EQ(warm_right.content, cold_right.content);
  EXPECT_GT(warm_left.cached, 200);
  // Where the first way has left what lies before its window, that is computed again.
  if (TypeOf(type) != "rotating_kv") {
    EXPECT_GT(warm_right.cached, 200);
  }
  EXPECT_EQ(service.Model("nano")["deaths"], 2);
  const Json stats = CacheJson(service, "stats");
  EXPECT_EQ(stats["types"].size(), 1u) << stats;
  EXPECT_GT(stats["memory"]["shared_bytes"], 0) << stats;
}

std::vector<Json> Types() {
  const Json quantized = {{"at", 200}, {"type", "quantized_kv"}};
  return {"kv",
          "quantized_kv",
          "concatenate_kv",
          {{"type", "quantized_kv"}, {"bits", 4}},
          {{"type", "rotating_kv"}, {"max_size", 130}, {"keep", 20}},
          {{"type", "chunked_kv"}, {"chunk_size", 256}},
          {{"type", "kv"}, {"then", Json::array({quantized})}}};
}
std::string TypeName(const testing::TestParamInfo<Json>& info) {
  static constexpr const char* kNames[] = {"Kv",       "Quantized8", "Concatenate", "Quantized4",
                                           "Rotating", "Chunked",    "Composed"};
  return kNames[info.index];
}
INSTANTIATE_TEST_SUITE_P(Caches, EachType, testing::ValuesIn(Types()), TypeName);

TEST(CacheTest, ATypeThatIsNotKnownIsKvWithAWarning) {
  Service service;
  service.StartReady();
  const Answer answer = Chat(service.url(), Body(Json::array({User("Hi")}), 5, "weird"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(CacheTimings(answer)["type"], "kv");
  EXPECT_THAT(CacheTimings(answer)["warnings"].dump(), HasSubstr("weird"));
  EXPECT_THAT(service.Log(), HasSubstr("weird"));
}

// The system prompt of a thousand conversations lies in memory once.
TEST(CacheTest, AThousandConversationsShareTheirSystemPrompt) {
  constexpr int kConversations = 1000;
  Service service;
  service.WriteConfig("[conversations]\nmax = 1100\n[models.nano]\nsource = \"" +
                      BuiltinModel().string() +
                      "\"\nmax_sequences = 128\nkv_bytes_max = \"512MiB\"\n");
  service.StartReady();
  const Json system = {{"role", "system"}, {"content", std::string(700, 's')}};
  std::string id;
  uint64_t system_tokens = 0;
  for (int i = 0; i < kConversations; ++i) {
    const Answer answer = Chat(
        service.url(), Body(Json::array({system, User("I am number " + std::to_string(i))}), 4));
    ASSERT_EQ(answer.status, 200) << answer.body;
    const Json cache = CacheTimings(answer);
    ASSERT_NE(cache["conversation_id"], id);
    id = cache["conversation_id"];
    if (i > 0) {
      system_tokens = cache["arena"];
      ASSERT_GT(system_tokens, 300u);
      ASSERT_LT(cache["computed"], 30);
    }
  }
  const Json stats = CacheJson(service, "stats");
  EXPECT_EQ(stats["entries"], kConversations);
  const uint64_t bytes = stats["bytes"], shared = stats["memory"]["shared_bytes"];
  const uint64_t page = bytes / (stats["pages"]["bits16"].get<uint64_t>());
  // Once the prompt's pages, and one page or two for what is each one's own.
  EXPECT_EQ(shared, system_tokens / shm::kArenaPageTokens * page) << stats;
  EXPECT_LE(bytes, shared + 2 * kConversations * page) << stats;
  RecordProperty("bytes", std::to_string(bytes));
  RecordProperty("shared_bytes", std::to_string(shared));
}

TEST(CacheTest, OperationsAsPeopleAskForThem) {
  Service service;
  service.StartReady();
  Json messages = Json::array({User("My name is Zorbit. " + std::string(400, 'x'))});
  const Told first = Ask(service, Body(messages, 40));
  messages.push_back(Assistant(first.content));
  messages.push_back(User("What is my name?"));
  EXPECT_EQ(Ask(service, Body(messages, 40)).conversation, first.conversation);

  const Json stats = CacheJson(service, "stats");
  EXPECT_EQ(stats["type"], "kv");
  EXPECT_EQ(stats["entries"], 1);
  EXPECT_EQ(stats["requests"], 2);
  EXPECT_GT(stats["tokens"], 400);
  EXPECT_GT(stats["bytes"], 0);
  EXPECT_GT(stats["hit_rate"], 0.4);
  EXPECT_LT(stats["hit_rate"], 0.6);
  EXPECT_TRUE(stats["last_optimized"].is_null());
  EXPECT_THAT(Cache(service, "stats").text, HasSubstr("hit rate"));

  const Json optimized = CacheJson(service, "optimize");
  EXPECT_LE(optimized["fragmentation"], optimized["fragmentation_before"]);
  EXPECT_FALSE(CacheJson(service, "stats")["last_optimized"].is_null());
  // Asked again for its last answer, it branches.
  EXPECT_NE(Ask(service, Body(messages, 40)).conversation, first.conversation);

  const Json health = CacheJson(service, "health");
  EXPECT_EQ(health["healthy"], true) << health;
  EXPECT_EQ(CacheJson(service, "recommend")["recommendations"].is_array(), true);

  const Json watched = CacheJson(service, "monitor --seconds 1");
  EXPECT_EQ(watched["requests"], 0) << watched;

  EXPECT_EQ(CacheJson(service, "clear --unused")["conversations"], 0);
  EXPECT_EQ(CacheJson(service, "clear nano")["conversations"], 2);
  const Json after = CacheJson(service, "stats");
  EXPECT_EQ(after["entries"], 0);
  EXPECT_EQ(after["bytes"], 0);
  EXPECT_EQ(Ask(service, Body(messages, 40)).cached, 0);

  const cli::Output unknown = Cache(service, "stats nope");
  EXPECT_NE(unknown.code, 0);
  EXPECT_THAT(unknown.text, HasSubstr("There is no model \"nope\". Models: nano."));
}

TEST(CacheTest, OptimizesItselfAfterSoManyRequests) {
  Service service;
  service.WriteConfig("[cache]\noptimization_interval = 3\n");
  service.StartReady();
  const Json body = Body(Json::array({User("Hi")}), 4);
  for (int i = 0; i < 2; ++i) Ask(service, body);
  EXPECT_TRUE(CacheJson(service, "stats")["last_optimized"].is_null());
  Ask(service, body);
  EXPECT_TRUE(Eventually([&] { return !CacheJson(service, "stats")["last_optimized"].is_null(); }));
}

TEST(CacheTest, KeysOfApplicationsAreNoKeysOfTheAdministrator) {
  Service service;
  service.WriteConfig("[server]\napi_keys = [\"one\", \"two\"]\nadmin_keys = [\"root\"]\n");
  service.StartReady();
  const auto get = [&](const std::string& key) {
    return cli::Perform({.url = service.url() + "/admin/cache/stats",
                         .body = {},
                         .api_key = key,
                         .timeout_s = 20,
                         .on_data = nullptr})
        ->status;
  };
  EXPECT_EQ(get(""), 401);
  EXPECT_EQ(get("one"), 403);
  EXPECT_EQ(get("root"), 200);
  // The service's own command has a token of its own.
  EXPECT_EQ(CacheJson(service, "stats")["entries"], 0);

  // What one key's requests left is of no use to another's, nor told by the time it takes.
  const auto ask = [&](const std::string& key) {
    const auto response =
        cli::Perform({.url = service.url() + "/v1/chat/completions",
                      .body = DumpJson(Body(Json::array({User(std::string(300, 'q'))}), 4)),
                      .api_key = key,
                      .timeout_s = 60,
                      .on_data = nullptr});
    EXPECT_EQ(response->status, 200) << response->body;
    return Json::parse(response->body)["timings"]["cache"]["arena"].get<int>();
  };
  EXPECT_EQ(ask("one"), 0);
  EXPECT_EQ(ask("two"), 0);
  EXPECT_EQ(CacheJson(service, "stats")["memory"]["shared_bytes"], 0);
  EXPECT_GT(ask("one"), 200);
  EXPECT_GT(CacheJson(service, "stats")["memory"]["shared_bytes"], 0);
}

// The environment of another program, understood.
class Environment {
 public:
  Environment(std::initializer_list<std::pair<const char*, const char*>> variables)
      : variables_(variables) {
    for (const auto& [name, value] : variables_) setenv(name, value, 1);
  }
  ~Environment() {
    for (const auto& [name, value] : variables_) unsetenv(name);
  }

 private:
  const std::vector<std::pair<const char*, const char*>> variables_;
};

TEST(CacheTest, TheVariablesOfMlxServerNanoAlone) {
  const Environment environment{{"MLX_SERVER_HOST", "127.0.0.1"},
                                {"MLX_DEFAULT_MAX_TOKENS", "9"},
                                {"MLX_DEFAULT_TEMPERATURE", "0"},
                                {"MLX_CACHE_TYPE", "quantized_kv"},
                                {"MLX_CONVERSATION_CACHE_ENABLED", "true"},
                                {"MLX_AUTO_DETECT_CONVERSATIONS", "true"},
                                {"MLX_MAX_CONVERSATIONS", "2"},
                                {"MLX_CONVERSATION_IDLE_TIMEOUT", "3"},
                                {"MLX_CONVERSATION_DETECTION_THRESHOLD", "0.5"}};
  Service service;
  service.StartReady();
  const auto ask = [&](const Json& messages, const std::string& id = "") {
    Json body = {{"messages", messages}, {"ignore_eos", true}};
    if (!id.empty()) body["conversation_id"] = id;
    return Chat(service.url(), body);
  };
  Json messages = Json::array({User("What is 2+2?")});
  const Answer first = ask(messages);
  EXPECT_EQ(first.body["usage"]["completion_tokens"], 9) << first.body;
  EXPECT_EQ(CacheTimings(first)["type"], "quantized_kv");
  EXPECT_EQ(first.content(), ask(messages).content());  // temperature 0
  Clear(service);
  const std::string id = CacheTimings(ask(messages))["conversation_id"];
  messages.push_back(Assistant(first.content()));
  messages.push_back(User("What about 3+3?"));
  const Answer second = ask(messages);
  EXPECT_EQ(CacheTimings(second)["conversation_id"], id);
  EXPECT_GT(CacheTimings(second)["arena"], 10);
  EXPECT_THAT(service.Log(), HasSubstr("goes on with conversation " + id));
  // Two are remembered, under the client's names as well.
  for (const char* name : {"mine", "yours"})
    EXPECT_EQ(CacheTimings(ask(Json::array({User(name)}), name))["conversation_id"], name);
  EXPECT_EQ(CacheJson(service, "stats")["entries"], 2);
  // And forgotten once they were idle for so long.
  EXPECT_TRUE(Eventually([&] { return CacheJson(service, "stats")["entries"] == 0; }));
  EXPECT_EQ(CacheJson(service, "stats")["memory"]["idle_bytes"], 0);
}

TEST(CacheTest, NothingIsRememberedWhereTheVariablesSaySo) {
  const Json messages = Json::array({User(std::string(300, 'y'))});
  const auto ask_twice = [&] {
    Service service;
    service.StartReady();
    Ask(service, Body(messages, 4));
    const Told again = Ask(service, Body(messages, 4));
    return std::make_pair(again, CacheJson(service, "stats")["entries"].get<int>());
  };
  {
    const Environment environment{{"MLX_CONVERSATION_CACHE_ENABLED", "false"}};
    const auto [again, entries] = ask_twice();
    EXPECT_EQ(again.cached, 0);
    EXPECT_EQ(again.conversation, "");
    EXPECT_EQ(entries, 0);
  }
  const Environment environment{{"MLX_AUTO_DETECT_CONVERSATIONS", "false"}};
  const auto [again, entries] = ask_twice();
  EXPECT_EQ(again.conversation, "");
  EXPECT_EQ(entries, 0);
}

}  // namespace
}  // namespace perdure::process_tests
