#include "frontend/request_timeout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "frontend/generation_errors.h"

namespace perdure::frontend {
namespace {

using ::testing::HasSubstr;

Result<std::optional<int64_t>> Read(std::vector<std::string> values) {
  HttpRequest request;
  for (std::string& value : values)
    request.headers.push_back({"x-request-timeout", std::move(value)});
  return ReadRequestTimeout(request);
}

TEST(RequestTimeout, ReadsSeconds) {
  EXPECT_EQ(*Read({}), std::nullopt);
  EXPECT_EQ(*Read({"2"}), 2000);
  EXPECT_EQ(*Read({" 0.25 "}), 250);
  EXPECT_EQ(*Read({"0.0001"}), 1) << "never none";
  EXPECT_EQ(*Read({"86400"}), 86'400'000);
}

TEST(RequestTimeout, RefusesWhatIsNone) {
  for (const char* text : {"", "0", "-1", "0.0", "+1", "1s", "1e3", "0x1", "inf", "nan", "86400.1",
                           "1 2", "1,5", "999999999999999999999"}) {
    const auto refused = Read({text});
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, ErrorCode::invalid_request);
    EXPECT_THAT(refused.error().message, HasSubstr("X-Request-Timeout")) << text;
  }
  EXPECT_FALSE(Read({"1", "2"})) << "which of them?";
}

TEST(RequestTimeout, TheShorterOneCounts) {
  protocol::FrontendSettings settings;
  EXPECT_FALSE(TimeoutOf(std::nullopt, "a", settings));
  EXPECT_EQ(TimeoutOf(1500, "a", settings)->ms, 1500);
  settings.request_timeout_s = 10;
  settings.model_limits = {{"b", std::nullopt, 2}, {"c", std::nullopt, 0}, {"d", 7, std::nullopt}};
  EXPECT_EQ(TimeoutOf(std::nullopt, "a", settings)->ms, 10'000);
  EXPECT_EQ(TimeoutOf(std::nullopt, "a", settings)->set_by, "server.request_timeout_s");
  EXPECT_EQ(TimeoutOf(std::nullopt, "b", settings)->ms, 2'000);
  EXPECT_EQ(TimeoutOf(std::nullopt, "b", settings)->set_by, "models.b.request_timeout_s");
  EXPECT_FALSE(TimeoutOf(std::nullopt, "c", settings)) << "none for this model";
  EXPECT_EQ(TimeoutOf(std::nullopt, "d", settings)->ms, 10'000);
  EXPECT_EQ(TimeoutOf(3'000, "a", settings)->set_by, "X-Request-Timeout");
  EXPECT_EQ(TimeoutOf(3'000, "b", settings)->ms, 2'000) << "no client takes more than it may";
  EXPECT_EQ(TimeoutOf(3'000, "c", settings)->ms, 3'000);
}

TEST(RequestTimeout, ThePassedDeadlineSaysWhatHadHappened) {
  PassedDeadline passed{.model = "nano",
                        .timeout_ms = 2500,
                        .set_by = kRequestTimeoutHeader,
                        .stage = GenerationStage::kAnswers,
                        .tokens = 37,
                        .streamed = true};
  EXPECT_EQ(
      DeadlineExceeded(passed).message,
      "The request had 2.5 s (X-Request-Timeout) and was ended when 37 tokens of the answer had "
      "been generated.");
  passed.tokens = 1;
  passed.streamed = false;
  EXPECT_THAT(DeadlineExceeded(passed).message,
              HasSubstr("1 token of the answer had been generated, which a stream would have"));
  passed.timeout_ms = 86'400'000;
  passed.stage = GenerationStage::kWaitsForModel;
  EXPECT_THAT(DeadlineExceeded(passed).message, HasSubstr("86400 s"));
  EXPECT_THAT(DeadlineExceeded(passed).message, HasSubstr("while it waited for nano to be loaded"));
  passed.stage = GenerationStage::kWaitsForTurn;
  EXPECT_THAT(DeadlineExceeded(passed).message, HasSubstr("while it waited for its turn"));
  passed.stage = GenerationStage::kComputesPrompt;
  EXPECT_THAT(DeadlineExceeded(passed).message, HasSubstr("while its prompt was computed"));
}

}  // namespace
}  // namespace perdure::frontend
