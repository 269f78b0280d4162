#include "base/processors.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

namespace perdure {
namespace {

class ProcessorsTest : public testing::Test {
 protected:
  ProcessorsTest()
      : root_(std::filesystem::path(testing::TempDir()) /
              ("perdure_processors_" + std::to_string(getpid()) + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name())),
        allowed_(UsableProcessors(root_)) {}
  ~ProcessorsTest() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  // What the affinity allows, or less.
  int AtMost(int processors) const { return std::min(allowed_, processors); }

  const std::filesystem::path root_;
  const int allowed_;
};

TEST_F(ProcessorsTest, WithoutQuotasTheAffinityCounts) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(allowed_, CPU_COUNT(&before));
  // Of this thread alone, so that nothing has to be put back.
  std::thread([&] {
    int first = 0;
    while (!CPU_ISSET(first, &before)) ++first;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(UsableProcessors(root_), 1);
  }).join();
}

TEST_F(ProcessorsTest, HeedsEveryQuotaOfVersion2OnTheWayUp) {
  Write("proc/self/cgroup", "0::/a/b\n");
  Write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(UsableProcessors(root_), allowed_);
  Write("sys/fs/cgroup/a/cpu.max", "200000 100000\n");
  EXPECT_EQ(UsableProcessors(root_), AtMost(2));
  Write("sys/fs/cgroup/cpu.max", "100000 100000\n");
  EXPECT_EQ(UsableProcessors(root_), 1);
}

TEST_F(ProcessorsTest, RoundsDownButNotToNothing) {
  Write("proc/self/cgroup", "0::/a\n");
  Write("sys/fs/cgroup/a/cpu.max", "190000 100000\n");
  EXPECT_EQ(UsableProcessors(root_), 1);
  Write("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
  EXPECT_EQ(UsableProcessors(root_), 1);
}

TEST_F(ProcessorsTest, HeedsVersion1WhereverItIsMounted) {
  Write("proc/self/cgroup", "7:cpu,cpuacct:/a\n0::/x\n");
  Write("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "-1\n");
  Write("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(UsableProcessors(root_), allowed_);
  Write("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "100000\n");
  EXPECT_EQ(UsableProcessors(root_), 1);
  Write("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(UsableProcessors(root_), allowed_) << "the joined mount is the one";
  Write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n");
  Write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(UsableProcessors(root_), 1);
}

TEST_F(ProcessorsTest, NonsenseIsNoQuota) {
  Write("proc/self/cgroup", "0::/a\n");
  for (const char* text : {"", "x y\n", "100000\n", "-5 100000\n", "100000 0\n", "0 0\n"}) {
    Write("sys/fs/cgroup/a/cpu.max", text);
    EXPECT_EQ(UsableProcessors(root_), allowed_) << text;
  }
}

TEST(Processors, ThisProcessHasOne) { EXPECT_GE(UsableProcessors(), 1); }

}  // namespace
}  // namespace perdure
