// What is told of a cache, and how it is optimized and cleared.
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

namespace perdure::worker {
namespace {

using protocol::CacheOperation;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

CacheChoice WithInterval(int requests) {
  CacheChoice cache;
  cache.settings.optimization_interval = requests;
  return cache;
}

// --- stats -------------------------------------------------------------------------------------

TEST_F(CacheOperatorTest, StatsTellWhatWasDone) {
  StartWith(64);
  const auto first = Say(Text(100, 1), 29);
  Say(History(first) + Text(20, 2), 12);  // 128 of 149 tokens are there
  Say(Text(50, 3), 15, Quantized(8));
  const uint64_t k16 = store_->page_bytes(), k8 = store_->page_bytes(shm::PageFormat::kBits8);
  const double used = static_cast<double>(5 * k16 + 2 * k8);
  const double granted = static_cast<double>(3 * Slab());
  const json expected = {
      {"type", "kv"},
      {"description", "kv: 16 bits"},
      {"entries", 2},
      {"tokens", 160 + 64},
      {"bytes", used},
      {"bytes_granted", granted},
      {"bytes_spare", 0},
      {"bytes_max", 64 * k16},
      {"requests", 3},
      {"prompt_tokens", 100 + 149 + 50},
      {"cached_tokens", 128},
      {"hit_rate", 128.0 / 299},
      {"last_optimized", nullptr},
      {"fragmentation", (granted - used) / granted},
      {"memory_efficiency", used / granted},
      {"memory",
       {{"running_bytes", 0},
        {"idle_bytes", used},
        {"unclaimed_bytes", 0},
        {"pinned_bytes", 0},
        {"shared_bytes", 0}}},
      {"pages",
       {{"bits16", 5}, {"bits8", 2}, {"bits4", 0}, {"hollow", 0}, {"dropped", 0}, {"damaged", 0}}},
      {"conversations",
       {{"total_conversations", 2},
        {"max", 100},
        {"running", 0},
        {"begun", 2},
        {"continued", 1},
        {"expired", 0},
        {"displaced", 0},
        {"recovered", 0},
        {"longest_tokens", 161},
        {"spliced_tokens", 0}}},
      {"types",
       {{"kv",
         {{"entries", 1},
          {"tokens", 161},
          {"bytes", 5 * k16},
          {"requests", 2},
          {"prompt_tokens", 249},
          {"cached_tokens", 128},
          {"hit_rate", 128.0 / 249}}},
        {"quantized_kv",
         {{"entries", 1},
          {"tokens", 65},
          {"bytes", 2 * k8},
          {"requests", 1},
          {"prompt_tokens", 50},
          {"cached_tokens", 0},
          {"hit_rate", 0}}}}}};
  const json stats = Stats();
  EXPECT_EQ(stats, expected) << json::diff(stats, expected);
}

TEST_F(CacheOperatorTest, OnlyRequestsThatEndedAreCounted) {
  StartWith(64);
  const auto running = Ask(Text(100, 1), 40), given_up = Ask(Text(100, 2), 40);
  Submit(running);
  Submit(given_up);
  for (int i = 0; i < 10; ++i) generator_->Step();
  generator_->Cancel(given_up.rid);
  json stats = Stats();
  EXPECT_EQ(stats["requests"], 0);
  EXPECT_EQ(stats["prompt_tokens"], 0);
  EXPECT_GE(stats["memory"]["running_bytes"], 4 * store_->page_bytes());
  RunAll();
  generator_->Release(running.rid);
  stats = Stats();
  EXPECT_EQ(stats["requests"], 1) << "once, released or not";
  EXPECT_EQ(stats["prompt_tokens"], 100);
  EXPECT_EQ(stats["memory"]["running_bytes"], 0);
}

TEST_F(CacheOperatorTest, StatsDescribeWhatIsStandard) {
  options_.cache_types.named = {{"small", Quantized(4)}};
  options_.cache_types.standard = OfType("small");
  StartWith(64);
  Say(Text(40, 1), 10);
  const json stats = Stats();
  EXPECT_EQ(stats["type"], "small");
  EXPECT_EQ(stats["description"], "small: 4 bits");
  EXPECT_EQ(stats["types"]["small"]["entries"], 1);
  EXPECT_EQ(stats["types"]["small"]["requests"], 1);
}

TEST_F(CacheOperatorTest, ASuccessorCountsFromZero) {
  StartWith(64);
  Say(Text(100, 1), 29);
  Do(CacheOperation::kOptimize);
  Die();
  const json stats = Stats();
  EXPECT_EQ(stats["requests"], 0);
  EXPECT_EQ(stats["types"]["kv"]["requests"], 0);
  EXPECT_EQ(stats["types"]["kv"]["tokens"], 129);
  EXPECT_TRUE(stats["last_optimized"].is_null());
  EXPECT_EQ(stats["entries"], 1);
  EXPECT_EQ(stats["conversations"]["recovered"], 1);
  EXPECT_EQ(stats["conversations"]["begun"], 0);
}

TEST_F(CacheOperatorTest, WhatIsNoOperationIsAnError) {
  StartWith(64);
  const json told = Do(static_cast<CacheOperation>(99));
  ASSERT_TRUE(told.is_object());
  EXPECT_THAT(told["error"].get<std::string>(), HasSubstr("no such operation"));
}

// --- optimize ----------------------------------------------------------------------------------

// Two side by side take pages by turns; one of them leaves no conversation.
TEST_F(CacheOperatorTest, OptimizingReturnsWhatHoldsNothing) {
  options_.conversations.auto_detect = false;
  StartWith(64);
  const auto kept = AskNamed("kept", Text(20, 1), 301), nobodys = Ask(Text(20, 2), 333);
  Submit(kept);
  Submit(nobodys);
  RunAll();
  const uint64_t k16 = store_->page_bytes();
  ASSERT_EQ(store_->used(), 10u + 11u);
  ASSERT_EQ(Slab(), 4 * k16);
  ASSERT_EQ(store_->bytes_granted(), 6 * Slab());
  json told = Do(CacheOperation::kOptimize);
  EXPECT_GE(told["seconds"], 0);
  told.erase("seconds");
  const json expected = {{"dropped_bytes", 11 * k16},
                         {"returned_bytes", 3 * Slab()},
                         {"bytes", 10 * k16},
                         {"bytes_granted", 3 * Slab()},
                         {"fragmentation_before", 3.0 / 24},
                         {"fragmentation", 2.0 / 12}};
  EXPECT_EQ(told, expected);
  const json stats = Stats();
  EXPECT_EQ(stats["bytes"], told["bytes"]);
  EXPECT_EQ(stats["bytes_granted"], told["bytes_granted"]);
  EXPECT_EQ(stats["fragmentation"], told["fragmentation"]);
  EXPECT_EQ(stats["last_optimized"], now_ms_ / 1000);
  const auto next = AskNamed("kept", History(kept.rid) + Text(20, 3), 20);
  Say(next);
  EXPECT_EQ(Cached(next.rid), 320);
  EXPECT_EQ(Answer(next.rid), Cold(next, {}));
}

TEST_F(CacheOperatorTest, OptimizingACompactCacheChangesNothing) {
  StartWith(64);
  Say(Text(100, 1), 29);
  Do(CacheOperation::kOptimize);
  const uint64_t granted = store_->bytes_granted();
  const json told = Do(CacheOperation::kOptimize);
  EXPECT_EQ(told["dropped_bytes"], 0);
  EXPECT_EQ(told["returned_bytes"], 0);
  EXPECT_EQ(told["bytes_granted"], granted);
  EXPECT_EQ(told["fragmentation"], told["fragmentation_before"]);
}

TEST_F(CacheOperatorTest, OptimizingForgetsWhoWasIdleForTooLong) {
  options_.conversations.idle_timeout_s = 60;
  StartWith(64);
  Say(Text(100, 1), 29);
  now_ms_ += 60'001;
  const auto fresh = Say(Text(100, 2), 29);
  const json told = Do(CacheOperation::kOptimize);
  EXPECT_EQ(told["dropped_bytes"], 4 * store_->page_bytes());
  const json stats = Stats();
  EXPECT_EQ(stats["entries"], 1);
  EXPECT_EQ(stats["conversations"]["expired"], 1);
  EXPECT_EQ(Cached(Say(History(fresh) + Text(20, 2), 10)), 128);
}

TEST_F(CacheOperatorTest, WhatTenantsShareStaysWhereItIs) {
  options_.shared_prefixes = {Text(70, 1)};
  options_.conversations.auto_detect = false;
  StartWith(64);
  const auto ask = [&](const std::string& tenant) {
    auto submit = Ask(Text(70, 1) + Text(60, 2), 31);  // five pages
    submit.request.tenant = tenant;
    return Cached(Say(submit));
  };
  EXPECT_EQ(ask("one"), 0);
  EXPECT_EQ(Do(CacheOperation::kOptimize)["dropped_bytes"], 3 * store_->page_bytes());
  EXPECT_EQ(ask("other"), 2 * kPage);
  EXPECT_EQ(Do(CacheOperation::kClear, true)["dropped_bytes"], 3 * store_->page_bytes());
  EXPECT_EQ(ask("third"), 2 * kPage);
  EXPECT_EQ(Do(CacheOperation::kClear)["bytes"], 0) << "it stays for these two alone";
  EXPECT_EQ(ask("fourth"), 0);
}

TEST_F(CacheOperatorTest, AllWhoAskMeanwhileAreToldOfOneOptimization) {
  options_.conversations.auto_detect = false;
  StartWith(64);
  Say(Text(100, 1), 29);
  const auto one = Order(CacheOperation::kOptimize), other = Order(CacheOperation::kOptimize);
  EXPECT_TRUE(Told(one).empty());
  RunUpkeep();
  EXPECT_EQ(OnlyAnswer(one)["dropped_bytes"], 4 * store_->page_bytes());
  EXPECT_EQ(OnlyAnswer(one), OnlyAnswer(other));
  // Whoever comes later has one of their own.
  EXPECT_EQ(Do(CacheOperation::kOptimize)["dropped_bytes"], 0);
  EXPECT_EQ(Told(one).size(), 1u);
}

// More than is moved, or compared, at a time: conversations between which nothing is needed.
class CacheOperatorLargeTest : public CacheOperatorTest {
 protected:
  static constexpr int kConversations = 48;
  void SetUp() override {
    options_.conversations.auto_detect = false;
    model_options_.max_context = 4096;
    StartWith(8192, kConversations);
    for (int i = 0; i < 2 * kConversations; ++i) {
      auto submit = Ask(Text(2047, i), 1);  // 64 pages
      if (i % 2 == 0) submit.request.conversation_id = std::to_string(i);
      submit.request.tenant = std::to_string(i);  // Text repeats itself
      Say(submit);
      if (i % 2 == 0) asked_.push_back(submit);
    }
    ASSERT_EQ(store_->used(), 2u * kConversations * 64);
  }
  // Runs beside what is done by portions; how many there were.
  int RunBeside(CacheOperation operation) {
    auto running = Ask(Text(50, 77), 100);
    running.request.conversation_id = "runs";
    Submit(running);
    for (int i = 0; i < 5; ++i) generator_->Step();
    const auto order = Order(operation);
    int portions = 0;
    for (; generator_->HasUpkeep() && portions < 1000; ++portions) {
      EXPECT_TRUE(Told(order).empty()) << "before it is over";
      EXPECT_TRUE(generator_->HasWork()) << "or nothing runs beside it";
      generator_->Step();
      generator_->Upkeep();
    }
    told_ = OnlyAnswer(order);
    RunAll();
    EXPECT_EQ(Answer(running.rid), Cold(running, {}));
    return portions;
  }
  void ExpectAllGoOn() {
    for (const size_t i : {size_t{0}, asked_.size() / 2, asked_.size() - 1}) {
      auto next = asked_[i];
      next.rid = ++last_rid_;
      next.request.prompt_ids = History(asked_[i].rid) + Text(20, 5);
      next.request.max_tokens = 10;
      Say(next);
      EXPECT_EQ(Cached(next.rid), 2047);
      EXPECT_EQ(Answer(next.rid), Cold(next, {}));
    }
  }

