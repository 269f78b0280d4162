// One process at a time, and who waits for it.
#include "snapshot/file_lock.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "snapshot/environment.h"
#include "tests/base/temp_folder.h"
#include "tests/snapshot/environments.h"

namespace perdure::snapshot {
namespace {

class FileLockTest : public testing::Test {
 protected:
  const TempFolder folder_;
  const std::filesystem::path file_ = folder_.path() / "kv.mdb";
};

TEST_F(FileLockTest, IsTakenAtOnceOrNotAtAll) {
  auto lock = LockFile(file_, 0);
  ASSERT_TRUE(lock.has_value());
  const auto second = LockFile(file_, 0);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::overloaded);
  lock->reset();
  EXPECT_TRUE(LockFile(file_, 0).has_value());
}

TEST_F(FileLockTest, WaitsNoLongerThanAsked) {
  const auto lock = LockFile(file_, 0);
  const int64_t begin_ms = MonotonicMs();
  EXPECT_FALSE(LockFile(file_, 50).has_value());
  EXPECT_GE(MonotonicMs() - begin_ms, 50);
}

// A backup gives way to a worker that starts.
TEST_F(FileLockTest, SaysThatSomebodyWaits) {
  auto held = LockFile(file_, 0);
  ASSERT_TRUE(held.has_value());
  EXPECT_FALSE(IsLockWanted(held->get()));
  UniqueFd got;
  std::thread waits([&] {
    auto lock = LockFile(file_, 60'000);
    if (lock) got = std::move(*lock);
  });
  while (!IsLockWanted(held->get())) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  held->reset();
  waits.join();
  ASSERT_TRUE(got);
  EXPECT_FALSE(IsLockWanted(got.get())) << "that was somebody's before";
}

TEST_F(FileLockTest, AnEnvironmentWaitsForIt) {
  EnvironmentOptions options = EnvironmentAt(file_);
  auto first = OpenEnvironment(options);
  EXPECT_FALSE(first->IsWanted());
  options.lock_wait_ms = 60'000;
  std::unique_ptr<Environment> second;
  std::thread waits([&] { second = OpenEnvironment(options); });
  while (!first->IsWanted()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  first.reset();
  waits.join();
  EXPECT_NE(second, nullptr);
}

}  // namespace
}  // namespace perdure::snapshot
