// Conversations whose cache becomes another one: by a rule, or because a request says so. Either
// way the answer is that of a cold run under the schedule that is recorded.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/worker/cache_fixture.h"

namespace perdure::worker {
namespace {

CachePhase From(int at, const CacheChoice& cache) {
  CachePhase phase;
  phase.at = at;
  phase.settings = cache.settings;
  return phase;
}

class CacheSwitchTest : public CacheTest {
 protected:
  CacheSwitchTest() { StartWith(256); }

  // In 8 bits from the first page after position 120 on; few positions are seen from 200 on.
  static CacheChoice Rule() {
    CacheChoice cache = OfType("kv");
    cache.then = {From(120, Quantized(8)), From(200, Rotating(96, 5))};
    return cache;
  }
  static std::vector<CacheChoice> AllTypes() {
    return {OfType("kv"),    Quantized(8), Quantized(4),
            Rotating(69, 5), Chunked(64),  OfType("concatenate_kv")};
  }
};

// --- By a rule ---------------------------------------------------------------------------------

TEST_F(CacheSwitchTest, ARuleSwitchesWithinAnAnswerAsInAColdRun) {
  const auto submit = Ask(Text(100, 1), 160, Rule());
  Say(submit);
  const CacheSchedule schedule = Ticket(submit.rid).cache;
  const std::vector<CacheSegment> segments = {
      {0, 16, 0, 0}, {128, 8, 0, 0}, {200, 8, 5, 96}, {224, 16, 5, 96}};
  EXPECT_EQ(schedule.segments, segments);
  const Ids answer = Answer(submit.rid), plain = Cold(submit, {});
  EXPECT_EQ(answer, Cold(submit, schedule));
  // The token at 129 is the first that is drawn behind a position in 8 bits.
  EXPECT_EQ(First(answer, 29), First(plain, 29));
  EXPECT_NE(First(answer, 100), First(plain, 100));
  EXPECT_GT(store_->loaded()[shm::PageFormat::kBits8], 0u);
}

TEST_F(CacheSwitchTest, ARuleHoldsForTheTurnsThatFollow) {
  const auto first = Ask(Text(70, 1), 30, Rule());
  Say(first);
  Ids history = History(first.rid);
  for (int turn = 2; turn <= 6; ++turn) {
    SCOPED_TRACE(testing::Message() << "turn " << turn);
    const auto next = Ask(history + Text(20, turn), 30);
    Say(next);
    EXPECT_EQ(Ticket(next.rid).cache, Ticket(first.rid).cache);
    EXPECT_EQ(Cached(next.rid), static_cast<int>(history.size()) - 1);
    EXPECT_EQ(Answer(next.rid), Cold(next, Ticket(next.rid).cache));
    history = History(next.rid);
  }
  EXPECT_GT(history.size(), 300u);
}

TEST_F(CacheSwitchTest, ARuleHoldsForALongPromptAtOnce) {
  const auto submit = Ask(Text(400, 1), 30, Rule());
  Say(submit);
  EXPECT_EQ(Answer(submit.rid), Cold(submit, Ticket(submit.rid).cache));
  EXPECT_NE(Answer(submit.rid), Cold(submit, {}));
}

TEST_F(CacheSwitchTest, AnAnswerThatSwitchesGoesOnAfterADeath) {
  const auto submit = Ask(Text(100, 1), 160, Rule());
  for (const size_t drawn : {27u, 60u, 101u, 130u}) {
    SCOPED_TRACE(testing::Message() << "after " << drawn << " tokens");
    StartWith(256);
    Submit(submit);
    while (Answer(submit.rid).size() < drawn) generator_->Step();
    const auto resume = Rest(submit, Ticket(submit.rid), Answer(submit.rid));
    Die();
    Expect(&sink_, resume);
    computed_ = 0;
    ASSERT_TRUE(generator_->Resume(resume));
    RunAll();
    EXPECT_EQ(Answer(submit.rid), Cold(submit, resume.ticket.cache));
    EXPECT_LE(computed_, kPage + 160 - drawn) << "what was in full pages is there";
  }
}

// --- By a request ------------------------------------------------------------------------------

TEST_F(CacheSwitchTest, ARequestSwitchesFromWhereItGoesOn) {
  for (const CacheChoice& from : AllTypes()) {
    for (const CacheChoice& to : AllTypes()) {
      SCOPED_TRACE(from.settings.type + " to " + to.settings.type);
      StartWith(256);
      const auto first = Say(Text(100, 1), 40, from);
      const auto second = Ask(History(first) + Text(60, 2), 40, to);
      Say(second);
      const CacheSchedule schedule = Ticket(second.rid).cache;
      EXPECT_TRUE(sink_[second.rid].accepted->warnings.empty());
      EXPECT_EQ(schedule.type, to.settings.type);
      EXPECT_EQ(schedule.segments[0], Ticket(first).cache.segments[0]);
      EXPECT_EQ(Answer(second.rid), Cold(second, schedule));
      EXPECT_EQ(Ticket(second.rid).conversation_id, Ticket(first).conversation_id);
      // What has rotated away is missed by who sees all of the past; else all is of use.
      const bool has_all = from.settings.type != "rotating_kv" || from == to;
      if (has_all) {
        EXPECT_EQ(Cached(second.rid), 139);
      } else {
        EXPECT_LT(Cached(second.rid), 139);
      }
      // A request that says nothing goes on as it was.
      const auto third = Ask(History(second.rid) + Text(20, 3), 40);
      Say(third);
      EXPECT_EQ(Ticket(third.rid).cache, schedule);
      EXPECT_EQ(Cached(third.rid), 239);
      EXPECT_EQ(Answer(third.rid), Cold(third, schedule));
    }
  }
}

TEST_F(CacheSwitchTest, ASwitchCountsFromItsPosition) {
  const auto first = Say(Text(100, 1), 40, OfType("kv"));
  const auto second = Ask(History(first) + Text(60, 2), 40, Rotating(69, 5));
  Say(second);
  EXPECT_EQ(Ticket(second.rid).cache.segments,
            (std::vector<CacheSegment>{{0, 16, 0, 0}, {140, 16, 5, 69}}));
  EXPECT_NE(Answer(second.rid), Cold(second, ResolveCache(Rotating(69, 5), {}).schedule));
  EXPECT_NE(Answer(second.rid), Cold(second, {}));
  // Other bits begin with a page.
  const auto third = Ask(History(second.rid) + Text(60, 3), 40, Quantized(4));
  Say(third);
  EXPECT_EQ(Ticket(third.rid).cache.segments,
            (std::vector<CacheSegment>{
                {0, 16, 0, 0}, {140, 16, 5, 69}, {240, 16, 0, 0}, {256, 4, 0, 0}}));
  EXPECT_EQ(Answer(third.rid), Cold(third, Ticket(third.rid).cache));
}

TEST_F(CacheSwitchTest, AnEditBeforeASwitchUndoesIt) {
  const Ids prompt = Text(100, 1);
  const auto first = Say(prompt, 40, OfType("kv"));
  const auto second = Ask(History(first) + Text(60, 2), 5, Quantized(4));
  Say(second);
  auto edited = Ask(prompt + Text(40, 4), 40, Quantized(8));
  edited.request.conversation_id = Ticket(second.rid).conversation_id;
  Say(edited);
  EXPECT_EQ(Ticket(edited.rid).cache.segments,
            (std::vector<CacheSegment>{{0, 16, 0, 0}, {128, 8, 0, 0}}));
  EXPECT_EQ(Cached(edited.rid), 100);
  EXPECT_EQ(Answer(edited.rid), Cold(edited, Ticket(edited.rid).cache));
}

TEST_F(CacheSwitchTest, ThereIsAMostOfSwitches) {
  Ids history = History(Say(Text(50, 1), 5, OfType("kv")));
  for (int change = 1; change <= limits::kCacheSegmentsMax; ++change) {
    const auto next = Ask(history + Text(5, 2), 5, Rotating(70 + change, 5));
    Say(next);
    const bool too_many = change == limits::kCacheSegmentsMax;
    EXPECT_EQ(sink_[next.rid].accepted->warnings.size(), too_many ? 1u : 0u) << change;
    EXPECT_EQ(Ticket(next.rid).cache.segments.back().size, 70 + change - (too_many ? 1 : 0));
    EXPECT_EQ(Answer(next.rid), Cold(next, Ticket(next.rid).cache));
    history = History(next.rid);
  }
}

}  // namespace
}  // namespace perdure::worker
