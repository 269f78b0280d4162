// Watching a cache for a while.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "tests/worker/cache_operator_fixture.h"
#include "tests/worker/conversations_fixture.h"

namespace perdure::worker {
namespace {

using protocol::CacheOperation;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// --- monitor -----------------------------------------------------------------------------------

TEST_F(CacheOperatorTest, AMonitorTellsOfItsTimeAlone) {
  StartWith(64);
  const Ids history = History(Say(Text(100, 1), 29));
  const auto order = Order(CacheOperation::kMonitor, false, 10);
  double sum_ms = 0;
  const auto timed = [&](const Ids& prompt, int answer) {
    const int64_t begin_us = clock_us;
    const auto rid = Say(prompt, answer);
    sum_ms += static_cast<double>(clock_us - begin_us) / 1000;
    return rid;
  };
  const auto second = timed(history + Text(20, 2), 12);
  timed(Text(50, 3), 200);
  EXPECT_GT(sum_ms, 200);
  generator_->Tick();
  Wait(9);
  EXPECT_TRUE(Told(order).empty());
  Wait(1);
  const json told = OnlyAnswer(order);
  EXPECT_GE(told["seconds"], 10);
  EXPECT_LT(told["seconds"], 11);
  EXPECT_EQ(told["requests"], 2);
  EXPECT_EQ(told["prompt_tokens"], 149 + 50);
  EXPECT_EQ(told["cached_tokens"], 128);
  EXPECT_EQ(told["hit_rate"], 128.0 / 199);
  EXPECT_NEAR(told["avg_response_ms"], sum_ms / 2, 1e-3);
  EXPECT_EQ(told["memory_efficiency"], Stats()["memory_efficiency"]);
  // It is over.
  Say(History(second) + Text(20, 4), 10);
  Wait(20);
  EXPECT_EQ(Told(order).size(), 1u);
}

TEST_F(CacheOperatorTest, SeveralMonitorsEndEachInTheirTime) {
  StartWith(64);
  const auto longer = Order(CacheOperation::kMonitor, false, 20);
  Say(Text(40, 1), 10);
  const auto shorter = Order(CacheOperation::kMonitor, false, 5);
  Say(Text(40, 2), 10);
  Wait(6);
  EXPECT_EQ(OnlyAnswer(shorter)["requests"], 1);
  EXPECT_TRUE(Told(longer).empty());
  Say(Text(40, 3), 10);
  Wait(15);
  EXPECT_EQ(OnlyAnswer(longer)["requests"], 3);
  EXPECT_EQ(Told(shorter).size(), 1u);
}

TEST_F(CacheOperatorTest, AMonitorWithoutRequestsTellsZeros) {
  StartWith(64);
  const auto order = Order(CacheOperation::kMonitor, false, 1);
  Wait(2);
  const json told = OnlyAnswer(order);
  for (const char* zero :
       {"requests", "prompt_tokens", "cached_tokens", "hit_rate", "avg_response_ms",
        "median_response_ms", "p95_response_ms", "memory_efficiency"})
    EXPECT_EQ(told.at(zero), 0) << zero;
}

TEST_F(CacheOperatorTest, AMonitorsTimeHasBounds) {
  StartWith(64);
  const auto none = Order(CacheOperation::kMonitor, false, -5),
             endless = Order(CacheOperation::kMonitor, false, 1'000'000);
  EXPECT_TRUE(Told(none).empty());
  Wait(2);
  EXPECT_EQ(Told(none).size(), 1u);
  Wait(limits::kMonitorSecondsMax - 3);
  EXPECT_TRUE(Told(endless).empty());
  Wait(2);
  EXPECT_EQ(Told(endless).size(), 1u);
}

TEST_F(CacheOperatorTest, OfTooManyMonitorsTheOldestGoes) {
  StartWith(64);
  const auto first = Order(CacheOperation::kMonitor, false, 1),
             second = Order(CacheOperation::kMonitor, false, 1);
  protocol::RequestId last = 0;
  for (size_t i = 2; i <= limits::kMonitorsMax; ++i) {
    last = Order(CacheOperation::kMonitor, false, 1);
  }
  Wait(2);
  EXPECT_TRUE(Told(first).empty());
  EXPECT_EQ(Told(second).size(), 1u);
  EXPECT_EQ(Told(last).size(), 1u);
  EXPECT_EQ(sink_.cache_answers.size(), limits::kMonitorsMax);
}

// --- Without a generator -----------------------------------------------------------------------

class CacheOperatorAloneTest : public ConversationTableTest {
 protected:
  CacheOperatorAloneTest() {
    CacheOperator::Context context;
    context.store = store_.get();
    context.conversations = table_.get();
    context.now_us = [this] { return now_us_; };
    context.unix_ms = [this] { return now_ms_; };
    context.answer = [this](const protocol::CacheAnswer& answer) { answers_.push_back(answer); };
    operator_ = std::make_unique<CacheOperator>(std::move(context));
  }
  void Watch(protocol::RequestId rid, int seconds) {
    protocol::CacheCommand command;
    command.rid = rid;
    command.operation = CacheOperation::kMonitor;
    command.seconds = seconds;
    operator_->Handle(command);
  }
  void End(double response_ms) {
    operator_->NoteRequest("kv", {1, 100, 25}, static_cast<int64_t>(response_ms * 1000),
                           std::nullopt, 7);
  }
  json Finish(protocol::RequestId rid) {
    now_us_ += 3600 * kSecondUs;
    operator_->Tick();
    for (const protocol::CacheAnswer& answer : answers_)
      if (answer.rid == rid) return json::parse(answer.json);
    ADD_FAILURE() << "no answer to " << rid;
    return {};
  }

