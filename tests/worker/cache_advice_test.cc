#include "worker/cache_advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace perdure::worker {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// One that needs nothing.
CacheFacts Content() {
  CacheFacts facts;
  facts.bytes_max = 100 * kMiB;
  facts.bytes_granted = 24 * kMiB;
  facts.bytes_used = 20 * kMiB;
  facts.idle_bytes = 20 * kMiB;
  facts.pages[shm::PageFormat::kFloat16] = 20;
  facts.page_bytes[shm::PageFormat::kFloat16] = kMiB;
  facts.page_bytes[shm::PageFormat::kBits8] = kMiB / 2;
  facts.page_bytes[shm::PageFormat::kBits4] = kMiB / 4;
  return facts;
}
std::string Only(const CacheFacts& facts) {
  const auto advice = Advise(facts);
  EXPECT_EQ(advice.size(), 1u);
  return advice.empty() ? "" : advice[0].text + " -> " + advice[0].setting;
}

TEST(CacheAdviceTest, NoneWhereNothingIsWrong) { EXPECT_THAT(Advise(Content()), IsEmpty()); }

TEST(CacheAdviceTest, QuantizingWhereIdleConversationsHoldTheMemory) {
  CacheFacts facts = Content();
  facts.bytes_granted = facts.bytes_used = facts.idle_bytes = 70 * kMiB;
  facts.pages[shm::PageFormat::kFloat16] = 70;
  EXPECT_THAT(Only(facts), HasSubstr("not measured yet"));
  facts.divergence = CacheDivergence{4e-4, 2e-2, 100};
  EXPECT_THAT(Only(facts),
              AllOf(HasSubstr("70%"), HasSubstr("2.0x as many in 8 bits (measured KL 4e-04)"),
                    HasSubstr("4.0x in 4 bits (measured KL 2e-02)"), HasSubstr("quantized_kv")));
}

TEST(CacheAdviceTest, OptimizingOnlyWhereItReturnsMemory) {
  CacheFacts facts = Content();
  facts.bytes_granted = 60 * kMiB;  // two thirds of it hold nothing
  EXPECT_THAT(Advise(facts), IsEmpty());
  facts.bytes_spare = 36 * kMiB;
  EXPECT_THAT(Only(facts),
              AllOf(HasSubstr("36 MiB of 60 MiB"), HasSubstr("perdure cache optimize")));
}

TEST(CacheAdviceTest, MoreConversationsWhereSomeWereDisplaced) {
  CacheFacts facts = Content();
  facts.conversations_max = 100;
  facts.totals.displaced = 7;
  EXPECT_THAT(Only(facts),
              AllOf(HasSubstr("7 conversations"), HasSubstr("conversations.max = 200")));
}

TEST(CacheAdviceTest, TheOrderOfPromptsThatAreSeldomCached) {
  CacheFacts facts = Content();
  facts.use = {19, 1000, 100};
  EXPECT_THAT(Advise(facts), IsEmpty());  // too few to judge
  facts.use = {20, 1000, 100};
  EXPECT_THAT(Only(facts), HasSubstr("10%"));
  facts.use = {20, 1000, 300};
  EXPECT_THAT(Advise(facts), IsEmpty());
}

}  // namespace
}  // namespace perdure::worker
