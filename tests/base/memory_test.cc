#include "base/memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace perdure {
namespace {

class MemoryStateTest : public testing::Test {
 protected:
  MemoryStateTest()
      : root_(std::filesystem::path(testing::TempDir()) /
              ("perdure_memory_" + std::to_string(getpid()) + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name())) {
    Write("proc/meminfo", "MemTotal:  2000000 kB\nMemFree: 1 kB\nMemAvailable:    1000000 kB\n");
  }
  ~MemoryStateTest() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  const std::filesystem::path root_;
};

TEST_F(MemoryStateTest, ReadsTheSystems) {
  const MemoryState state = ReadMemoryState(root_);
  EXPECT_EQ(state.capacity, 2000000u * 1024);
  EXPECT_EQ(state.available, 1000000u * 1024);
}

TEST_F(MemoryStateTest, HeedsEveryGroupOfVersion2OnTheWayUp) {
  Write("proc/self/cgroup", "1:name=systemd:/other\n0::/a/b\n");
  Write("sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("sys/fs/cgroup/a/memory.max", "500000\n");
  Write("sys/fs/cgroup/a/memory.current", "200000\n");
  Write("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 50000\n");
  EXPECT_EQ(ReadMemoryState(root_).capacity, 500000u);
  EXPECT_EQ(ReadMemoryState(root_).available, 350000u);
  Write("sys/fs/cgroup/memory.max", "1000\n");
  EXPECT_EQ(ReadMemoryState(root_).capacity, 1000u);
  EXPECT_EQ(ReadMemoryState(root_).available, 1000u);
}

TEST_F(MemoryStateTest, HeedsEveryGroupOfVersion1OnTheWayUp) {
  Write("proc/self/cgroup", "4:cpu,memory:/a/b\n2:cpuset:/a/b/c\n0::/\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // none
  Write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "800000\n");
  Write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "700000\n");
  Write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "300000\n");
  Write("sys/fs/cgroup/memory/a/memory.stat",
        "cache 9\ninactive_file 1\ntotal_inactive_file 100000\n");
  EXPECT_EQ(ReadMemoryState(root_).capacity, 700000u);
  EXPECT_EQ(ReadMemoryState(root_).available, 500000u);
}

TEST_F(MemoryStateTest, AContainerSeesItsOwnGroupAsTheRoot) {
  Write("proc/self/cgroup", "4:memory:/docker/0123456789\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "600000\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "700000\n");
  EXPECT_EQ(ReadMemoryState(root_).capacity, 600000u);
  EXPECT_EQ(ReadMemoryState(root_).available, 0u);
}

TEST_F(MemoryStateTest, PathsDoNotLeaveTheHierarchy) {
  Write("proc/self/cgroup", "4:memory:/../..\nnonsense\n:\n0::\n");
  Write("sys/fs/memory.limit_in_bytes", "1\n");
  EXPECT_EQ(ReadMemoryState(root_).capacity, 2000000u * 1024);
}

TEST_F(MemoryStateTest, NothingReadableIsNothing) {
  EXPECT_EQ(ReadMemoryState(root_ / "none").capacity, 0u);
  EXPECT_EQ(ReadMemoryState(root_ / "none").available, 0u);
}

TEST(MemoryState, ThisMachineHasMemory) {
  const MemoryState state = ReadMemoryState();
  EXPECT_GT(state.available, 0u);
  EXPECT_GE(state.capacity, state.available);
}

}  // namespace
}  // namespace perdure