  int64_t now_us_ = 1'000'000;
  std::vector<protocol::CacheAnswer> answers_;
  std::unique_ptr<CacheOperator> operator_;
};

TEST_F(CacheOperatorAloneTest, ResponseTimesAreOrdered) {
  Watch(1, 60);
  for (int i = 0; i < 101; ++i) End((i * 37 % 101) * 10);  // 0 to 1000 ms
  const json told = Finish(1);
  EXPECT_EQ(told["requests"], 101);
  EXPECT_EQ(told["hit_rate"], 0.25);
  EXPECT_NEAR(told["avg_response_ms"], 500, 1e-3);
  EXPECT_EQ(told["median_response_ms"], 500);
  EXPECT_EQ(told["p95_response_ms"], 950);
}

TEST_F(CacheOperatorAloneTest, OneResponseIsAllQuantiles) {
  Watch(1, 60);
  End(12.5);
  const json told = Finish(1);
  for (const char* each : {"avg_response_ms", "median_response_ms", "p95_response_ms"})
    EXPECT_EQ(told.at(each), 12.5) << each;
}

TEST_F(CacheOperatorAloneTest, OfVeryManyRequestsTheFirstTimesCount) {
  Watch(1, 60);
  for (size_t i = 0; i < limits::kMonitorRequestsMax; ++i) End(1);
  for (int i = 0; i < 1000; ++i) End(1'000'000);
  const json told = Finish(1);
  EXPECT_EQ(told["requests"], limits::kMonitorRequestsMax + 1000) << "all are counted";
  EXPECT_EQ(told["avg_response_ms"], 1);
}

TEST_F(CacheOperatorAloneTest, MemoryEfficiencyIsTheMeanOfItsLooks) {
  Watch(1, 10);
  const auto look = [&] {
    now_us_ += kSecondUs;
    operator_->Tick();
    return operator_->Facts().efficiency();
  };
  const double none = look();
  Begin(Row(4 * kPage, 'a'));
  const double all = look();
  Cache(Row(8 * kPage, 'A'), kOwner, SIZE_MAX);  // of nobody
  const double some = look();
  EXPECT_EQ(none, 0.0);
  EXPECT_GT(all, some);
  EXPECT_GT(some, 0.0);
  EXPECT_NEAR(Finish(1)["memory_efficiency"], (none + all + some + some) / 4, 1e-9);
}

}  // namespace
}  // namespace perdure::worker
