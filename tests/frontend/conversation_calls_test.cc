#include "frontend/conversation_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/limits.h"
#include "tests/frontend/call_fakes.h"

namespace perdure::frontend {
namespace {

using protocol::ConversationCommand;
using testing::HasSubstr;

using Sink = WholeAnswerSink;
using Port = CommandPort<ConversationCommand>;

class ConversationCallsTest : public testing::Test {
 protected:
  Status Start(protocol::RequestId rid) {
    ConversationCommand command;
    command.rid = rid;
    command.id = "a";
    return calls_.Start(command, 1, &port_, &sink_, 0);
  }
  ConversationCalls calls_;
  Port port_;
  Sink sink_;
};

TEST_F(ConversationCallsTest, TheWorkersAnswerIsTheResponse) {
  ASSERT_TRUE(Start(7));
  ASSERT_EQ(port_.commands.size(), 1u);
  EXPECT_EQ(port_.commands[0].rid, 7u);
  EXPECT_EQ(port_.commands[0].id, "a");
  EXPECT_TRUE(calls_.OnAnswer(2, {7, 0, R"({"of":"another"})", ""}));
  EXPECT_TRUE(calls_.OnAnswer(1, {8, 0, "{}", ""}));
  EXPECT_TRUE(sink_.responses.empty());
  EXPECT_TRUE(calls_.OnAnswer(1, {7, 0, R"({"id":"a"})", ""}));
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].status, 200);
  EXPECT_EQ(sink_.responses[0].body, R"({"id":"a"})");
  EXPECT_EQ(calls_.active(), 0u);
  EXPECT_TRUE(calls_.OnAnswer(1, {7, 0, "{}", ""})) << "it is over";
  EXPECT_EQ(sink_.responses.size(), 1u);
}

TEST_F(ConversationCallsTest, ErrorsHaveTheirStatus) {
  ASSERT_TRUE(Start(7));
  EXPECT_TRUE(calls_.OnAnswer(
      1, {7, static_cast<uint16_t>(ErrorCode::not_found), "There is no conversation a.", "id"}));
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].status, 404);
  EXPECT_THAT(sink_.responses[0].body, HasSubstr("There is no conversation a."));
  EXPECT_THAT(sink_.responses[0].body, HasSubstr(R"("param":"id")"));
}

TEST_F(ConversationCallsTest, WhatIsNoJsonIsABreach) {
  ASSERT_TRUE(Start(7));
  EXPECT_FALSE(calls_.OnAnswer(1, {7, 0, "{", ""}));
}

TEST_F(ConversationCallsTest, AWorkerThatEndsAnswersNoMore) {
  ASSERT_TRUE(Start(7));
  calls_.OnWorkerGone(2);
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnWorkerGone(1);
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].status, 503);
}

TEST_F(ConversationCallsTest, ItTakesNoLongerThanItMay) {
  ASSERT_TRUE(Start(7));
  calls_.OnTick(limits::kConversationCallWaitMs - 1);
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnTick(limits::kConversationCallWaitMs);
  EXPECT_EQ(sink_.responses.size(), 1u);
  ASSERT_TRUE(Start(8));
  calls_.EndAll();
  EXPECT_EQ(sink_.responses.size(), 2u);
}

TEST_F(ConversationCallsTest, AClientThatLeavesIsNotAnswered) {
  ASSERT_TRUE(Start(7));
  calls_.OnClientGone(7);
  EXPECT_EQ(calls_.active(), 0u);
  EXPECT_TRUE(calls_.OnAnswer(1, {7, 0, "{}", ""}));
  EXPECT_TRUE(sink_.responses.empty());
}

TEST_F(ConversationCallsTest, ThereIsAMost) {
  for (size_t i = 0; i < limits::kConversationCallsMax; ++i) ASSERT_TRUE(Start(i + 1));
  const Status refused = Start(1000);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::overloaded);
  EXPECT_TRUE(calls_.OnAnswer(1, {1, 0, "{}", ""}));
  EXPECT_TRUE(Start(1000));
}

}  // namespace
}  // namespace perdure::frontend
