#include "frontend/cache_calls.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/limits.h"
#include "tests/frontend/call_fakes.h"

namespace perdure::frontend {
namespace {

using protocol::CacheAnswer;
using protocol::CacheCommand;
using protocol::CacheOperation;

class Sink final : public WholeAnswerSink {
 public:
  // The only response, which is one of success.
  Json Models() const {
    EXPECT_EQ(responses.size(), 1u);
    if (responses.size() != 1) return Json();
    EXPECT_EQ(responses[0].status, 200);
    return Json::parse(responses[0].body).at("models");
  }
};
using Port = CommandPort<CacheCommand>;

class CacheCallsTest : public testing::Test {
 protected:
  std::vector<CacheCalls::Worker> Both() { return {{"a", 1, &port_a_}, {"b", 2, &port_b_}}; }
  std::vector<CacheCalls::Worker> OnlyA() { return {{"a", 1, &port_a_}}; }

  CacheCalls calls_;
  Port port_a_, port_b_;
  Sink sink_;
};

TEST_F(CacheCallsTest, AsksAllAndAnswersWhenAllHave) {
  ASSERT_TRUE(calls_.Start(7, {"", CacheOperation::kMonitor, false, 5}, Both(), &sink_, 0));
  for (const Port* port : {&port_a_, &port_b_}) {
    ASSERT_EQ(port->commands.size(), 1u);
    EXPECT_EQ(port->commands[0].rid, 7u);
    EXPECT_EQ(port->commands[0].operation, CacheOperation::kMonitor);
    EXPECT_EQ(port->commands[0].seconds, 5);
    EXPECT_FALSE(port->commands[0].unused_only);
  }
  EXPECT_TRUE(calls_.OnAnswer(2, {7, R"({"pages":2})"}));
  EXPECT_TRUE(sink_.responses.empty());
  EXPECT_TRUE(calls_.OnAnswer(1, {7, R"({"pages":1})"}));
  EXPECT_EQ(sink_.Models(), Json::parse(R"({"a":{"pages":1},"b":{"pages":2}})"));
  EXPECT_EQ(calls_.active(), 0u);
}

TEST_F(CacheCallsTest, SaysWhatIsToStay) {
  ASSERT_TRUE(calls_.Start(7, {"a", CacheOperation::kClear, true, 0}, OnlyA(), &sink_, 0));
  ASSERT_EQ(port_a_.commands.size(), 1u);
  EXPECT_TRUE(port_a_.commands[0].unused_only);
}

TEST_F(CacheCallsTest, NamesOfModelsAreEscaped) {
  const std::string name = "a \"quoted\"\\name";
  ASSERT_TRUE(calls_.Start(7, {}, {{name, 1, &port_a_}}, &sink_, 0));
  ASSERT_TRUE(calls_.OnAnswer(1, {7, "{}"}));
  EXPECT_TRUE(sink_.Models().contains(name));
}

TEST_F(CacheCallsTest, AWorkerThatDiesFailsAlone) {
  ASSERT_TRUE(calls_.Start(7, {}, Both(), &sink_, 0));
  calls_.OnWorkerGone(3);  // nobody asked it
  calls_.OnWorkerGone(1);
  EXPECT_TRUE(sink_.responses.empty());
  ASSERT_TRUE(calls_.OnAnswer(2, {7, R"({"pages":2})"}));
  const Json models = sink_.Models();
  EXPECT_EQ(models["a"]["error"]["code"], "worker_lost");
  EXPECT_NE(models["a"]["error"]["message"].get<std::string>().find("ask again"),
            std::string::npos);
  EXPECT_EQ(models["b"], Json({{"pages", 2}}));
}

TEST_F(CacheCallsTest, WhatADeadWorkerSaidIsKept) {
  ASSERT_TRUE(calls_.Start(7, {}, Both(), &sink_, 0));
  ASSERT_TRUE(calls_.OnAnswer(1, {7, R"({"pages":1})"}));
  calls_.OnWorkerGone(1);
  calls_.OnWorkerGone(2);
  const Json models = sink_.Models();
  EXPECT_EQ(models["a"], Json({{"pages", 1}}));
  EXPECT_EQ(models["b"]["error"]["code"], "worker_lost");
}

TEST_F(CacheCallsTest, GivesUpWhatTakesTooLong) {
  constexpr int64_t kStartMs = 1000;
  ASSERT_TRUE(calls_.Start(7, {}, Both(), &sink_, kStartMs));
  ASSERT_TRUE(calls_.OnAnswer(2, {7, R"({"pages":2})"}));
  calls_.OnTick(kStartMs + limits::kCacheCallWaitMs - 1);
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnTick(kStartMs + limits::kCacheCallWaitMs);
  const Json models = sink_.Models();
  EXPECT_EQ(models["a"]["error"]["code"], "overloaded");
  EXPECT_EQ(models["b"], Json({{"pages", 2}}));
  EXPECT_EQ(calls_.active(), 0u);
}

TEST_F(CacheCallsTest, TimeThatIsWatchedDoesNotCount) {
  ASSERT_TRUE(calls_.Start(7, {"", CacheOperation::kMonitor, false, 60}, OnlyA(), &sink_, 0));
  calls_.OnTick(limits::kCacheCallWaitMs + 59'999);
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnTick(limits::kCacheCallWaitMs + 60'000);
  EXPECT_EQ(sink_.responses.size(), 1u);
}

TEST_F(CacheCallsTest, AClientThatLeavesGetsNothing) {
  ASSERT_TRUE(calls_.Start(7, {}, Both(), &sink_, 0));
  ASSERT_TRUE(calls_.OnAnswer(1, {7, "{}"}));
  calls_.OnClientGone(7);
  EXPECT_EQ(calls_.active(), 0u);
  EXPECT_TRUE(calls_.OnAnswer(2, {7, "{}"}));
  calls_.OnWorkerGone(2);
  calls_.OnTick(int64_t{2} * limits::kCacheCallWaitMs);
  calls_.EndAll();
  EXPECT_TRUE(sink_.responses.empty());
}

TEST_F(CacheCallsTest, AnswersThatNobodyWaitsForAreIgnored) {
  ASSERT_TRUE(calls_.Start(7, {}, Both(), &sink_, 0));
  ASSERT_TRUE(calls_.OnAnswer(1, {7, R"({"first":true})"}));
  EXPECT_TRUE(calls_.OnAnswer(1, {7, R"({"second":true})"}));
  EXPECT_TRUE(calls_.OnAnswer(3, {7, R"({"of":"a stranger"})"}));
  EXPECT_TRUE(calls_.OnAnswer(2, {8, R"({"of":"another call"})"}));
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnTick(limits::kCacheCallWaitMs);
  EXPECT_TRUE(calls_.OnAnswer(2, {7, R"({"too":"late"})"}));
  const Json models = sink_.Models();
  EXPECT_EQ(models["a"], Json({{"first", true}}));
  EXPECT_EQ(models["b"]["error"]["code"], "overloaded");
  EXPECT_EQ(models.size(), 2u);
}

TEST_F(CacheCallsTest, AnAnswerThatIsNoJsonIsABreach) {
  ASSERT_TRUE(calls_.Start(7, {}, OnlyA(), &sink_, 0));
  for (const char* json : {"", "{", "{}}", "{\"models\":1,}", "{\"\xff\":1}"}) {
    const Status taken = calls_.OnAnswer(1, {7, json});
    ASSERT_FALSE(taken) << json;
    EXPECT_EQ(taken.error().code, ErrorCode::protocol_error) << json;
  }
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnWorkerGone(1);  // as its channel is closed for it
  EXPECT_EQ(sink_.Models()["a"]["error"]["code"], "worker_lost");
}

TEST_F(CacheCallsTest, TheEndAnswersAll) {
  Sink other;
  ASSERT_TRUE(calls_.Start(7, {}, Both(), &sink_, 0));
  ASSERT_TRUE(calls_.Start(8, {}, OnlyA(), &other, 0));
  ASSERT_TRUE(calls_.OnAnswer(1, {7, R"({"pages":1})"}));
  calls_.EndAll();
  const Json models = sink_.Models();
  EXPECT_EQ(models["a"], Json({{"pages", 1}}));
  EXPECT_EQ(models["b"]["error"]["code"], "shutting_down");
  EXPECT_EQ(other.Models()["a"]["error"]["code"], "shutting_down");
  EXPECT_EQ(calls_.active(), 0u);
}

TEST_F(CacheCallsTest, TwoAtOnceKeepApart) {
  Sink other;
  ASSERT_TRUE(calls_.Start(7, {"", CacheOperation::kStats, false, 0}, Both(), &sink_, 0));
  ASSERT_TRUE(calls_.Start(8, {"a", CacheOperation::kHealth, false, 0}, OnlyA(), &other, 0));
  EXPECT_EQ(calls_.active(), 2u);
  ASSERT_EQ(port_a_.commands.size(), 2u);
  ASSERT_TRUE(calls_.OnAnswer(1, {8, R"({"healthy":true})"}));
  EXPECT_EQ(other.Models(), Json::parse(R"({"a":{"healthy":true}})"));
  EXPECT_TRUE(sink_.responses.empty());
  ASSERT_TRUE(calls_.OnAnswer(1, {7, R"({"pages":1})"}));
  ASSERT_TRUE(calls_.OnAnswer(2, {7, R"({"pages":2})"}));
  EXPECT_EQ(sink_.Models(), Json::parse(R"({"a":{"pages":1},"b":{"pages":2}})"));
}

TEST_F(CacheCallsTest, AreBounded) {
  for (protocol::RequestId rid = 1; rid <= limits::kCacheCallsMax; ++rid)
    ASSERT_TRUE(calls_.Start(rid, {}, OnlyA(), &sink_, 0)) << rid;
  const protocol::RequestId more = limits::kCacheCallsMax + 1;
  const Status refused = calls_.Start(more, {}, OnlyA(), &sink_, 0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::overloaded);
  EXPECT_EQ(port_a_.commands.size(), limits::kCacheCallsMax) << "a refused call asks nobody";
  calls_.OnClientGone(1);
  EXPECT_TRUE(calls_.Start(more, {}, OnlyA(), &sink_, 0));
}

}  // namespace
}  // namespace perdure::frontend
