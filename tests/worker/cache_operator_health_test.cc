// Damage that a check of a cache finds, and advice from what was measured.
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

}  // namespace
}  // namespace perdure::worker
