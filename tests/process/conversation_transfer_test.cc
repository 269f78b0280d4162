// Conversations as files between real services, and saved by name.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/http_client.h"
#include "client.h"
#include "conversation_files.h"
#include "service.h"
#include "shm/layout.h"

namespace perdure::process_tests {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int kPage = shm::kArenaPageTokens;

class ConversationTransferTest : public testing::Test {
 protected:
  // One more turn of a conversation, as a client has it.
  Answer Say(const Service& service, const std::string& id, const std::string& question,
             const Json& more = Json::object()) {
    messages_.push_back({{"role", "user"}, {"content", question}});
    Json body = more;
    body["messages"] = messages_;
    body["conversation_id"] = id;
    body["temperature"] = 0;
    body["max_tokens"] = 40;
    Answer answer = Chat(service.url(), body);
    EXPECT_EQ(answer.status, 200) << answer.body;
    messages_.push_back({{"role", "assistant"}, {"content", answer.content()}});
    return answer;
  }
  // The same question, and nothing of it is kept by the client.
  Answer SayOnce(const Service& service, const std::string& id, const std::string& question) {
    const Json before = messages_;
    Answer answer = Say(service, id, question);
    messages_ = before;
    return answer;
  }
  static cli::HttpResponse Raw(const std::string& url, const std::string& body = "",
                               const std::string& type = "application/octet-stream") {
    const auto response = cli::Perform(cli::HttpRequest{.url = url,
                                                        .body = body,
                                                        .api_key = {},
                                                        .timeout_s = 120,
                                                        .on_data = nullptr,
                                                        .content_type = type});
    EXPECT_TRUE(response) << response.error().message;
    return response ? *response : cli::HttpResponse();
  }
  static std::string Export(const Service& service, const std::string& id,
                            const std::string& query = "") {
    const auto response = Raw(service.url() + "/v1/conversations/" + id + "/export" + query);
    EXPECT_EQ(response.status, 200) << response.body.substr(0, 300);
    return response.body;
  }
  static Json Import(const Service& service, const std::string& file,
                     const std::string& query = "") {
    const auto response = Raw(service.url() + "/v1/conversations/import" + query, file);
    Json json = Json::parse(response.body, nullptr, false);
    json["status"] = response.status;
    return json;
  }
  static Json CacheOf(const Answer& answer) {
    return answer.body.value("/timings/cache"_json_pointer, Json::object());
  }
  static int Tokens(const Answer& answer) {
    return answer.body.value("/usage/total_tokens"_json_pointer, -1);
  }
  static int PromptTokens(const Answer& answer) {
    return answer.body.value("/usage/prompt_tokens"_json_pointer, -1);
  }

