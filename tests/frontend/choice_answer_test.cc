// What a client gets of events: text at once, logprobs with the last text of their tokens.
#include "frontend/choice_answer.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/json.h"

namespace perdure::frontend {
namespace {

using protocol::RequestKind;
using protocol::TokenLogprob;
using protocol::TokenLogprobs;

protocol::GenerationRequest Asked(RequestKind kind, int top) {
  protocol::GenerationRequest request;
  request.kind = kind;
  request.top_logprobs = top;
  return request;
}

protocol::Event EventOf(const std::string& text, std::vector<TokenLogprobs> logprobs,
                        uint32_t tokens_out) {
  protocol::Event event;
  event.token_ids.resize(logprobs.size());
  event.text = text;
  event.logprobs = std::move(logprobs);
  event.tokens_out = tokens_out;
  return event;
}

std::string ContentOf(const ChoiceAnswer::Part& part) {
  std::string text;
  for (const protocol::AnswerPart& each : part.parts) {
    EXPECT_EQ(each.kind, protocol::PartKind::kContent);
    text += each.text;
  }
  return text;
}

TokenLogprobs Token(const std::string& bytes, float logprob = -0.5f) {
  TokenLogprobs token;
  token.token = {logprob, bytes, false};
  return token;
}

TEST(ChoiceAnswer, GivesTextAloneWhereNoLogprobsAreWanted) {
  ChoiceAnswer answer{protocol::GenerationRequest()};
  EXPECT_FALSE(answer.has_part());
  answer.Add(EventOf("a", {}, 0));
  answer.Add(EventOf("b", {}, 0));
  EXPECT_TRUE(answer.has_part());
  const ChoiceAnswer::Part part = answer.Take();
  EXPECT_EQ(ContentOf(part), "ab");
  EXPECT_EQ(part.logprobs, "null");
  EXPECT_FALSE(answer.has_part());
  EXPECT_EQ(answer.bytes(), 0u);
}

TEST(ChoiceAnswer, PartsKeepTheirOrderAndNeighboursOfAKindAreOne) {
  using protocol::PartKind;
  ChoiceAnswer answer{protocol::GenerationRequest()};
  protocol::Event event = EventOf("a", {}, 0);
  event.parts = {{PartKind::kCallBegin, 0, "f"}, {PartKind::kCallArguments, 0, "{"}};
  answer.Add(event);
  event.text.clear();
  event.parts = {{PartKind::kCallArguments, 0, "}"},
                 {PartKind::kCallBegin, 1, "f"},
                 {PartKind::kCallBegin, 2, "f"},
                 {PartKind::kContent, 0, "b"}};
  answer.Add(event);
  EXPECT_GT(answer.bytes(), 7u);
  const std::vector<protocol::AnswerPart> wanted = {
      {PartKind::kContent, 0, "a"},        {PartKind::kCallBegin, 0, "f"},
      {PartKind::kCallArguments, 0, "{}"}, {PartKind::kCallBegin, 1, "f"},
      {PartKind::kCallBegin, 2, "f"},      {PartKind::kContent, 0, "b"}};
  EXPECT_EQ(answer.Take().parts, wanted);
  EXPECT_EQ(answer.bytes(), 0u);
}

TEST(ChoiceAnswer, HoldsLogprobsUntilTheirTextIsOutAndGivesEachOnce) {
  ChoiceAnswer answer(Asked(RequestKind::kChat, 0));
  answer.Add(EventOf("", {Token("a")}, 0));
  EXPECT_FALSE(answer.has_part());
  EXPECT_GT(answer.bytes(), 0u);
  answer.Add(EventOf("a", {Token("b")}, 1));
  ChoiceAnswer::Part part = answer.Take();
  EXPECT_EQ(ContentOf(part), "a");
  EXPECT_EQ(
      part.logprobs,
      R"({"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}],"refusal":null})");
  // Part of a token's text.
  answer.Add(EventOf("b", {Token("cd")}, 1));
  part = answer.Take();
  EXPECT_EQ(ContentOf(part), "b");
  EXPECT_EQ(part.logprobs, R"({"content":[],"refusal":null})");
  // A special token has no text of its own.
  answer.Add(EventOf("", {}, 2));
  EXPECT_TRUE(answer.has_part());
  answer.Add(EventOf("cd", {}, 3));
  part = answer.Take();
  const Json json = Json::parse(part.logprobs);
  ASSERT_EQ(json["content"].size(), 2u);
  EXPECT_EQ(json["content"][0]["token"], "b");
  EXPECT_EQ(json["content"][1]["token"], "cd");
  EXPECT_EQ(answer.bytes(), 0u);
}

