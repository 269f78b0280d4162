#include "supervisor/suspects.h"

#include <gtest/gtest.h>

#include "base/limits.h"

namespace perdure::supervisor {
namespace {

using Rids = std::vector<protocol::RequestId>;

protocol::RequestId Death(Suspects* suspects, const Rids& rids) { return suspects->OnDeath(rids); }

TEST(Suspects, TheOneThatIsAloneInItsSecondDeathIsGivenUp) {
  Suspects s;
  EXPECT_EQ(Death(&s, {1, 2, 3}), 0u);
  EXPECT_EQ(s.suspects(), (Rids{1, 2, 3}));
  s.OnCleared(1);
  EXPECT_EQ(Death(&s, {2}), 2u);
  EXPECT_EQ(s.suspects(), (Rids{3}));
  EXPECT_EQ(s.quarantined(), (Rids{2}));
}

TEST(Suspects, AFirstDeathAloneIsNotEnough) {
  Suspects s;
  EXPECT_EQ(Death(&s, {7}), 0u);
  EXPECT_EQ(s.suspects(), (Rids{7}));
  EXPECT_EQ(Death(&s, {7}), 7u);
}

TEST(Suspects, WhoeverHasPassedBeginsAnew) {
  Suspects s;
  EXPECT_EQ(Death(&s, {7}), 0u);
  s.OnCleared(7);
  EXPECT_EQ(Death(&s, {7}), 0u);
  EXPECT_TRUE(s.quarantined().empty());
}

TEST(Suspects, DeathsTogetherQuarantineNobody) {
  Suspects s;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Death(&s, {1, 2}), 0u);
  EXPECT_EQ(Death(&s, {}), 0u);
  EXPECT_EQ(s.suspects(), (Rids{1, 2}));
}

TEST(Suspects, AreBounded) {
  Suspects s;
  for (protocol::RequestId rid = 1; rid <= 10 * limits::kSuspectsMax; ++rid) {
    Death(&s, {rid, rid + 1'000'000});
    Death(&s, {rid});
  }
  EXPECT_LE(s.suspects().size(), limits::kSuspectsMax);
  EXPECT_EQ(s.quarantined().size(), limits::kSuspectsMax);
  EXPECT_EQ(s.quarantined().back(), 10 * limits::kSuspectsMax);
}

}  // namespace
}  // namespace perdure::supervisor
