#include "worker/turn_messages.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace perdure::worker {
namespace {

using protocol::GenerationRequest;
using protocol::RequestKind;

std::vector<std::string> MessagesOfChat(const std::string& chat_json) {
  GenerationRequest request;
  request.kind = RequestKind::kChat;
  request.chat_json = chat_json;
  return MessagesOf(request);
}

TEST(TurnMessagesTest, AChatsMessagesAreAsTheyCame) {
  const Json messages = {
      {{"role", "system"}, {"content", "Be brief."}},
      {{"role", "user"},
       {"content", Json::array({{{"type", "text"}, {"text", "Hi \u00e9\n\"x\""}}})}},
      {{"role", "assistant"},
       {"content", nullptr},
       {"tool_calls", Json::array({{{"function", {{"name", "f"}, {"arguments", "{}"}}}}})}},
      {{"role", "tool"}, {"tool_call_id", "1"}, {"content", "4"}}};
  const auto told = MessagesOfChat(DumpJson({{"messages", messages}, {"tools", Json::array()}}));
  ASSERT_EQ(told.size(), messages.size());
  for (size_t i = 0; i < told.size(); ++i) {
    EXPECT_EQ(Json::parse(told[i]), messages[i]);
    EXPECT_EQ(told[i].find('\n'), std::string::npos) << "a line each";
  }
}

TEST(TurnMessagesTest, WhatIsNoChatHasNone) {
  for (const char* chat : {"", "{", "[]", "null", "{}", R"({"messages":[]})"})
    EXPECT_TRUE(MessagesOfChat(chat).empty()) << chat;
}

TEST(TurnMessagesTest, ACompletionIsItsPrompt) {
  GenerationRequest request;
  request.kind = RequestKind::kCompletion;
  request.prompt = "Once \"upon\"\na time";
  const auto told = MessagesOf(request);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(Json::parse(told[0]), Json({{"prompt", request.prompt}}));
}

TEST(TurnMessagesTest, TokensAreNoText) {
  GenerationRequest request;
  request.kind = RequestKind::kCompletion;
  request.prompt_ids = {1, 2, 3};
  const auto told = MessagesOf(request);
  ASSERT_EQ(told.size(), 1u);
  const Json message = Json::parse(told[0]);
  ASSERT_TRUE(message.is_object());
  ASSERT_TRUE(message.contains("prompt"));
  EXPECT_TRUE(message["prompt"].is_null());
}

TEST(TurnMessagesTest, TheAnswerIsAMessageToo) {
  const std::string text = "4\n\"four\" \u00e9";
  EXPECT_EQ(Json::parse(AnswerMessage(RequestKind::kChat, {.content = text}, 1, 0)),
            Json({{"role", "assistant"}, {"content", text}}));
  EXPECT_EQ(Json::parse(AnswerMessage(RequestKind::kCompletion, {.content = text}, 1, 0)),
            Json({{"completion", text}}));
  EXPECT_EQ(Json::parse(AnswerMessage(RequestKind::kCompletion, {.content = ""}, 1, 0)),
            Json({{"completion", ""}}));
}

TEST(TurnMessagesTest, AnAnswersCallsAndReasoningStandInItsMessage) {
  const SaidAnswer said = {
      .content = "", .reasoning = "Hm.", .calls = {{"f", "{\"a\": 1}"}, {"g", "{}"}}};
  const Json message = Json::parse(AnswerMessage(RequestKind::kChat, said, 0xabc, 2));
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_EQ(message["reasoning_content"], "Hm.");
  ASSERT_EQ(message["tool_calls"].size(), 2u);
  EXPECT_EQ(message["tool_calls"][1], Json({{"id", "call_0000000000000abc_2_1"},
                                            {"type", "function"},
                                            {"function", {{"name", "g"}, {"arguments", "{}"}}}}));
  EXPECT_EQ(message["tool_calls"][0]["function"]["arguments"], "{\"a\": 1}");
}

TEST(TurnMessagesTest, BytesThatAreNoTextDoNotEndTheWorker) {
  // What a model draws is folded to text before, but a prompt may be anything.
  const std::string broken = "a\xff\xc3";
  GenerationRequest request;
  request.kind = RequestKind::kCompletion;
  request.prompt = broken;
  EXPECT_TRUE(Json::accept(MessagesOf(request).at(0)));
  EXPECT_TRUE(Json::accept(AnswerMessage(RequestKind::kChat, {.content = broken}, 1, 0)));
}

}  // namespace
}  // namespace perdure::worker
