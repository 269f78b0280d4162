// Requests that have only so long, with real processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/http_client.h"
#include "cli/sse_reader.h"
#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

using testing::HasSubstr;

struct Timed {
  int status = 0;
  Json body;  // of what is no stream
  std::vector<Json> events;
  bool done = false;  // data: [DONE] came
};

class DeadlineTest : public testing::Test {
 protected:
  Timed Ask(const Json& body, const std::string& seconds) {
    Timed timed;
    cli::SseReader reader;
    const auto take = [&timed](std::string_view data) {
      if (data == "[DONE]") timed.done = true;
      if (auto event = ParseJson(data, "an event", ErrorCode::protocol_error))
        timed.events.push_back(std::move(*event));
    };
    const bool streams = body.value("stream", false);
    const auto response = cli::Perform(cli::HttpRequest{
        .url = service_.url() + "/v1/chat/completions",
        .body = DumpJson(body),
        .api_key = {},
        .timeout_s = 180,
        .on_data = streams ? std::function([&](std::string_view bytes) {
          reader.Append(bytes, take);
          return true;
        })
                           : nullptr,
        .headers = seconds.empty() ? std::vector<std::string>()
                                   : std::vector<std::string>{"X-Request-Timeout: " + seconds}});
    if (!response) return timed;
    timed.status = response->status;
    if (auto json = ParseJson(response->body, "the answer", ErrorCode::protocol_error))
      timed.body = std::move(*json);
    return timed;
  }
  static std::string Code(const Json& body) {
    return body.value("/error/code"_json_pointer, std::string());
  }
  static std::string Message(const Json& body) {
    return body.value("/error/message"_json_pointer, std::string());
  }
  // Slow enough that no machine gets to its end before a deadline.
  static Json Endless(const Json& more) { return LongChatBody(1800, more); }

  Service service_;
};

TEST_F(DeadlineTest, EndsWhatWaitsForItsTurnAndWhatRuns) {
  service_.WriteConfig("[models.nano]\nmax_sequences = 1\n[supervisor]\nisa = \"scalar\"\n");
  service_.StartReady();
  Stream first(service_.url(), Endless({}));
  ASSERT_TRUE(first.AwaitChunks(2));
  const Timed waits = Ask(Endless({}), "0.2");
  EXPECT_EQ(waits.status, 504) << waits.body;
  EXPECT_EQ(Code(waits.body), "deadline_exceeded");
  EXPECT_THAT(Message(waits.body), HasSubstr("had 0.2 s (X-Request-Timeout)"));
  EXPECT_THAT(Message(waits.body), HasSubstr("waited for its turn"));
  // Its place is nobody's at once.
  EXPECT_TRUE(Eventually([&] { return service_.Model("nano")["waiting"] == 0; }));
  first.Hangup();
  first.Join();
  const Timed runs = Ask(Endless({{"stream", true}}), "1");
  EXPECT_EQ(runs.status, 200);
  EXPECT_FALSE(runs.done);
  ASSERT_FALSE(runs.events.empty());
  EXPECT_EQ(Code(runs.events.back()), "deadline_exceeded") << runs.events.back();
  EXPECT_THAT(Message(runs.events.back()), HasSubstr("of the answer had been generated"));
  EXPECT_TRUE(Eventually([&] { return service_.Model("nano")["running"] == 0; }));
  EXPECT_LT(service_.Model("nano")["tokens_generated"].get<int>(), 1800);
  EXPECT_EQ(Ask(ChatBody("Hello", {{"max_tokens", 2}}), "100").status, 200);
}

TEST_F(DeadlineTest, AWorkerThatDoesNothingKeepsNobodyWaitingForLonger) {
  service_.WriteConfig("[server]\nrequest_timeout_s = 1\n");
  service_.StartReady();
  service_.SignalModel("nano", SIGSTOP);
  const Timed waits = Ask(ChatBody("Hello", {}), "");
  service_.SignalModel("nano", SIGCONT);
  EXPECT_EQ(waits.status, 504) << waits.body;
  EXPECT_THAT(Message(waits.body), HasSubstr("server.request_timeout_s"));
  EXPECT_EQ(Ask(ChatBody("Hello", {{"max_tokens", 2}}), "").status, 200);
}

TEST_F(DeadlineTest, AConversationLosesNothingThatWasStored) {
  service_.WriteConfig("[supervisor]\nisa = \"scalar\"\n");
  service_.StartReady();
  Json messages = Json::array({{{"role", "user"}, {"content", "My name is Anna. Remember it."}}});
  const auto body = [&](int tokens) {
    return Json{{"messages", messages},
                {"conversation_id", "c"},
                {"temperature", 0},
                {"max_tokens", tokens},
                {"ignore_eos", true}};
  };
  const Timed first = Ask(body(12), "");
  ASSERT_EQ(first.status, 200) << first.body;
  ASSERT_TRUE(first.body.value("/timings/cache/stored"_json_pointer, false));
  const Json stored = Get(service_.url() + "/v1/conversations/c").body;

  messages.push_back(first.body["choices"][0]["message"]);
  messages.push_back({{"role", "user"}, {"content", "What is my name?"}});
  Json cut = body(1800);
  cut["stream"] = true;
  const Timed second = Ask(cut, "1");
  ASSERT_FALSE(second.events.empty());
  EXPECT_EQ(Code(second.events.back()), "deadline_exceeded");
  const Json after = Get(service_.url() + "/v1/conversations/c").body;
  EXPECT_EQ(after["turns"], stored["turns"]);
  EXPECT_EQ(after["messages"], stored["messages"]);

  const Timed third = Ask(body(8), "");
  ASSERT_EQ(third.status, 200) << third.body;
  EXPECT_GT(third.body["timings"]["cache"]["arena"].get<int>(), 0) << third.body;
  EXPECT_EQ(third.body["timings"]["cache"]["conversation_id"], "c");
  EXPECT_TRUE(third.body.value("/timings/cache/stored"_json_pointer, false));
}

}  // namespace
}  // namespace perdure::process_tests
