// What people ask of a cache, and what becomes of conversations meanwhile.
#include "worker/cache_operator.h"

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
#include "tests/worker/cache_fixture.h"
#include "tests/worker/conversations_fixture.h"

namespace perdure::worker {
namespace {

using nlohmann::json;  // whatever the order of members
using protocol::CacheOperation;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kSecondUs = 1'000'000;

CacheChoice WithInterval(int requests) {
  CacheChoice cache;
  cache.settings.optimization_interval = requests;
  return cache;
}

class CacheOperatorTest : public CacheTest {
 protected:
  protocol::RequestId Order(CacheOperation operation, bool unused_only = false, int seconds = 0) {
    protocol::CacheCommand command;
    command.rid = ++last_order_;
    command.operation = operation;
    command.unused_only = unused_only;
    command.seconds = seconds;
    generator_->Command(command);
    return command.rid;
  }
  std::vector<json> Told(protocol::RequestId order) const {
    std::vector<json> told;
    for (const protocol::CacheAnswer& answer : sink_.cache_answers)
      if (answer.rid == order) told.push_back(json::parse(answer.json));
    return told;
  }
  json OnlyAnswer(protocol::RequestId order) const {
    const std::vector<json> told = Told(order);
    EXPECT_EQ(told.size(), 1u) << "order " << order;
    return told.empty() ? json() : told[0];
  }
  void RunUpkeep() {
    for (int i = 0; i < 10'000 && generator_->HasUpkeep(); ++i) generator_->Upkeep();
    EXPECT_FALSE(generator_->HasUpkeep());
  }
  json Do(CacheOperation operation, bool unused_only = false) {
    const auto order = Order(operation, unused_only);
    RunUpkeep();
    return OnlyAnswer(order);
  }
  json Stats() { return Do(CacheOperation::kStats); }
  // The clock goes on so far, in steps of a second.
  void Wait(int64_t seconds) {
    for (int64_t i = 0; i < seconds; ++i) {
      clock_us += kSecondUs;
      generator_->Tick();
    }
  }

  protocol::Submit AskNamed(const std::string& id, const Ids& prompt, int answer,
                            const CacheChoice& cache = {}) {
    protocol::Submit submit = Ask(prompt, answer, cache);
    submit.request.conversation_id = id;
    return submit;
  }
  uint64_t Slab() const { return store_->memory().geometry().slab_bytes; }
  void Flip(PageIndex page, size_t at) { store_->address(page)[at] ^= std::byte{1}; }
  // Its state is what the next page's first token is computed from.
  void FlipLastState(PageIndex page) { Flip(page, (kPage - 1) * sizeof(uint64_t)); }

  protocol::RequestId last_order_ = 1'000'000;
};

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

// --- health ------------------------------------------------------------------------------------

TEST_F(CacheOperatorTest, AWholeCacheIsHealthy) {
  StartWith(64);
  Say(Text(100, 1), 29);
  Say(Text(100, 2), 29, Quantized(8));
  const auto one = Order(CacheOperation::kHealth), other = Order(CacheOperation::kHealth);
  EXPECT_TRUE(Told(one).empty());
  RunUpkeep();
  json told = OnlyAnswer(one);
  EXPECT_EQ(told, OnlyAnswer(other));
  EXPECT_GE(told["seconds"], 0);
  told.erase("seconds");
  const json expected = {{"healthy", true},    {"issues", json::array()},
                         {"damaged_now", 0},   {"damaged", 0},
                         {"checked_pages", 8}, {"checked_bytes", store_->used_bytes()}};
  EXPECT_EQ(told, expected);
}

TEST_F(CacheOperatorTest, ADamagedPageIsNamedAndComputedAgain) {
  for (const size_t damaged : {0, 2, 3}) {
    StartWith(64);
    const auto first = Say(Text(100, 1), 29), other = Say(Text(100, 2), 29);
    const PageIndex page = PagesOf(Ticket(first).conversation_id)[damaged];
    FlipLastState(page);
    const json told = Do(CacheOperation::kHealth);
    EXPECT_EQ(told["healthy"], false);
    ASSERT_EQ(told["issues"].size(), 1u);
    EXPECT_THAT(told["issues"][0].get<std::string>(),
                HasSubstr(fmt::format("KV page {} (page {} of its chain)", page, damaged)));
    EXPECT_EQ(told["damaged_now"], 4 - damaged) << "it, and what follows it";
    EXPECT_EQ(told["damaged"], 4 - damaged);
    EXPECT_EQ(told["checked_pages"], 8);
    EXPECT_EQ(Stats()["entries"], 2) << "the conversation is still known";
    EXPECT_EQ(Stats()["pages"]["damaged"], 4 - damaged);
    // Each is told once.
    const json again = Do(CacheOperation::kHealth);
    EXPECT_EQ(again["healthy"], true);
    EXPECT_EQ(again["damaged_now"], 0);
    EXPECT_EQ(again["damaged"], 4 - damaged);
    const auto next = Ask(History(first) + Text(20, 3), 20);
    Say(next);
    EXPECT_EQ(Ticket(next.rid).conversation_id, Ticket(first).conversation_id);
    EXPECT_EQ(Cached(next.rid), static_cast<int>(damaged) * kPage);
    EXPECT_EQ(Answer(next.rid), Cold(next, {}));
    EXPECT_EQ(Cached(Say(History(other) + Text(20, 3), 20)), 128);
  }
}

TEST_F(CacheOperatorTest, AConversationWithADamagedPageIsNotPinned) {
  StartWith(64);
  const auto first = Say(Text(100, 1), 29, OfType("concatenate_kv")),
             other = Say(Text(100, 2), 29, OfType("concatenate_kv"));
  const uint64_t k16 = store_->page_bytes();
  ASSERT_EQ(generator_->conversations().pinned_bytes(), 8 * k16);
  FlipLastState(PagesOf(Ticket(first).conversation_id)[3]);
  const json told = Do(CacheOperation::kHealth);
  EXPECT_EQ(told["issues"].size(), 1u);
  EXPECT_EQ(told["damaged_now"], 1);
  EXPECT_EQ(generator_->conversations().pinned_bytes(), 4 * k16) << "the other one's";
  const auto next = Ask(History(first) + Text(20, 3), 20);
  Say(next);
  EXPECT_EQ(Cached(next.rid), 3 * kPage);
  EXPECT_EQ(Answer(next.rid), Cold(next, {}));
  EXPECT_EQ(generator_->conversations().pinned_bytes(), (4 + 6) * k16) << "with its next turn";
  EXPECT_EQ(Cached(Say(History(other) + Text(20, 3), 20)), 128);
}

TEST_F(CacheOperatorTest, ARunningRequestComputesADamagedPageAgain) {
  StartWith(64);
  const auto hit = Ask(Text(100, 1), 60), other = Ask(Text(100, 2), 60);
  Submit(hit);
  Submit(other);
  // All of four pages, and nothing of the next one.
  while (Answer(hit.rid).size() < 29 || Answer(other.rid).size() < 29) generator_->Step();
  ASSERT_EQ(Answer(hit.rid).size(), 29u);
  ASSERT_EQ(Answer(other.rid).size(), 29u);
  const Ids history = History(hit.rid);
  std::optional<PageIndex> fourth;
  for (PageIndex page = 0; page < store_->pages_end(); ++page)
    if (std::ranges::equal(store_->tokens(page), std::span(history).subspan(3 * kPage, kPage)))
      fourth = page;
  ASSERT_TRUE(fourth);
  FlipLastState(*fourth);
  const json told = Do(CacheOperation::kHealth);
  EXPECT_EQ(told["healthy"], false);
  EXPECT_EQ(told["damaged_now"], 1);
  const size_t computed = computed_;
  RunAll();
  EXPECT_EQ(computed_ - computed, (159u - 96) + (159u - 128)) << "of one from there on";
  EXPECT_EQ(Answer(hit.rid), Cold(hit, {}));
  EXPECT_EQ(Answer(other.rid), Cold(other, {}));
  EXPECT_EQ(Do(CacheOperation::kHealth)["healthy"], true);
}

TEST_F(CacheOperatorTest, AChainThatIsDamagedTwiceIsDroppedOnce) {
  StartWith(64);
  const auto hit = Ask(Text(100, 1), 60);
  Submit(hit);
  while (Answer(hit.rid).size() < 29) generator_->Step();
  size_t flipped = 0;
  for (PageIndex page = 0; page < store_->pages_end(); ++page) {
    if (store_->is_open(page) || !store_->is_loaded(page)) continue;
    if (flipped++ > 0) FlipLastState(page);  // but for one of four
  }
  ASSERT_EQ(flipped, 4u);
  const json told = Do(CacheOperation::kHealth);
  EXPECT_EQ(told["issues"].size(), 1u);
  EXPECT_EQ(told["damaged_now"], 3);
  RunAll();
  EXPECT_EQ(Answer(hit.rid), Cold(hit, {}));
  EXPECT_EQ(Do(CacheOperation::kHealth)["healthy"], true);
}

// What a rotating request has gone past is damaged: all that it sees was computed from that.
TEST_F(CacheOperatorTest, ARotatingRequestGoesBackBehindADamagedPage) {
  StartWith(64);
  const auto first = Say(Text(200, 1), 2);  // has the same first two pages
  const auto rotating = AskNamed("rotates", Text(200, 1), 120, Rotating(69, 5));
  Submit(rotating);
  while (Answer(rotating.rid).size() < 57) generator_->Step();  // 256 are computed
  FlipLastState(PagesOf(Ticket(first).conversation_id)[1]);
  const json told = Do(CacheOperation::kHealth);
  EXPECT_EQ(told["issues"].size(), 1u);
  const size_t computed = computed_;
  RunAll();
  EXPECT_EQ(computed_ - computed, 319u - 32);
  EXPECT_EQ(Answer(rotating.rid), Cold(rotating, Ticket(rotating.rid).cache));
  const auto next = Ask(History(first) + Text(20, 3), 20);
  Say(next);
  EXPECT_EQ(Answer(next.rid), Cold(next, {}));
}

TEST_F(CacheOperatorTest, DamageFoundByUseIsToldWithTheNextCheck) {
  StartWith(64);
  const auto first = Say(Text(100, 1), 29);
  const Ids history = History(first);
  FlipLastState(PagesOf(Ticket(first).conversation_id)[3]);
  Die();  // who takes over compares pages with what they should be
  const auto next = Ask(history + Text(20, 3), 20);
  Say(next);
  EXPECT_EQ(Cached(next.rid), 96);
  EXPECT_EQ(Answer(next.rid), Cold(next, {}));
  json told = Do(CacheOperation::kHealth);
  EXPECT_EQ(told["healthy"], false);
  EXPECT_EQ(told["issues"].size(), 1u);
  EXPECT_EQ(told["damaged_now"], 0);
  EXPECT_EQ(told["damaged"], 1);
  told = Do(CacheOperation::kHealth);
  EXPECT_EQ(told["healthy"], true);
}

TEST_F(CacheOperatorTest, WhatWasNotWholeAtTheStartIsTold) {
  StartWith(64);
  const auto first = Say(Text(100, 1), 29);
  const Ids history = History(first);
  auto left = static_cast<shm::WatchedMemory&>(store_->memory()).Copy();
  left->descriptor(PagesOf(Ticket(first).conversation_id)[2]).checksum ^= 1;
  StartOver(std::make_unique<shm::PageStore>(std::move(left), pages_));
  const json told = Do(CacheOperation::kHealth);
  EXPECT_EQ(told["healthy"], false);
  ASSERT_EQ(told["issues"].size(), 1u);
  EXPECT_THAT(told["issues"][0].get<std::string>(), HasSubstr("2 pages were not whole"));
  EXPECT_EQ(told["damaged_now"], 0);
  EXPECT_EQ(told["damaged"], 2);
  EXPECT_EQ(told["checked_pages"], 2);
  EXPECT_EQ(Do(CacheOperation::kHealth)["healthy"], true);
  const auto next = Ask(history + Text(20, 3), 20);
  Say(next);
  EXPECT_EQ(Cached(next.rid), 64);
  EXPECT_EQ(Answer(next.rid), Cold(next, {}));
}

TEST_F(CacheOperatorTest, OfMuchDamageTheLastIsNamed) {
  StartWith(256);
  constexpr size_t kDamaged = limits::kArenaProblemsShown + 5;
  for (size_t i = 0; i < kDamaged; ++i) {
    const auto rid = Say(AskNamed(std::to_string(i), Text(40, static_cast<int>(i)), 25));
    FlipLastState(PagesOf(Ticket(rid).conversation_id)[0]);
  }
  const json told = Do(CacheOperation::kHealth);
  EXPECT_EQ(told["issues"].size(), limits::kArenaProblemsShown);
  EXPECT_EQ(told["damaged_now"], 2 * kDamaged);
  EXPECT_EQ(store_->used(), 0u);
}

// --- recommend ---------------------------------------------------------------------------------

TEST_F(CacheOperatorTest, WithoutAReasonNothingIsRecommended) {
  StartWith(64);
  const json nothing = {{"recommendations", json::array()}};
  EXPECT_EQ(Do(CacheOperation::kRecommend), nothing);
  Say(Text(40, 1), 23);
  const auto order = Order(CacheOperation::kRecommend);
  EXPECT_EQ(OnlyAnswer(order), nothing) << "at once: 63 tokens are too few to measure";
}

TEST_F(CacheOperatorTest, RecommendsFromWhatWasMeasured) {
  StartWith(64);
  Say(Text(130, 1), 10);
  for (int i = 2; i < 8; ++i) Say(Text(140, i), 20);
  const auto last = Say(Text(140, 8), 20);
  const auto used = store_->used();
  ASSERT_GE(used, 32u) << "or there is no reason";
  const size_t computed = computed_;
  const auto order = Order(CacheOperation::kRecommend), other = Order(CacheOperation::kRecommend);
  EXPECT_TRUE(Told(order).empty());
  RunUpkeep();
  EXPECT_EQ(computed_ - computed, 3u * 160) << "the longest one, once for both";
  const json told = OnlyAnswer(order);
  EXPECT_EQ(told, OnlyAnswer(other));
  const double bits8 = told["measured"]["kl_bits8"], bits4 = told["measured"]["kl_bits4"];
  EXPECT_GT(bits8, 0);
  EXPECT_GT(bits4, 0);
  EXPECT_EQ(told["measured"]["positions"], 64);
  ASSERT_EQ(told["recommendations"].size(), 1u) << told;
  EXPECT_THAT(told["recommendations"][0]["text"].get<std::string>(),
              AllOf(HasSubstr(fmt::format("{:.0f}% of this model's memory", 100.0 * used / 64)),
                    HasSubstr(fmt::format("8 bits (measured KL {:.0e})", bits8)),
                    HasSubstr(fmt::format("4 bits (measured KL {:.0e})", bits4))));
  EXPECT_EQ(told["recommendations"][0]["setting"], "cache_type = \"quantized_kv\"");
  // It leaves nothing behind, and is not done again.
  EXPECT_EQ(store_->used(), used);
  EXPECT_EQ(Cached(Say(History(last) + Text(20, 2), 10)), 159);
  const size_t done = computed_;
  const auto later = Order(CacheOperation::kRecommend);
  EXPECT_EQ(OnlyAnswer(later)["measured"], told["measured"]);
  EXPECT_EQ(computed_, done);
}

TEST_F(CacheOperatorTest, AdviceIsNotAboutWhatMeasuringTook) {
  StartWith(64);
  Say(Text(100, 1), 29);
  const uint64_t granted = store_->bytes_granted();
  const json told = Do(CacheOperation::kRecommend);
  EXPECT_TRUE(told.contains("measured"));
  EXPECT_EQ(told["recommendations"], json::array());
  EXPECT_EQ(store_->bytes_granted(), granted);
}

TEST_F(CacheOperatorTest, MeasuresTheBeginningOfALongConversation) {
  StartWith(128);
  Say(Text(1000, 1), 10);
  const size_t computed = computed_;
  EXPECT_EQ(Do(CacheOperation::kRecommend)["measured"]["positions"], 64);
  EXPECT_EQ(computed_ - computed, 3 * limits::kDivergenceTokensMax);
}

TEST_F(CacheOperatorTest, MeasuringWaitsForAnIdleWorker) {
  StartWith(64);
  Say(Text(100, 1), 29);
  const auto running = Ask(Text(100, 2), 500);
  Submit(running);
  const auto order = Order(CacheOperation::kRecommend);
  EXPECT_FALSE(generator_->HasUpkeep());
  RunAll();
  EXPECT_TRUE(Told(order).empty());
  EXPECT_TRUE(generator_->HasUpkeep());
  RunUpkeep();
  EXPECT_TRUE(OnlyAnswer(order).contains("measured"));
  EXPECT_EQ(Answer(running.rid), Cold(running, {}));
}

TEST_F(CacheOperatorTest, AdviceComesInTimeWhateverRuns) {
  StartWith(64);
  Say(Text(100, 1), 29);
  const auto running = Ask(Text(100, 2), 500);
  const auto order = Order(CacheOperation::kRecommend);
  generator_->Upkeep();  // some of it is done
  Submit(running);
  Wait(limits::kAdviceWaitMs / 1000 - 1);
  EXPECT_TRUE(Told(order).empty());
  Wait(2);
  EXPECT_FALSE(OnlyAnswer(order).contains("measured"));
  RunAll();
  EXPECT_FALSE(generator_->HasUpkeep()) << "it was given up";
  EXPECT_EQ(Answer(running.rid), Cold(running, {}));
  EXPECT_TRUE(Do(CacheOperation::kRecommend).contains("measured"));
  Wait(100);
  EXPECT_EQ(Told(order).size(), 1u);
}

TEST_F(CacheOperatorTest, MeasuringTakesNothingFromOthers) {
  StartWith(16);
  Say(Text(300, 1), 21);
  Say(Text(100, 2), 21);
  const size_t used = store_->used();
  ASSERT_TRUE(Do(CacheOperation::kRecommend).contains("measured"));
  EXPECT_EQ(store_->used(), used);
  EXPECT_EQ(store_->evicted(), 0u);
}

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
