// An agent's loop on a real service: questions, calls of tools, their results, answers; also while
// the model's worker is killed.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client.h"
#include "service.h"

namespace perdure::process_tests {
namespace {

const Json kTools = Json::parse(R"([
  {"type": "function", "function": {"name": "get_weather",
   "description": "Get the weather in a city", "parameters": {"type": "object",
   "properties": {"city": {"type": "string"}}, "required": ["city"]}}},
  {"type": "function", "function": {"name": "add", "description": "Add two numbers",
   "parameters": {"type": "object", "properties": {"a": {"type": "number"},
   "b": {"type": "number"}}, "required": ["a", "b"]}}}])");

const std::pair<const char*, const char*> kTurns[] = {
    {"What is the weather in Paris?", R"({"temperature": 21, "sky": "sunny"})"},
    {"And in Rome?", R"({"temperature": 30, "sky": "cloudy"})"},
    {"What is 17 plus 25?", "42"},
    {"Thank you!", "nothing asks for this"},
};

// The message of a streamed answer, as clients put its deltas together.
Json MessageOf(const Stream& stream) {
  Json message = {{"role", "assistant"}, {"content", ""}};
  for (const Json& event : stream.events()) {
    if (!event.contains("choices") || event["choices"].empty()) continue;
    const Json& delta = event["choices"][0]["delta"];
    if (delta.contains("content") && delta["content"].is_string())
      message["content"] =
          message["content"].get<std::string>() + delta["content"].get<std::string>();
    for (const Json& part : delta.value("tool_calls", Json::array())) {
      Json& calls = message["tool_calls"];
      const auto index = part["index"].get<size_t>();
      if (part.contains("id")) {
        EXPECT_EQ(calls.size(), index);
        calls.push_back(part);
        calls.back().erase("index");
        continue;
      }
      Json& arguments = calls.at(index)["function"]["arguments"];
      arguments = arguments.get<std::string>() + part["function"]["arguments"].get<std::string>();
    }
  }
  if (message.contains("tool_calls") && message["content"] == "") message["content"] = nullptr;
  return message;
}

struct Talk {
  std::vector<std::string> told;  // calls and answers, without ids
  int64_t cached = 0, prompts = 0;
};

Talk RunLoop(const Service& service, bool streamed, const std::function<void()>& between) {
  Talk talk;
  Json messages = Json::array();
  for (const auto& [question, result] : kTurns) {
    messages.push_back({{"role", "user"}, {"content", question}});
    for (int step = 0; step < 4; ++step) {
      between();
      const Json body = {{"messages", messages}, {"tools", kTools}, {"temperature", 0}};
      Json message;
      std::string reason;
      if (streamed) {
        Stream stream(service.url(), body);
        stream.Join();
        EXPECT_TRUE(stream.done()) << stream.transport_error() << stream.error_code();
        message = MessageOf(stream);
        reason = stream.finish_reason();
      } else {
        const Answer answer = Chat(service.url(), body);
        EXPECT_EQ(answer.status, 200) << answer.body;
        if (answer.status != 200) return talk;
        message = answer.body["choices"][0]["message"];
        message.erase("refusal");
        reason = answer.finish_reason();
        const Json& usage = answer.body["usage"];
        talk.prompts += usage["prompt_tokens"].get<int64_t>();
        talk.cached += usage["prompt_tokens_details"]["cached_tokens"].get<int64_t>();
      }
      messages.push_back(message);
      const Json calls = message.value("tool_calls", Json::array());
      EXPECT_EQ(reason, calls.empty() ? "stop" : "tool_calls");
      if (calls.empty()) {
        talk.told.push_back(message["content"].get<std::string>());
        break;
      }
      for (const Json& call : calls) {
        const Json& function = call["function"];
        talk.told.push_back(function["name"].get<std::string>() + " " +
                            function["arguments"].get<std::string>());
        messages.push_back({{"role", "tool"}, {"tool_call_id", call["id"]}, {"content", result}});
      }
    }
  }
  return talk;
}

TEST(ToolsTest, AnAgentsLoopCallsReadsAndAnswersFromTheCache) {
  Service service;
  service.StartReady();
  const Talk talk = RunLoop(service, false, [] {});
  ASSERT_EQ(talk.told.size(), 7u) << Json(talk.told);
  EXPECT_EQ(talk.told[0], R"(get_weather {"city": "Paris"})");
  EXPECT_NE(talk.told[1].find("21"), std::string::npos) << talk.told[1];
  EXPECT_EQ(talk.told[2], R"(get_weather {"city": "Rome"})");
  EXPECT_EQ(talk.told[4], R"(add {"a": 17, "b": 25})");
  EXPECT_NE(talk.told[5].find("42"), std::string::npos) << talk.told[5];
  // Each request repeats the one before and its answer.
  EXPECT_GT(talk.cached, talk.prompts * 3 / 4);
  EXPECT_EQ(RunLoop(service, true, [] {}).told, talk.told);
}

TEST(ToolsTest, KillsBetweenAndDuringCallsChangeNothing) {
  Service service;
  service.StartReady();
  const std::vector<std::string> undisturbed = RunLoop(service, false, [] {}).told;
  int kills = 0;
  const auto kill = [&] { kills += service.SignalModel("nano", SIGKILL) > 0 ? 1 : 0; };
  EXPECT_EQ(RunLoop(service, false, kill).told, undisturbed);
  EXPECT_GE(kills, 3);

  std::atomic<bool> stop{false};
  std::thread killer([&] {
    std::mt19937 random(7);
    while (!stop) {
      std::this_thread::sleep_for(std::chrono::milliseconds(40 + random() % 160));
      service.SignalModel("nano", SIGKILL);
    }
  });
  for (int round = 0; round < 2; ++round)
    EXPECT_EQ(RunLoop(service, round % 2 == 1, [] {}).told, undisturbed);
  stop = true;
  killer.join();
}

}  // namespace
}  // namespace perdure::process_tests
