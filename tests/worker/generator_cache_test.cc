// What every type of cache owes a conversation: it is continued, branched, and resumed after a
// death, with the tokens that a cold run under the same schedule draws, and without computing again
// what is there.
#include <gtest/gtest.h>

#include <string>

#include "tests/worker/cache_fixture.h"

namespace perdure::worker {
namespace {

constexpr int kPrompt = 100;
constexpr int kAnswer = 40;
// Of a turn's tokens: the last one drawn is not computed.
constexpr int kLeft = kPrompt + kAnswer - 1;

struct CacheCase {
  const char* name;
  CacheChoice cache;
  shm::PageFormat format = shm::PageFormat::kFloat16;
  bool rotates = false;
};

class CacheTypeTest : public CacheTest, public testing::WithParamInterface<CacheCase> {
 protected:
  CacheTypeTest() { StartWith(256); }

  const CacheChoice& cache() const { return GetParam().cache; }
  Ids FirstTurn() { return History(Say(Text(kPrompt, 1), kAnswer, cache())); }
};

TEST_P(CacheTypeTest, IsWhatWasAskedFor) {
  const auto rid = Say(Text(kPrompt, 1), kAnswer, cache());
  EXPECT_EQ(Ticket(rid).cache.type, GetParam().cache.settings.type);
  EXPECT_TRUE(sink_[rid].accepted->warnings.empty());
  EXPECT_EQ(Cached(rid), 0);
  const shm::PerFormat<uint64_t>& loaded = store_->loaded();
  for (const shm::PageFormat format : shm::kAllFormats)
    EXPECT_EQ(loaded[format] > 0, format == GetParam().format);
  EXPECT_EQ(store_->used_bytes(), store_->used() * store_->page_bytes(GetParam().format));
  EXPECT_EQ(Rotates(Ticket(rid).cache), GetParam().rotates);
}

TEST_P(CacheTypeTest, ATurnGoesOnFromTheLastOne) {
  const Ids before = FirstTurn();
  computed_ = 0;
  const auto second = Ask(before + Text(30, 2), kAnswer, cache());
  Say(second);
  EXPECT_EQ(Cached(second.rid), kLeft);
  EXPECT_EQ(computed_, 1u + 30 + kAnswer - 1) << "nothing is computed twice";
  EXPECT_EQ(Answer(second.rid), Cold(second, Ticket(second.rid).cache));

  const auto third = Ask(History(second.rid) + Text(10, 3), kAnswer, cache());
  Say(third);
  EXPECT_EQ(Cached(third.rid), kLeft + 30 + kAnswer);
  EXPECT_EQ(Answer(third.rid), Cold(third, Ticket(third.rid).cache));
  EXPECT_EQ(Ticket(third.rid).conversation_id, Ticket(second.rid).conversation_id);
  EXPECT_EQ(generator_->conversations().all().size(), 1u);
}

TEST_P(CacheTypeTest, TheTypeIsRemembered) {
  const Ids before = FirstTurn();
  const auto second = Ask(before + Text(30, 2), kAnswer);
  Say(second);
  EXPECT_EQ(Ticket(second.rid).cache, Ticket(1).cache);
  EXPECT_EQ(Cached(second.rid), kLeft);
}

TEST_P(CacheTypeTest, BranchesShareWhatTheyHaveInCommon) {
  const Ids before = FirstTurn();
  const auto one = Ask(before + Text(30, 2), kAnswer, cache());
  const auto other = Ask(before + Text(30, 3), kAnswer, cache());
  Submit(one);
  Submit(other);
  RunAll();
  EXPECT_EQ(Cached(one.rid), kLeft);
  EXPECT_EQ(Cached(other.rid), kLeft);
  EXPECT_EQ(Answer(one.rid), Cold(one, Ticket(one.rid).cache));
  EXPECT_EQ(Answer(other.rid), Cold(other, Ticket(other.rid).cache));
  EXPECT_NE(Answer(one.rid), Answer(other.rid));
  const auto& all = generator_->conversations().all();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_NE(all[0]->id, all[1]->id);
  const std::vector<PageIndex> first = PagesOf(all[0]->id), second = PagesOf(all[1]->id);
  const size_t common = kLeft / kPage;
  ASSERT_GT(first.size(), common);
  ASSERT_GT(second.size(), common);
  for (size_t i = 0; i < std::min(first.size(), second.size()); ++i)
    EXPECT_EQ(first[i] == second[i], i < common) << "page " << i;
}

TEST_P(CacheTypeTest, AnAnswerGoesOnAfterADeath) {
  const Ids before = FirstTurn();
  const auto second = Ask(before + Text(30, 2), kAnswer, cache());
  const Ids whole = Cold(second, Ticket(1).cache);
  for (const size_t drawn : {0u, 1u, 23u, 39u}) {
    SCOPED_TRACE(testing::Message() << "after " << drawn << " tokens");
    StartWith(256);
    last_rid_ = 0;
    ASSERT_EQ(FirstTurn(), before);
    Submit(second);
    for (int i = 0; i < 100 && Answer(second.rid).size() < drawn; ++i) generator_->Step();
    ASSERT_EQ(Answer(second.rid).size(), drawn);
    const auto resume = Rest(second, Ticket(second.rid), Answer(second.rid));
    Die();
    Expect(&sink_, resume);
    computed_ = 0;
    ASSERT_TRUE(generator_->Resume(resume));
    RunAll();
    EXPECT_EQ(Answer(second.rid), whole);
    // What was not a full page is lost with the worker; the end of a turn is not.
    const auto known = second.request.prompt_ids->size() + drawn;
    const size_t kept = drawn == 0 ? kLeft : (known - 1) / kPage * kPage;
    EXPECT_EQ(computed_, known - kept + kAnswer - drawn - 1);
    EXPECT_EQ(generator_->conversations().all().size(), 1u);
    // The conversation goes on from there.
    last_rid_ = second.rid;
    const auto third = Ask(History(second.rid) + Text(10, 3), kAnswer, cache());
    Say(third);
    EXPECT_EQ(Cached(third.rid), kLeft + 30 + kAnswer);
    EXPECT_EQ(Ticket(third.rid).conversation_id, resume.ticket.conversation_id);
    EXPECT_EQ(Answer(third.rid), Cold(third, Ticket(third.rid).cache));
  }
}

TEST_P(CacheTypeTest, AConversationGoesOnAfterADeathBetweenItsTurns) {
  const Ids before = FirstTurn();
  const auto ticket = Ticket(1);
  Die();
  const auto second = Ask(before + Text(30, 2), kAnswer);
  Say(second);
  EXPECT_EQ(Cached(second.rid), kLeft);
  EXPECT_EQ(Ticket(second.rid).cache, ticket.cache) << "its type is remembered";
  EXPECT_EQ(Ticket(second.rid).conversation_id, ticket.conversation_id);
  EXPECT_EQ(Answer(second.rid), Cold(second, ticket.cache));
}

INSTANTIATE_TEST_SUITE_P(
    Types, CacheTypeTest,
    testing::Values(CacheCase{"kv", OfType("kv")},
                    CacheCase{"quantized_kv_8", Quantized(8), shm::PageFormat::kBits8},
                    CacheCase{"quantized_kv_4", Quantized(4), shm::PageFormat::kBits4},
                    CacheCase{"rotating_kv", Rotating(69, 5), shm::PageFormat::kFloat16, true},
                    CacheCase{"chunked_kv", Chunked(64)},
                    CacheCase{"concatenate_kv", OfType("concatenate_kv")}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace perdure::worker
