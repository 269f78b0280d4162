#include "frontend/memory_calls.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/limits.h"
#include "call_fakes.h"

namespace perdure::frontend {
namespace {

class MemoryCallsTest : public testing::Test {
 protected:
  std::vector<uint64_t> asked_;
  MemoryCalls calls_{[this](const protocol::MemoryQuery& query) { asked_.push_back(query.id); }};
  WholeAnswerSink sink_;
};

TEST_F(MemoryCallsTest, PassesTheSupervisorsAnswerOnOnce) {
  ASSERT_TRUE(calls_.Start(7, &sink_, 0));
  EXPECT_EQ(asked_, std::vector<uint64_t>{7});
  calls_.OnReport({8, "{}"});
  EXPECT_TRUE(sink_.responses.empty()) << "somebody else's";
  calls_.OnReport({7, R"({"a":1})"});
  calls_.OnReport({7, "{}"});
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_EQ(sink_.responses[0].status, 200);
  EXPECT_EQ(sink_.responses[0].body, R"({"a":1})");
  EXPECT_EQ(calls_.active(), 0u);
}

TEST_F(MemoryCallsTest, AClientThatIsGoneGetsNothing) {
  ASSERT_TRUE(calls_.Start(7, &sink_, 0));
  calls_.OnClientGone(7);
  calls_.OnReport({7, "{}"});
  calls_.OnTick(limits::kMemoryCallWaitMs);
  EXPECT_TRUE(sink_.responses.empty());
}

TEST_F(MemoryCallsTest, ASilentSupervisorIsNotWaitedForInVain) {
  ASSERT_TRUE(calls_.Start(7, &sink_, 100));
  calls_.OnTick(99 + limits::kMemoryCallWaitMs);
  EXPECT_TRUE(sink_.responses.empty());
  calls_.OnTick(100 + limits::kMemoryCallWaitMs);
  ASSERT_EQ(sink_.responses.size(), 1u);
  EXPECT_GE(sink_.responses[0].status, 400);
  EXPECT_EQ(calls_.active(), 0u);
}

TEST_F(MemoryCallsTest, ThereAreOnlySoMany) {
  for (size_t i = 0; i < limits::kMemoryCallsMax; ++i) ASSERT_TRUE(calls_.Start(i + 1, &sink_, 0));
  EXPECT_FALSE(calls_.Start(1000, &sink_, 0));
}

}  // namespace
}  // namespace perdure::frontend
