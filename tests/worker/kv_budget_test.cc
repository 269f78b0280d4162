#include "worker/kv_budget.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "engine/kv_view.h"

namespace perdure::worker {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

KvBudgetInputs Inputs() {
  KvBudgetInputs in;
  in.model_context = 1024;  // 32 pages
  in.sequences_max = 8;
  in.page_bytes = kMiB;
  in.memory_available = 4000 * kMiB;
  return in;
}

TEST(KvBudgetTest, PlentyOfMemoryGivesEverySequenceAContext) {
  const auto budget = DeriveKvBudget(Inputs());
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 8u * 32);
  EXPECT_EQ(budget->max_context, 1024);
  EXPECT_FALSE(budget->context_cut);
}

TEST(KvBudgetTest, TakesAQuarterOfLess) {
  KvBudgetInputs in = Inputs();
  in.memory_available = 400 * kMiB;
  const auto budget = DeriveKvBudget(in);
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 100u);
  EXPECT_EQ(budget->max_context, 1024);
}

TEST(KvBudgetTest, TakesUpToHalfForOneWholeContext) {
  KvBudgetInputs in = Inputs();
  in.memory_available = 80 * kMiB;
  const auto budget = DeriveKvBudget(in);
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 32u);
  EXPECT_FALSE(budget->context_cut);
}

TEST(KvBudgetTest, CutsTheContextWhereEvenHalfIsTooLittle) {
  KvBudgetInputs in = Inputs();
  in.memory_available = 20 * kMiB;
  const auto budget = DeriveKvBudget(in);
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 10u);
  EXPECT_EQ(budget->max_context, 10 * engine::kPageTokens);
  EXPECT_TRUE(budget->context_cut);
}

TEST(KvBudgetTest, FollowsTheConfig) {
  KvBudgetInputs in = Inputs();
  in.kv_bytes_max = 40 * kMiB + 5;
  in.max_context = 500;
  const auto budget = DeriveKvBudget(in);
  ASSERT_TRUE(budget);
  EXPECT_EQ(budget->pages_max, 40u);
  EXPECT_EQ(budget->max_context, 500);
  in.max_context = 1'000'000;
  EXPECT_EQ(DeriveKvBudget(in)->max_context, 1024);
  in.kv_bytes_max = 2 * kMiB;
  EXPECT_EQ(DeriveKvBudget(in)->max_context, 2 * engine::kPageTokens);
  EXPECT_TRUE(DeriveKvBudget(in)->context_cut);
}

TEST(KvBudgetTest, RefusesLessThanAPage) {
  KvBudgetInputs in = Inputs();
  in.kv_bytes_max = kMiB - 1;
  const auto budget = DeriveKvBudget(in);
  ASSERT_FALSE(budget);
  EXPECT_EQ(budget.error().code, ErrorCode::out_of_memory);
}

class AvailableMemoryTest : public testing::Test {
 protected:
  AvailableMemoryTest()
      : root_(std::filesystem::path(testing::TempDir()) /
              ("perdure_memory_" + std::to_string(getpid()) + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~AvailableMemoryTest() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  const std::filesystem::path root_;
};

TEST_F(AvailableMemoryTest, ReadsTheSystems) {
  Write("proc/meminfo", "MemTotal:  100 kB\nMemAvailable:    70 kB\n");
  EXPECT_EQ(AvailableMemory(root_), 70u * 1024);
}

TEST_F(AvailableMemoryTest, HeedsEveryGroupOnTheWayUp) {
  Write("proc/meminfo", "MemAvailable:    1000000 kB\n");
  Write("proc/self/cgroup", "1:name=x:/other\n0::/a/b\n");
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("sys/fs/cgroup/a/memory.max", "500000\n");
  Write("sys/fs/cgroup/a/memory.current", "200000\n");
  Write("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 50000\n");
  EXPECT_EQ(AvailableMemory(root_), 350000u);
  Write("sys/fs/cgroup/memory.max", "1000\n");
  EXPECT_EQ(AvailableMemory(root_), 1000u);
}

TEST_F(AvailableMemoryTest, NothingReadableIsNothing) { EXPECT_EQ(AvailableMemory(root_), 0u); }

}  // namespace
}  // namespace perdure::worker
