#include "worker/answer_form.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace perdure::worker {
namespace {

TEST(AnswerFormTest, SurvivesTheTicket) {
  const text::ChatForm form = {.tools = text::ToolFormat::kDevstral,
                               .reasoning = {"[THINK]", "[/THINK]"}};
  const protocol::AnswerForm ticket = TicketForm(form, text::ReasoningStart::kClosed);
  EXPECT_TRUE(IsSound(ticket));
  const Json tools = {{{"type", "function"}, {"function", {{"name", "f"}}}}};
  const text::ChatParserSettings settings = ParserSettings(ticket, tools);
  EXPECT_EQ(settings.form.tools, form.tools);
  EXPECT_EQ(settings.form.reasoning, form.reasoning);
  EXPECT_EQ(settings.reasoning, text::ReasoningStart::kClosed);
  ASSERT_EQ(settings.tools.size(), 1u);
  EXPECT_EQ(settings.tools[0].name, "f");
  EXPECT_TRUE(ParserSettings(ticket, Json()).tools.empty());
}

TEST(AnswerFormTest, WhatThereIsNotIsUnsound) {
  EXPECT_TRUE(IsSound(protocol::AnswerForm{}));
  protocol::AnswerForm format, start, tags;
  format.tool_format = 7;
  EXPECT_FALSE(IsSound(format));
  start.reasoning_start = 3;
  EXPECT_FALSE(IsSound(start));
  tags.reasoning_open = "<think>";
  EXPECT_FALSE(IsSound(tags));
}

}  // namespace
}  // namespace perdure::worker
