// Reasoning before an answer, and in front of calls.
#include <gtest/gtest.h>

#include <string>

#include "chat_checks.h"

namespace perdure::text {
namespace {

const std::string kCall = "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>";

ReadAnswer Reads(const std::string& text, ReasoningStart start = ReasoningStart::kUndecided,
                 ToolFormat format = ToolFormat::kHermes, const ReasoningTags& tags = kThink) {
  return ReadEveryWay(Settings(format, tags, start), text);
}

TEST(ChatReasoning, OfTheModelsOwnAccord) {
  EXPECT_EQ(Reads("<think>\nWhy\n\nnot?\n</think>\n\nYes.\n"),
            (ReadAnswer{"Yes.\n", "Why\n\nnot?", {}}));
  EXPECT_EQ(Reads(" \n<think>x</think>y"), (ReadAnswer{"y", "x", {}}));
  EXPECT_EQ(Reads("<think>\n\n</think>\n\n  y"), (ReadAnswer{"  y", "", {}}));
  EXPECT_EQ(Reads("<think>a </think <think> b"), (ReadAnswer{"", "a </think <think> b", {}}));
  EXPECT_EQ(Reads("<think>cut off\n</thi"), (ReadAnswer{"", "cut off\n</thi", {}}));
  EXPECT_EQ(Reads("<think>"), (ReadAnswer{}));
  EXPECT_EQ(Reads("<think>x</think>"), (ReadAnswer{"", "x", {}}));
  EXPECT_EQ(Reads("\n\nNone here."), (ReadAnswer{"\n\nNone here.", "", {}}));
  EXPECT_EQ(Reads("<thi"), (ReadAnswer{"<thi", "", {}}));
  EXPECT_EQ(Reads(" <thin>k"), (ReadAnswer{" <thin>k", "", {}}));
  EXPECT_EQ(Reads("\n"), (ReadAnswer{"\n", "", {}}));
}

TEST(ChatReasoning, OnceAndAtTheStart) {
  EXPECT_EQ(Reads("Hm <think>x</think>"), (ReadAnswer{"Hm <think>x</think>", "", {}}));
  EXPECT_EQ(Reads("<think>a</think>b<think>c</think>"), (ReadAnswer{"b<think>c</think>", "a", {}}));
  EXPECT_EQ(Reads("x</think>y"), (ReadAnswer{"x</think>y", "", {}}));
}

TEST(ChatReasoning, BegunOrEndedByThePrompt) {
  const auto open = ReasoningStart::kOpen;
  EXPECT_EQ(Reads("So\n</think>\n\nYes.", open), (ReadAnswer{"Yes.", "So", {}}));
  EXPECT_EQ(Reads("\n So", open), (ReadAnswer{"", " So", {}}));
  EXPECT_EQ(Reads("</think>Yes.", open), (ReadAnswer{"Yes.", "", {}}));
  EXPECT_EQ(Reads("<think>\nSo</think>Yes.", open), (ReadAnswer{"Yes.", "So", {}}));
  EXPECT_EQ(Reads("<thinker", open), (ReadAnswer{"", "<thinker", {}}));
  EXPECT_EQ(Reads("<thi", open), (ReadAnswer{"", "<thi", {}}));
  const auto closed = ReasoningStart::kClosed;
  EXPECT_EQ(Reads("\nYes.", closed), (ReadAnswer{"\nYes.", "", {}}));
  EXPECT_EQ(Reads("<think>x</think>", closed), (ReadAnswer{"<think>x</think>", "", {}}));
}

TEST(ChatReasoning, CallsStandBehindIt) {
  const ReadCall time = {"get_time", "{}"};
  EXPECT_EQ(Reads("<think>\nI call.\n</think>\n\n" + kCall), (ReadAnswer{"", "I call.", {time}}));
  EXPECT_EQ(Reads("<think>" + kCall + "</think>\nText\n" + kCall),
            (ReadAnswer{"Text", kCall, {time}}));
  EXPECT_EQ(Reads(kCall), (ReadAnswer{"", "", {time}}));
  EXPECT_EQ(Reads("\n" + kCall, ReasoningStart::kClosed), (ReadAnswer{"", "", {time}}));
  EXPECT_EQ(Reads("[THINK]a[/THINK][TOOL_CALLS]get_time[ARGS]{}", ReasoningStart::kUndecided,
                  ToolFormat::kDevstral, {"[THINK]", "[/THINK]"}),
            (ReadAnswer{"", "a", {time}}));
  EXPECT_EQ(Reads("[TOOL_CALLS]get_time[ARGS]{}", ReasoningStart::kUndecided, ToolFormat::kDevstral,
                  {"[THINK]", "[/THINK]"}),
            (ReadAnswer{"", "", {time}}));
  EXPECT_EQ(Reads("<think>a</think>\n{\"name\": \"get_time\"}", ReasoningStart::kUndecided,
                  ToolFormat::kJson),
            (ReadAnswer{"", "a", {time}}));
  EXPECT_EQ(Reads("{\"name\": \"get_time\"}", ReasoningStart::kUndecided, ToolFormat::kLlama3),
            (ReadAnswer{"", "", {time}}));
}

TEST(ChatReasoning, WithoutTools) {
  ChatParserSettings settings = Settings(ToolFormat::kHermes, kThink);
  settings.tools.clear();
  EXPECT_EQ(ReadEveryWay(settings, "<think>a\n</think>\n" + kCall + "\n"),
            (ReadAnswer{kCall + "\n", "a", {}}));
}

TEST(ChatReasoning, Streams) {
  ChatParser parser(Settings(ToolFormat::kHermes, kThink));
  EXPECT_EQ(Join(parser.Push("<think>\nWell, ")).reasoning, "Well, ");
  EXPECT_EQ(Join(parser.Push("it is\n")).reasoning, "it is");
  EXPECT_EQ(Join(parser.Push("so</")).reasoning, "\nso");
}

}  // namespace
}  // namespace perdure::text