  std::vector<protocol::Submit> asked_;  // of the conversations that are remembered
  json told_;
};

TEST_F(CacheOperatorLargeTest, PagesMoveInPortionsBesideRequests) {
  const uint64_t granted = store_->bytes_granted();
  EXPECT_GE(RunBeside(CacheOperation::kOptimize), 2);
  EXPECT_EQ(told_["dropped_bytes"], kConversations * 64 * store_->page_bytes());
  // Half of the slabs, but for one of the request.
  EXPECT_GE(told_["returned_bytes"], granted / 2 - Slab());
  EXPECT_EQ(told_["bytes_granted"], store_->bytes_granted());
  EXPECT_EQ(Stats()["bytes_spare"], 0);
  ExpectAllGoOn();
}

TEST_F(CacheOperatorLargeTest, PagesAreComparedInPortionsBesideRequests) {
  EXPECT_GE(RunBeside(CacheOperation::kHealth),
            static_cast<int>(2 * kConversations * 64 * store_->page_bytes() / limits::kScrubBytes));
  EXPECT_EQ(told_["healthy"], true);
  ExpectAllGoOn();
}

TEST_F(CacheOperatorLargeTest, AnOptimizationThatRunsTakesInWhoAsks) {
  const auto first = Order(CacheOperation::kOptimize);
  generator_->Upkeep();
  ASSERT_TRUE(Told(first).empty()) << "or it is over already";
  const auto second = Order(CacheOperation::kOptimize);
  RunUpkeep();
  EXPECT_EQ(OnlyAnswer(first), OnlyAnswer(second));
}

TEST_F(CacheOperatorLargeTest, NobodyIsToldOnceTheFrontendIsGone) {
  const auto optimize = Order(CacheOperation::kOptimize), health = Order(CacheOperation::kHealth),
             recommend = Order(CacheOperation::kRecommend),
             monitor = Order(CacheOperation::kMonitor, false, 1);
  generator_->Upkeep();
  EXPECT_TRUE(sink_.cache_answers.empty());
  generator_->CancelAll();
  RunUpkeep();
  Wait(30);
  for (const auto order : {optimize, health, recommend, monitor}) EXPECT_TRUE(Told(order).empty());
  // What had begun was done all the same.
  EXPECT_FALSE(Stats()["last_optimized"].is_null());
  EXPECT_EQ(Do(CacheOperation::kOptimize)["dropped_bytes"], 0);
  EXPECT_EQ(Do(CacheOperation::kHealth)["healthy"], true);
  EXPECT_TRUE(Do(CacheOperation::kRecommend).contains("measured"));
}

// --- optimization_interval ---------------------------------------------------------------------

class CacheOperatorIntervalTest : public CacheOperatorTest {
 protected:
  // Whether the cache was optimized after this request.
  bool IsOptimizedAfter(const protocol::Submit& submit) {
    // Not too soon after the last one.
    now_ms_ += limits::kOptimizationPauseMs;
    clock_us += int64_t{limits::kOptimizationPauseMs} * 1000;
    Say(submit);
    if (!generator_->HasUpkeep()) return false;
    RunUpkeep();
    EXPECT_TRUE(sink_.cache_answers.empty()) << "nobody has asked";
    return last_optimized() == now_ms_ / 1000;
  }
  bool IsOptimizedAfter(const CacheChoice& cache) {
    return IsOptimizedAfter(Ask(Text(40, ++asked_), 10, cache));
  }
  int64_t last_optimized() {
    const json stats = Stats();
    sink_.cache_answers.clear();
    return stats["last_optimized"].is_null() ? 0 : stats["last_optimized"].get<int64_t>();
  }
  int asked_ = 0;
};

TEST_F(CacheOperatorIntervalTest, WithoutOneItIsDoneOnDemand) {
  StartWith(64);
  for (int i = 0; i < 20; ++i) ASSERT_FALSE(IsOptimizedAfter(CacheChoice()));
}

TEST_F(CacheOperatorIntervalTest, TheConfigurationsHoldsWhereARequestDoesNotSay) {
  options_.cache_types.standard = WithInterval(3);
  StartWith(64);
  std::vector<int> after;
  for (int i = 1; i <= 9; ++i)
    if (IsOptimizedAfter(CacheChoice())) after.push_back(i);
  EXPECT_THAT(after, ElementsAre(3, 6, 9));
  // What is asked for counts as well.
  EXPECT_FALSE(IsOptimizedAfter(CacheChoice()));
  EXPECT_FALSE(IsOptimizedAfter(CacheChoice()));
  Do(CacheOperation::kOptimize);
  sink_.cache_answers.clear();
  EXPECT_FALSE(IsOptimizedAfter(CacheChoice()));
}

TEST_F(CacheOperatorIntervalTest, ARequestsOwnGoesBefore) {
  options_.cache_types.standard = WithInterval(2);
  StartWith(64);
  EXPECT_TRUE(IsOptimizedAfter(WithInterval(1)));
  EXPECT_FALSE(IsOptimizedAfter(WithInterval(4)));
  EXPECT_FALSE(IsOptimizedAfter(WithInterval(4))) << "the configuration's would have been reached";
  EXPECT_FALSE(IsOptimizedAfter(WithInterval(4)));
  EXPECT_TRUE(IsOptimizedAfter(CacheChoice())) << "the requests before count";
}

TEST_F(CacheOperatorIntervalTest, ItDropsWhatNobodyNeeds) {
  options_.conversations.auto_detect = false;
  StartWith(64);
  Say(Text(100, 1), 29);
  EXPECT_EQ(store_->used(), 4u);
  EXPECT_TRUE(IsOptimizedAfter(AskNamed("kept", Text(100, 2), 29, WithInterval(2))));
  EXPECT_EQ(store_->used(), 4u);
  EXPECT_EQ(PagesOf("kept").size(), 4u);
  EXPECT_EQ(store_->bytes_granted(), Slab());
}

TEST_F(CacheOperatorIntervalTest, ARequestDropsNothingOfOtherTenants) {
  options_.conversations.auto_detect = false;
  options_.shared_prefixes = {Text(40, 3)};
  StartWith(64);
  const auto ask = [&](const std::string& tenant) {
    auto submit = Ask(Text(40, 3) + Text(60, 1), 29);
    submit.request.tenant = tenant;
    return Cached(Say(submit));
  };
  ask("one");
  ask("other");
  ASSERT_EQ(store_->used(), 1u + 3 + 3);
  auto last = Ask(Text(40, 2), 10, WithInterval(3));
  last.request.tenant = "one";
  EXPECT_TRUE(IsOptimizedAfter(last));
  EXPECT_EQ(store_->used(), 1u + 3);
  EXPECT_EQ(ask("other"), 99);
  EXPECT_EQ(ask("one"), kPage) << "what all share";
}

TEST_F(CacheOperatorIntervalTest, ItIsNotDoneAllTheTime) {
  StartWith(64);
  EXPECT_TRUE(IsOptimizedAfter(WithInterval(1)));
  for (int i = 0; i < 5; ++i) {
    Say(Text(40, ++asked_), 10, WithInterval(1));
    ASSERT_FALSE(generator_->HasUpkeep());
  }
  // Who asks for it has it at once.
  EXPECT_TRUE(Do(CacheOperation::kOptimize).contains("dropped_bytes"));
  sink_.cache_answers.clear();
  EXPECT_TRUE(IsOptimizedAfter(WithInterval(1)));
}

TEST_F(CacheOperatorIntervalTest, AResumedRequestHasItsOwn) {
  for (const bool has_one : {true, false}) {
    StartWith(64);
    const auto submit = Ask(Text(100, 1), 40, has_one ? WithInterval(1) : CacheChoice());
    const int64_t before_s = now_ms_ / 1000;
    Submit(submit);
    while (Answer(submit.rid).size() < 15) generator_->Step();
    const protocol::Resume resume = Rest(submit, Ticket(submit.rid), Answer(submit.rid));
    Die();
    Expect(&sink_, resume);
    ASSERT_TRUE(generator_->Resume(resume));
    RunAll();
    ASSERT_TRUE(sink_[submit.rid].choices[0].end);
    EXPECT_EQ(generator_->HasUpkeep(), has_one);
    RunUpkeep();
    EXPECT_EQ(last_optimized(), has_one ? before_s : 0);
    EXPECT_EQ(Answer(submit.rid), Cold(submit, {}));
  }
}

// --- clear -------------------------------------------------------------------------------------

TEST_F(CacheOperatorTest, ClearingLeavesNothing) {
  StartWith(64);
  const auto first = Say(Text(100, 1), 29), second = Say(Text(100, 2), 29, Quantized(8)),
             third = Say(Text(100, 3), 29, OfType("concatenate_kv"));
  const uint64_t used = store_->used_bytes(), granted = store_->bytes_granted();
  const json told = Do(CacheOperation::kClear);
  const json expected = {
      {"conversations", 3}, {"dropped_bytes", used}, {"returned_bytes", granted}, {"bytes", 0}};
  EXPECT_EQ(told, expected);
  EXPECT_EQ(store_->used(), 0u);
  EXPECT_EQ(store_->hollow(), 0u);
  EXPECT_EQ(store_->bytes_granted(), 0u);
  const json stats = Stats();
  EXPECT_EQ(stats["entries"], 0);
  EXPECT_EQ(stats["memory"]["pinned_bytes"], 0);
  EXPECT_EQ(stats["requests"], 3) << "what was counted stays";
  for (const auto rid : {first, second, third}) {
    const auto next = Ask(History(rid) + Text(20, 4), 20);
    Say(next);
    EXPECT_EQ(Cached(next.rid), 0);
    EXPECT_NE(Ticket(next.rid).conversation_id, Ticket(rid).conversation_id);
    EXPECT_EQ(Answer(next.rid), Cold(next, {}));
  }
}

TEST_F(CacheOperatorTest, WhatIsClearedIsClearedForASuccessorToo) {
  StartWith(64);
  const auto first = Say(Text(100, 1), 29);
  const Ids history = History(first);
  Do(CacheOperation::kClear);
  Die();
  EXPECT_EQ(Stats()["entries"], 0);
  EXPECT_EQ(Stats()["bytes"], 0);
  EXPECT_EQ(Cached(Say(history + Text(20, 2), 10)), 0);
}

TEST_F(CacheOperatorTest, WhoRunsIsNotCleared) {
  StartWith(64);
  const auto idle = Say(Text(100, 1), 29), old = Say(Text(100, 2), 29);
  const auto next = Ask(History(old) + Text(20, 3), 40), begins = Ask(Text(100, 4), 40);
  Submit(next);
  Submit(begins);
  while (Answer(begins.rid).size() < 10) generator_->Step();
  const size_t computed = computed_;
  const size_t left = (40 - Answer(next.rid).size()) + (40 - Answer(begins.rid).size());
  const json told = Do(CacheOperation::kClear);
  EXPECT_EQ(told["conversations"], 1);
  EXPECT_EQ(told["dropped_bytes"], 4 * store_->page_bytes()) << "the idle one's";
  RunAll();
  EXPECT_EQ(computed_ - computed, left) << "nothing of theirs is computed again";
  EXPECT_EQ(Answer(next.rid), Cold(next, {}));
  EXPECT_EQ(Answer(begins.rid), Cold(begins, {}));
  EXPECT_EQ(Ticket(next.rid).conversation_id, Ticket(old).conversation_id);
  EXPECT_EQ(Cached(Say(History(next.rid) + Text(20, 5), 10)), 129 + 20 + 40 - 1);
  EXPECT_EQ(Cached(Say(History(begins.rid) + Text(20, 6), 10)), 139);
  EXPECT_EQ(Cached(Say(History(idle) + Text(20, 7), 10)), 0);
}

TEST_F(CacheOperatorTest, ClearingWhatIsUnusedKeepsConversations) {
  options_.conversations.auto_detect = false;
  StartWith(64);
  const auto kept = AskNamed("kept", Text(100, 1), 29);
  Say(kept);
  const Ids nobodys = History(Say(Text(100, 2), 29));
  const json told = Do(CacheOperation::kClear, true);
  const json expected = {{"conversations", 0},
                         {"dropped_bytes", 4 * store_->page_bytes()},
                         {"returned_bytes", Slab()},
                         {"bytes", 4 * store_->page_bytes()}};
  EXPECT_EQ(told, expected);
  EXPECT_EQ(Stats()["entries"], 1);
  EXPECT_EQ(Cached(Say(nobodys + Text(20, 3), 10)), 0);
  const auto next = AskNamed("kept", History(kept.rid) + Text(20, 4), 10);
  Say(next);
  EXPECT_EQ(Cached(next.rid), 128);
}

}  // namespace
}  // namespace perdure::worker
