// `perdure demo`, run as people run it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "protocol/heritage.h"
#include "tests/cli/run_perdure.h"
#include "tests/engine/synth_model.h"

namespace perdure::process_tests {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

cli::Output Demo(const std::string& arguments) {
  const engine::TempDir home;
  return cli::RunPerdure(home.path(), "demo --once --port 0 " + arguments);
}

TEST(DemoTest, AnswerAndConversationOutliveTheirProcess) {
  const cli::Output output = Demo("");
  EXPECT_EQ(output.code, protocol::kExitOk) << output.text;
  EXPECT_THAT(output.text, HasSubstr("[kill -9 "));
  EXPECT_THAT(output.text, HasSubstr("Both answers are equal, byte for byte ("));
  EXPECT_THAT(output.text, ContainsRegex("keys and values of [0-9]+ in shared memory and "
                                         "computed those of [1-9][0-9]*"));
  EXPECT_THAT(output.text, ContainsRegex("stood still for.[0-9]+ ms"));
  EXPECT_THAT(output.text, HasSubstr("$ perdure reload nano"));
  EXPECT_THAT(output.text, HasSubstr("model: Your name is Zorbit."));
  EXPECT_THAT(output.text, ContainsRegex("tokens of the conversation, [1-9][0-9]* came from"));
  EXPECT_THAT(output.text, HasSubstr("worker nano"));
  EXPECT_THAT(output.text, Not(HasSubstr("failed")));
}

// Whatever it answers, it answers the same.
TEST(DemoTest, AModelOfTheUsersInsteadOfTheBuiltIn) {
  const cli::Output output =
      Demo("--model '" PERDURE_SOURCE_DIR "/models/nano' --prompt 'Count from 1 to 99.'");
  EXPECT_EQ(output.code, protocol::kExitOk) << output.text;
  EXPECT_THAT(output.text, HasSubstr("you:   Count from 1 to 99.\n"));
  EXPECT_THAT(output.text, HasSubstr("Both answers are equal, byte for byte ("));
  EXPECT_THAT(output.text, ContainsRegex("tokens of the conversation, [1-9][0-9]* came from"));
}

TEST(DemoTest, WhatItCannotShowIsAnError) {
  const cli::Output output = Demo("--max-context 64");
  EXPECT_EQ(output.code, protocol::kExitSystem) << output.text;
  EXPECT_THAT(output.text, HasSubstr("the demonstration failed: the answer was too short"));
  EXPECT_THAT(output.text, Not(HasSubstr("Both answers are equal")));
}

}  // namespace
}  // namespace perdure::process_tests