TEST(ChoiceAnswer, ChatLogprobsHaveOpenAisShape) {
  ChoiceAnswer answer(Asked(RequestKind::kChat, 2));
  TokenLogprobs half = Token("\xE2\x82", -1.25f);
  half.top = {{-0.25f, "<|end|>", true}, {-1.25f, "\xE2\x82", false}};
  answer.Add(EventOf("", {half}, 0));
  answer.Add(EventOf("€\"", {Token("\xAC\"", -9999.0f)}, 2));
  EXPECT_EQ(
      answer.Take().logprobs,
      R"({"content":[{"token":"�","logprob":-1.25,"bytes":[226,130],"top_logprobs":[)"
      R"({"token":"<|end|>","logprob":-0.25,"bytes":null},{"token":"�","logprob":-1.25,"bytes":[226,130]}]},)"
      R"({"token":"�\"","logprob":-9999,"bytes":[172,34],"top_logprobs":[]}],"refusal":null})");
}

TEST(ChoiceAnswer, CompletionLogprobsHaveOpenAisShape) {
  ChoiceAnswer answer(Asked(RequestKind::kCompletion, 2));
  TokenLogprobs first = Token("a", -3.0f);
  first.top = {{-0.25f, "b", false}, {-0.5f, "c", false}};
  TokenLogprobs half = Token("\xE2\x82", -0.5f);
  half.top = {{-0.5f, "\xE2\x82", false}, {-2.0f, "b", false}, {-3.0f, "b", true}};
  half.text_offset = 1;
  answer.Add(EventOf("a", {first, half}, 2));
  EXPECT_EQ(
      answer.Take().logprobs,
      R"({"tokens":["a","bytes:\\xe2\\x82"],"token_logprobs":[-3,-0.5],"top_logprobs":[)"
      R"({"b":-0.25,"c":-0.5,"a":-3},{"bytes:\\xe2\\x82":-0.5,"b":-2}],"text_offset":[0,1]})");
  ChoiceAnswer plain(Asked(RequestKind::kCompletion, 0));
  plain.Add(EventOf("a", {Token("a")}, 1));
  EXPECT_EQ(plain.Take().logprobs,
            R"({"tokens":["a"],"token_logprobs":[-0.5],"top_logprobs":null,"text_offset":[0]})");
}

TEST(ChoiceAnswer, NumbersReadBackToTheSameFloat) {
  std::mt19937 random(7);
  ChoiceAnswer answer(Asked(RequestKind::kCompletion, 0));
  std::vector<float> floats;
  for (int i = 0; i < 20'000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()) | 0x8000'0000u);
    if (!std::isfinite(value)) continue;
    floats.push_back(value);
    answer.Add(EventOf("", {Token("x", value)}, static_cast<uint32_t>(floats.size())));
  }
  const std::string text = answer.Take().logprobs;
  const Json read = Json::parse(text)["token_logprobs"];
  ASSERT_EQ(read.size(), floats.size());
  for (size_t i = 0; i < floats.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(read[i].get<float>()), std::bit_cast<uint32_t>(floats[i]));
    EXPECT_EQ(read[i].get<double>(), double{floats[i]});
  }
}

TEST(ChoiceAnswer, UsageIsThatOfAllChoices) {
  std::vector<ChoiceAnswer> choices(2, ChoiceAnswer{protocol::GenerationRequest()});
  protocol::End end;
  end.usage = {10, 4, 3, 0, 7, 100, 1000, 5000};
  choices[0].end = end;
  end.usage = {10, 6, 10, 0, 0, 50, 2000, 9000};
  choices[1].end = end;
  const protocol::Usage all = UsageOf(choices);
  EXPECT_EQ(all.prompt_tokens, 10);
  EXPECT_EQ(all.completion_tokens, 10);
  EXPECT_EQ(all.from_arena, 3);
  EXPECT_EQ(all.computed, 7);
  EXPECT_EQ(all.queue_us, 50);
  EXPECT_EQ(all.prefill_us, 1050);
  EXPECT_EQ(all.decode_us, 9950);
  EXPECT_EQ(UsageOf(std::span(choices).first(1)).decode_us, 5000);
}

}  // namespace
}  // namespace perdure::frontend
