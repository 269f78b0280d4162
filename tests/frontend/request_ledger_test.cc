#include "frontend/request_ledger.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

using State = RequestLedger::State;

RequestLedger Accepted(int choices = 1) {
  protocol::GenerationRequest request;
  request.choices = choices;
  RequestLedger ledger(9, request);
  EXPECT_EQ(ledger.MakeSubmit(false).rid, 9u);
  EXPECT_TRUE(ledger.OnAccepted({9, {1, 2, 3}}));
  return ledger;
}

protocol::Event EventOf(uint64_t seq, int32_t choice = 0) {
  return {9, choice, seq, {static_cast<TokenId>(seq)}, "t"};
}
protocol::End EndOf(uint64_t seq, int32_t choice = 0) {
  protocol::End end;
  end.rid = 9;
  end.choice = choice;
  end.seq = seq;
  return end;
}

TEST(RequestLedger, KeepsTheWholeTruth) {
  RequestLedger ledger = Accepted();
  for (uint64_t seq = 1; seq <= 3; ++seq) EXPECT_EQ(ledger.OnEvent(EventOf(seq), 10), true);
  EXPECT_EQ(ledger.choices()[0].token_ids, (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(ledger.prompt_ids(), (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(ledger.accepted().ticket.cache.type, "kv");
  EXPECT_EQ(ledger.OnEnd(EndOf(4)), true);
  EXPECT_EQ(ledger.state(), State::kEnded);
}

TEST(RequestLedger, RefusesBreaches) {
  EXPECT_FALSE(Accepted().OnEvent(EventOf(2), 1));
  EXPECT_FALSE(Accepted().OnEvent(EventOf(1, 1), 1));
  EXPECT_FALSE(Accepted().OnEvent(EventOf(1, -1), 1));
  EXPECT_FALSE(Accepted().OnEnd(EndOf(2)));
  EXPECT_FALSE(Accepted().OnEnd(EndOf(0)));
  EXPECT_FALSE(Accepted().OnAccepted({9, {}}));
  RequestLedger early(9, {});
  EXPECT_FALSE(early.OnEvent(EventOf(1), 1));
  EXPECT_FALSE(early.OnEnd(EndOf(1)));
  EXPECT_FALSE(early.OnAccepted({9, {}}));
  (void)early.MakeSubmit(false);
  EXPECT_FALSE(early.OnEvent(EventOf(1), 1));
  RequestLedger ended = Accepted();
  EXPECT_TRUE(ended.OnEnd(EndOf(1)));
  EXPECT_FALSE(ended.OnEvent(EventOf(2), 1));
  EXPECT_EQ(ended.OnEnd(EndOf(1)), false);  // again: no effect
}

TEST(RequestLedger, RefusesLogprobsThatDoNotAddUp) {
  const auto take = [](protocol::Event event, uint32_t out_before = 0) {
    protocol::GenerationRequest request;
    request.top_logprobs = 1;
    RequestLedger ledger(9, request);
    (void)ledger.MakeSubmit(false);
    EXPECT_TRUE(ledger.OnAccepted({9, {1}}));
    protocol::Event first = EventOf(1);
    first.logprobs.resize(1);
    first.tokens_out = out_before;
    EXPECT_TRUE(ledger.OnEvent(first, 1));
    return ledger.OnEvent(event, 1).has_value();
  };
  protocol::Event good = EventOf(2);
  good.logprobs.resize(1);
  good.logprobs[0].top.resize(1);
  good.tokens_out = 2;
  EXPECT_TRUE(take(good));
  protocol::Event bad = good;
  bad.tokens_out = 3;
  EXPECT_FALSE(take(bad));
  bad.tokens_out = 0;
  EXPECT_TRUE(take(bad));
  EXPECT_FALSE(take(bad, 1));
  bad = good;
  bad.logprobs.clear();
  EXPECT_FALSE(take(bad));
  bad = good;
  bad.logprobs.resize(2);
  EXPECT_FALSE(take(bad));
  bad = good;
  bad.logprobs[0].top.resize(2);
  EXPECT_FALSE(take(bad));
  bad = good;
  bad.logprobs[0].top[0].logprob = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(take(bad));
  bad.logprobs[0].top.clear();
  bad.logprobs[0].token.logprob = -std::numeric_limits<float>::infinity();
  EXPECT_FALSE(take(bad));
}

TEST(RequestLedger, IsSubmittedAgainUntilAWorkerHasAcceptedIt) {
  RequestLedger ledger(9, {});
  (void)ledger.MakeSubmit(false);
  ledger.TakeBack();
  EXPECT_EQ(ledger.state(), State::kWaiting);
  EXPECT_TRUE(ledger.MakeSubmit(true).suspect);
  EXPECT_TRUE(ledger.OnAccepted({9, {}}));
  ledger.TakeBack();
  EXPECT_EQ(ledger.state(), State::kOrphaned);
}

TEST(RequestLedger, TellsTheNextWorkerAllThatItHas) {
  protocol::GenerationRequest request;
  request.choices = 2;
  request.seed = 77;
  request.chat_json = "{}";
  RequestLedger ledger(9, request);
  (void)ledger.MakeSubmit(false);
  ASSERT_TRUE(ledger.OnAccepted({9, {1, 2, 3}}));
  ASSERT_TRUE(ledger.OnBegun({9, 0, 32}));
  EXPECT_FALSE(ledger.OnBegun({9, 0, 64})) << "it begins once";
  ASSERT_TRUE(ledger.OnEvent(EventOf(1, 0), 100));
  ASSERT_TRUE(ledger.OnEvent(EventOf(2, 0), 50));
  ASSERT_TRUE(ledger.OnEvent(EventOf(1, 1), 30));
  ASSERT_TRUE(ledger.OnEnd(EndOf(2, 1)));
  ledger.OnTaken(100);
  ledger.TakeBack();
  // While it waits the client reads on.
  ledger.OnTaken(30);
  const protocol::Resume resume = ledger.MakeResume(true);
  EXPECT_EQ(ledger.state(), State::kAccepted);
  EXPECT_EQ(resume.rid, 9u);
  EXPECT_EQ(resume.request.seed, 77u);
  EXPECT_EQ(resume.request.chat_json, "{}") << "its turn is stored by the next worker";
  EXPECT_EQ(resume.prompt_ids, (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(resume.ticket.cache.type, "kv");
  EXPECT_TRUE(resume.suspect);
  ASSERT_EQ(resume.choices.size(), 2u);
  EXPECT_EQ(resume.choices[0].last_seq, 2u);
  EXPECT_EQ(resume.choices[0].token_ids, (std::vector<TokenId>{1, 2}));
  EXPECT_FALSE(resume.choices[0].ended);
  EXPECT_EQ(resume.choices[0].from_arena, 32);
  EXPECT_FALSE(resume.choices[1].from_arena);
  EXPECT_TRUE(resume.choices[1].ended);
  // Unread bytes fill the new window too, and come back as credit to the new worker.
  EXPECT_EQ(resume.credit_bytes, limits::kCreditBytes - 50);
  EXPECT_EQ(ledger.bytes_under_way(), 50u);
  EXPECT_EQ(ledger.DrawCredit(1), 0u);
  ledger.OnTaken(50);
  EXPECT_EQ(ledger.DrawCredit(1), 50u);
  EXPECT_EQ(ledger.OnEvent(EventOf(2, 0), 5), false);
  EXPECT_EQ(ledger.OnEvent(EventOf(3, 0), 5), true);
}

TEST(RequestLedger, EndsWithItsLastChoice) {
  RequestLedger ledger = Accepted(2);
  EXPECT_EQ(ledger.OnEvent(EventOf(1, 1), 1), true);
  EXPECT_EQ(ledger.OnEnd(EndOf(2, 1)), true);
  EXPECT_EQ(ledger.state(), State::kAccepted);
  EXPECT_EQ(ledger.OnEvent(EventOf(1, 0), 1), true);
  EXPECT_EQ(ledger.OnEnd(EndOf(2, 0)), true);
  EXPECT_EQ(ledger.state(), State::kEnded);
}

// Whatever mixture of old and new events arrives: each number counts once, in order, and every
// payload byte comes back as credit exactly once.
TEST(RequestLedger, PropertyOfSeededRuns) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    std::mt19937 random(seed);
    auto below = [&random](uint64_t n) { return random() % n; };
    RequestLedger ledger = Accepted();
    uint64_t last = 0;
    size_t received = 0, taken = 0, credited = 0, under_way = 0;
    std::vector<TokenId> expected;
    for (int step = 0; step < 200; ++step) {
      const size_t bytes = 1 + below(5000);
      switch (below(4)) {
        case 0: {  // something known
          if (last == 0) break;
          const uint64_t old = 1 + below(last);
          ASSERT_EQ(ledger.OnEvent(EventOf(old), bytes), false);
          received += bytes;
          taken += bytes;
          break;
        }
        case 1: {  // the next
          ASSERT_EQ(ledger.OnEvent(EventOf(++last), bytes), true);
          expected.push_back(static_cast<TokenId>(last));
          received += bytes;
          under_way += bytes;
          break;
        }
        case 2: {  // the client takes some
          const size_t part = below(under_way + 1);
          ledger.OnTaken(part);
          taken += part;
          under_way -= part;
          break;
        }
        case 3: {
          const uint32_t portion = static_cast<uint32_t>(below(10'000));
          const uint32_t credit = ledger.DrawCredit(portion);
          ASSERT_TRUE(credit == 0 || credit >= portion);
          ASSERT_TRUE(credit > 0 || taken == credited || taken - credited < portion);
          credited += credit;
          break;
        }
      }
      ASSERT_LE(credited, taken);
      ASSERT_LE(taken, received);
      ASSERT_EQ(ledger.bytes_under_way(), under_way);
    }
    credited += ledger.DrawCredit(1);
    EXPECT_EQ(credited, taken);
    EXPECT_EQ(ledger.choices()[0].token_ids, expected);
    EXPECT_EQ(ledger.choices()[0].last_seq, last);
  }
}

}  // namespace
}  // namespace perdure::frontend