  Json messages_ = Json::array();
};

TEST_F(ConversationTransferTest, AnotherServiceGoesOnFromTheCache) {
  const Json quantized = {{"at", 100}, {"type", "quantized_kv"}};
  const std::vector<Json> types = {"kv",
                                   "quantized_kv",
                                   "concatenate_kv",
                                   {{"type", "quantized_kv"}, {"bits", 4}},
                                   {{"type", "rotating_kv"}, {"max_size", 130}, {"keep", 20}},
                                   {{"type", "chunked_kv"}, {"chunk_size", 256}},
                                   {{"type", "kv"}, {"then", Json::array({quantized})}}};
  Service here, there;
  here.StartReady();
  there.StartReady();
  for (size_t i = 0; i < types.size(); ++i) {
    SCOPED_TRACE(types[i]);
    const std::string id = fmt::format("talk-{}", i);
    messages_ = Json::array();
    // Each begins in its own way: some types keep what others would find.
    Say(here, id, fmt::format("what is {} + 7?", 10 + i), {{"cache", types[i]}});
    Say(here, id, "my name is Zorbit and i live in Zurich");
    for (const char* question : {"what is 17 + 25?", "where do i live", "what is 60-12"})
      Say(here, id, question);
    const int before = Tokens(Say(here, id, "my dog is called Rex"));
    const std::string file = Export(here, id);
    const Json imported = Import(there, file);
    ASSERT_EQ(imported["status"], 200) << imported;
    EXPECT_EQ(imported["id"], id);
    EXPECT_EQ(imported["kv"]["used"], true) << imported;
    const Answer expected = SayOnce(here, id, "what's my name?");
    const Answer answer = SayOnce(there, id, "what's my name?");
    EXPECT_EQ(answer.content(), expected.content());
    EXPECT_EQ(PromptTokens(answer), PromptTokens(expected));
    EXPECT_EQ(CacheOf(answer)["conversation_id"], id);
    EXPECT_GT(CacheOf(answer)["snapshot"], 0) << CacheOf(answer);
    EXPECT_LE(CacheOf(answer)["computed"], PromptTokens(answer) - before + kPage)
        << CacheOf(answer);
  }
  EXPECT_EQ(there.Model("nano")["deaths"], 0);
}

TEST_F(ConversationTransferTest, WithoutKvItIsComputed) {
  Service here, there;
  here.StartReady();
  there.StartReady();
  Say(here, "a/b", "my name is Zorbit and i live in Zurich");
  const std::string with = Export(here, "a%2Fb"), without = Export(here, "a%2Fb", "?kv=false");
  EXPECT_LT(without.size(), with.size());
  const Json imported = Import(there, without, "?id=other");
  EXPECT_EQ(imported["id"], "other");
  EXPECT_EQ(imported["kv"]["used"], false);
  const Answer answer = Say(there, "other", "what's my name?");
  EXPECT_THAT(answer.content(), HasSubstr("Zorbit"));
  EXPECT_EQ(CacheOf(answer)["computed"], PromptTokens(answer)) << CacheOf(answer);
}

TEST_F(ConversationTransferTest, AWrongFileChangesNothing) {
  Service service;
  service.StartReady();
  Say(service, "mine", "my name is Zorbit and i live in Zurich");
  const std::string file = Export(service, "mine");
  ASSERT_EQ(Delete(service.url() + "/v1/conversations/mine").status, 200);
  std::string flipped = file;
  flipped[file.size() / 2] = static_cast<char>(flipped[file.size() / 2] ^ 1);
  for (const std::string& wrong :
       {flipped, file.substr(0, file.size() - 1), file + "x", std::string("hello"),
        "perdure conversation 9" + file.substr(file.find('\n'))}) {
    const Json refused = Import(service, wrong);
    EXPECT_EQ(refused["status"], 400) << refused;
    EXPECT_EQ(refused["error"]["code"], "invalid_request");
  }
  EXPECT_EQ(Get(service.url() + "/v1/conversations").body["data"].size(), 0u);
  EXPECT_EQ(Raw(service.url() + "/v1/conversations/import", file, "application/json").status, 415);
  EXPECT_EQ(Import(service, file)["status"], 200);
  EXPECT_EQ(Import(service, file)["status"], 400) << "it is there";
  EXPECT_EQ(service.Model("nano")["deaths"], 0);
}

TEST_F(ConversationTransferTest, WhatIsSavedByNameOutlivesAll) {
  Service service;
  service.StartReady();
  Say(service, "mine", "my name is Zorbit and i live in Zurich");
  const int before = Tokens(Say(service, "mine", "what is 17 + 25?"));
  const std::string url = service.url() + "/v1/conversations";
  const Answer saved = Post(url + "/mine/save", {{"name", "conversation_001.cache"}});
  ASSERT_EQ(saved.status, 200) << saved.body;
  EXPECT_EQ(saved.body["tokens"], before);
  EXPECT_GT(saved.body["pages"], 0);
  EXPECT_EQ(Post(url + "/mine/save", {{"name", "conversation_001.cache"}}).status, 400);
  const Answer again =
      Post(url + "/mine/save", {{"name", "conversation_001.cache"}, {"overwrite", true}});
  EXPECT_EQ(again.body["bytes"], saved.body["bytes"]);
  const Answer expected = SayOnce(service, "mine", "what's my name?");
  ASSERT_EQ(Delete(url + "/mine").status, 200);
  // All else is gone, but for that file.
  service.Signal(SIGTERM);
  ASSERT_EQ(service.AwaitExit(), 0);
  service.RemoveSharedMemory();
  fs::remove_all(service.folder() / "state" / "conversations");
  service.StartReady();
  const Answer list = Get(service.url() + "/v1/saved");
  ASSERT_EQ(list.body["data"].size(), 1u) << list.body;
  EXPECT_EQ(list.body["data"][0]["name"], "conversation_001.cache");
  EXPECT_EQ(list.body["data"][0]["bytes"], saved.body["bytes"]);
  EXPECT_EQ(list.body["data"][0]["id"], "mine");
  const Answer loaded =
      Post(service.url() + "/v1/conversations/load", {{"name", "conversation_001.cache"}});
  ASSERT_EQ(loaded.status, 200) << loaded.body;
  EXPECT_EQ(loaded.body["id"], "mine");
  EXPECT_EQ(loaded.body["kv"]["used"], true) << loaded.body;
  const Answer answer = SayOnce(service, "mine", "what's my name?");
  EXPECT_EQ(answer.content(), expected.content());
  EXPECT_GT(CacheOf(answer)["snapshot"], 0);
  EXPECT_LE(CacheOf(answer)["computed"], PromptTokens(answer) - before + kPage);
  EXPECT_EQ(Delete(service.url() + "/v1/saved/conversation_001.cache").status, 200);
  EXPECT_EQ(Delete(service.url() + "/v1/saved/conversation_001.cache").status, 404);
  EXPECT_EQ(
      Post(service.url() + "/v1/conversations/load", {{"name", "conversation_001.cache"}}).status,
      404);
}

// No disk of its own is needed: what a process may write to a file is bounded.
TEST_F(ConversationTransferTest, ADiskWithoutRoomIsSaidAndLeavesNothing) {
  Service service;
  service.StartReady();
  const int tokens = Tokens(Say(service, "mine", "my name is Zorbit and i live in Zurich"));
  ASSERT_TRUE(AwaitPages(service, tokens));
  const std::string file = Export(service, "mine");
  const auto limit = [](pid_t pid, rlim_t bytes) {
    struct rlimit limits {};
    ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, nullptr, &limits), 0);
    limits.rlim_cur = bytes;
    ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, &limits, nullptr), 0);
  };
  limit(service.ModelPid("nano"), file.size() / 2);
  const std::string url = service.url() + "/v1/conversations/mine";
  EXPECT_EQ(Raw(url + "/export").status, 507);
  const Answer refused = Post(url + "/save", {{"name", "a"}});
  EXPECT_EQ(refused.status, 507) << refused.body;
  EXPECT_EQ(refused.error_code(), "insufficient_storage");
  limit(service.ModelPid("nano"), RLIM_INFINITY);
  limit(service.FrontendPid(), file.size() / 2);
  EXPECT_EQ(Import(service, file, "?id=other")["status"], 507);
  limit(service.FrontendPid(), RLIM_INFINITY);
  EXPECT_EQ(Get(service.url() + "/v1/saved").body["data"].size(), 0u);
  for (const auto& entry : fs::recursive_directory_iterator(service.folder() / "state" / "saved"))
    EXPECT_TRUE(entry.is_directory()) << entry.path();
  EXPECT_EQ(Post(url + "/save", {{"name", "a"}}).status, 200);
  EXPECT_EQ(Import(service, file, "?id=other")["status"], 200);
}

TEST_F(ConversationTransferTest, SnapshotsThatAreOffAreSaid) {
  Service service;
  service.SetEnvironment("PERDURE_SNAPSHOTS_ENABLED", "0");
  service.StartReady();
  EXPECT_EQ(Raw(service.url() + "/v1/conversations/a/export").status, 400);
  EXPECT_EQ(Import(service, "perdure conversation 1\n")["error"]["code"], "unsupported");
  EXPECT_EQ(Get(service.url() + "/v1/saved").status, 400);
}

}  // namespace
}  // namespace perdure::process_tests
