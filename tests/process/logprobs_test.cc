// Logprobs and several answers to one request, also of workers that are killed meanwhile.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

constexpr int kTokens = 160;

Json TwoAnswers(const Json& more = Json::object()) {
  Json body = LongChatBody(kTokens, {{"seed", 5},
                                     {"temperature", 1.0},
                                     {"n", 2},
                                     {"logprobs", true},
                                     {"top_logprobs", 5},
                                     {"stop", Json::array({"zzz", "the qq"})}});
  for (const auto& [key, value] : more.items()) body[key] = value;
  return body;
}

// What a stream said of each choice: its deltas, logprobs and end as they came.
std::map<int, std::vector<std::string>> ByChoice(const Stream& stream) {
  std::map<int, std::vector<std::string>> chunks;
  for (const Json& event : stream.events()) {
    for (const Json& choice : event.value("choices", Json::array()))
      chunks[choice["index"].get<int>()].push_back(DumpJson(choice));
  }
  return chunks;
}

// The bytes of all tokens that have some.
std::string BytesOf(const Json& content) {
  std::string bytes;
  for (const Json& token : content) {
    if (token["bytes"].is_null()) continue;
    for (const Json& byte : token["bytes"]) bytes += static_cast<char>(byte.get<int>());
  }
  return bytes;
}

class LogprobsTest : public testing::Test {
 protected:
  void SetUp() override {
    // Slow enough to be killed in the middle.
    service_.WriteConfig("[supervisor]\nisa = \"scalar\"\n");
    service_.StartReady();
  }
  // The same request, its worker killed in the middle.
  Answer PostAndKill(const std::string& url, const Json& body) {
    const pid_t before = service_.ModelPid("nano");
    const int64_t generated = service_.Model("nano")["tokens_generated"].get<int64_t>();
    Answer answer;
    std::atomic<bool> answered{false};
    std::thread client([&] {
      answer = Post(url, body);
      answered = true;
    });
    EXPECT_TRUE(Eventually([&] {
      return service_.Model("nano")["tokens_generated"].get<int64_t>() > generated + kTokens / 4;
    }));
    EXPECT_EQ(service_.SignalModel("nano", SIGKILL), before);
    EXPECT_FALSE(answered) << "the answer was whole before its worker was killed";
    client.join();
    return answer;
  }
  Service service_;
};

TEST_F(LogprobsTest, AKilledWorkersAnswersAreTheUndisturbedOnes) {
  const Json body = TwoAnswers();
  Stream calm(service_.url(), body);
  calm.Join();
  ASSERT_TRUE(calm.done()) << calm.error_code();
  Stream disturbed(service_.url(), body);
  ASSERT_TRUE(disturbed.AwaitChunks(40));
  ASSERT_GT(service_.SignalModel("nano", SIGKILL), 0);
  EXPECT_FALSE(disturbed.ended());
  disturbed.Join();
  EXPECT_TRUE(disturbed.done()) << disturbed.error_code();
  const auto expected = ByChoice(calm);
  ASSERT_EQ(expected.size(), 2u);
  EXPECT_NE(expected.at(0), expected.at(1));
  EXPECT_EQ(ByChoice(disturbed), expected);

  const Answer whole = Chat(service_.url(), body);
  ASSERT_EQ(whole.status, 200) << whole.body;
  const Answer killed = PostAndKill(service_.url() + "/v1/chat/completions", body);
  ASSERT_EQ(killed.status, 200) << killed.body;
  EXPECT_EQ(DumpJson(killed.body["choices"]), DumpJson(whole.body["choices"]));
  EXPECT_EQ(killed.body["usage"]["completion_tokens"], whole.body["usage"]["completion_tokens"]);
  EXPECT_EQ(service_.Model("nano")["deaths"], 2);
}

TEST_F(LogprobsTest, StreamedAndWholeTellTheSame) {
  const Json body = TwoAnswers({{"max_tokens", 60}});
  const Answer whole = Chat(service_.url(), body);
  ASSERT_EQ(whole.status, 200) << whole.body;
  Json streamed[2] = {Json::array(), Json::array()};
  std::string text[2];
  Stream stream(service_.url(), body);
  stream.Join();
  for (const Json& event : stream.events()) {
    for (const Json& choice : event.value("choices", Json::array())) {
      const auto index = choice["index"].get<size_t>();
      text[index] += choice["delta"].value("content", "");
      if (choice["logprobs"].is_null()) continue;
      for (const Json& token : choice["logprobs"]["content"]) streamed[index].push_back(token);
    }
  }
  for (size_t i = 0; i < 2; ++i) {
    const Json& choice = whole.body["choices"][i];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(choice["logprobs"]["content"], streamed[i]);
    EXPECT_EQ(choice["message"]["content"], text[i]);
    EXPECT_EQ(BytesOf(streamed[i]), text[i]);
    EXPECT_EQ(streamed[i].size(), 60u);
    for (const Json& token : streamed[i]) EXPECT_EQ(token["top_logprobs"].size(), 5u);
  }
  EXPECT_EQ(whole.body["usage"]["completion_tokens"], 120);
  // The first answer is the only one's, and logprobs change nothing.
  Json one = body;
  one.erase("n");
  one.erase("logprobs");
  one.erase("top_logprobs");
  const Answer alone = Chat(service_.url(), one);
  EXPECT_EQ(alone.content(), text[0]);
  EXPECT_TRUE(alone.body["choices"][0]["logprobs"].is_null());
}

TEST_F(LogprobsTest, PlainCompletionsGoOnTheSame) {
  const Json body = {{"prompt", "Once upon a time"},
                     {"max_tokens", kTokens},
                     {"ignore_eos", true},
                     {"seed", 3},
                     {"n", 2},
                     {"logprobs", 3}};
  const std::string url = service_.url() + "/v1/completions";
  const Answer whole = Post(url, body);
  ASSERT_EQ(whole.status, 200) << whole.body;
  const Answer killed = PostAndKill(url, body);
  EXPECT_EQ(DumpJson(killed.body["choices"]), DumpJson(whole.body["choices"]));
  for (const Json& choice : whole.body["choices"]) {
    const Json& logprobs = choice["logprobs"];
    for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"})
      EXPECT_EQ(logprobs[list].size(), static_cast<size_t>(kTokens)) << list;
    EXPECT_EQ(logprobs["text_offset"][0], 0);
    for (size_t i = 0; i < kTokens; ++i) {
      const Json& top = logprobs["top_logprobs"][i];
      EXPECT_EQ(top[logprobs["tokens"][i].get<std::string>()], logprobs["token_logprobs"][i]);
      EXPECT_LE(top.size(), 4u);
    }
  }
}

TEST_F(LogprobsTest, WhatCannotBeIsRefusedByName) {
  const auto refused = [&](const Json& more) {
    const Answer answer = Chat(service_.url(), ChatBody("hi", more));
    EXPECT_EQ(answer.status, 400) << answer.body;
    return answer.body["error"]["param"].get<std::string>();
  };
  EXPECT_EQ(refused({{"top_logprobs", 2}}), "top_logprobs");
  EXPECT_EQ(refused({{"logprobs", true}, {"top_logprobs", 21}}), "top_logprobs");
  EXPECT_EQ(refused({{"n", 129}}), "n");
  const Answer echo =
      Post(service_.url() + "/v1/completions", {{"prompt", "x"}, {"echo", true}, {"logprobs", 1}});
  EXPECT_EQ(echo.status, 400);
  EXPECT_NE(echo.error_message().find("echo"), std::string::npos);
}

}  // namespace
}  // namespace perdure::process_tests
