#include "worker/job_thread.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <future>
#include <memory>
#include <vector>

namespace perdure::worker {
namespace {

constexpr int64_t kLongMs = 60'000;

// Until the test opens it.
struct Gate {
  std::promise<void> promise;
  std::shared_future<void> future{promise.get_future()};
  void Open() { promise.set_value(); }
  void Wait() const { future.wait(); }
};

TEST(JobThreadTest, JobsAreDoneOneAfterAnotherInOrder) {
  JobThread thread("test", false, 0, nullptr);
  std::vector<int> done;
  for (int i = 0; i < 1000; ++i) thread.Post([&done, i] { done.push_back(i); });
  EXPECT_TRUE(thread.WaitIdle(kLongMs));
  ASSERT_EQ(done.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(done[static_cast<size_t>(i)], i);
}

TEST(JobThreadTest, WithoutJobsNothingIsWaitedFor) {
  JobThread thread("test", false, 0, nullptr);
  EXPECT_TRUE(thread.WaitIdle(0));
}

TEST(JobThreadTest, WaitingEndsWithTheTimeOrTheJobs) {
  JobThread thread("test", false, 0, nullptr);
  Gate gate;
  std::atomic<int> done = 0;
  thread.Post([&] {
    gate.Wait();
    ++done;
  });
  thread.Post([&] { ++done; });
  EXPECT_FALSE(thread.WaitIdle(1));
  EXPECT_EQ(done, 0);
  gate.Open();
  EXPECT_TRUE(thread.WaitIdle(kLongMs));
  EXPECT_EQ(done, 2) << "the job at hand counts as well";
}

TEST(JobThreadTest, AJobMayPostOthers) {
  JobThread thread("test", false, 0, nullptr);
  std::atomic<int> done = 0;
  thread.Post([&] { thread.Post([&] { ++done; }); });
  EXPECT_TRUE(thread.WaitIdle(kLongMs));
  EXPECT_EQ(done, 1);
}

TEST(JobThreadTest, WhatAJobHoldsIsLetGoBeforeItCountsAsDone) {
  JobThread thread("test", false, 0, nullptr);
  auto held = std::make_shared<int>(1);
  thread.Post([held] {});
  EXPECT_TRUE(thread.WaitIdle(kLongMs));
  EXPECT_EQ(held.use_count(), 1);
}

TEST(JobThreadTest, WhileThereIsNothingToDoIdleIsCalledAgainAndAgain) {
  Gate gate;
  std::atomic<int> calls = 0;
  JobThread thread("test", false, 1, [&] {
    if (++calls == 3) gate.Open();
  });
  gate.Wait();
  std::atomic<bool> is_done = false;
  thread.Post([&] { is_done = true; });
  EXPECT_TRUE(thread.WaitIdle(kLongMs));
  EXPECT_TRUE(is_done) << "and jobs are done all the same";
}

TEST(JobThreadTest, IdleAndJobsDoNotRunSideBySide) {
  int together = 0;  // of this thread alone, or a sanitizer says so
  JobThread thread("test", false, 1, [&] { ++together; });
  for (int i = 0; i < 100; ++i) {
    thread.Post([&] { ++together; });
    EXPECT_TRUE(thread.WaitIdle(kLongMs));
  }
  std::promise<int> told;
  thread.Post([&] { told.set_value(together); });
  EXPECT_GE(told.get_future().get(), 100);
}

TEST(JobThreadTest, ItEndsAfterTheJobAtHandAndForgetsTheOthers) {
  Gate begun, gate;
  std::atomic<int> done = 0;
  auto held = std::make_shared<int>(1);
  auto thread = std::make_unique<JobThread>("test", false, 0, nullptr);
  thread->Post([&] {
    begun.Open();
    gate.Wait();
    ++done;
  });
  for (int i = 0; i < 100; ++i) thread->Post([&done, held] { ++done; });
  begun.Wait();
  EXPECT_EQ(held.use_count(), 101);
  auto ends = std::async(std::launch::async, [&] { thread.reset(); });
  // The waiting jobs are forgotten at once, before the one at hand has ended.
  while (held.use_count() > 1) sched_yield();
  EXPECT_EQ(done, 0);
  gate.Open();
  ends.get();
  EXPECT_EQ(done, 1);
}

TEST(JobThreadTest, ItEndsAtOnceWhereNothingIsToBeDone) {
  // A period that long would hold up who waits for it.
  JobThread thread("test", false, kLongMs, [] {});
}

TEST(JobThreadTest, ItIsNamedAndABackgroundOneGivesWay) {
  for (const bool background : {false, true}) {
    JobThread thread("pages", background, 0, nullptr);
    std::promise<std::pair<std::string, int>> told;
    thread.Post([&] {
      char name[16] = {};
      pthread_getname_np(pthread_self(), name, sizeof name);
      told.set_value({name, sched_getscheduler(0)});
    });
    const auto [name, policy] = told.get_future().get();
    EXPECT_EQ(name, "pages");
    EXPECT_EQ(policy == SCHED_BATCH, background);
  }
}

}  // namespace
}  // namespace perdure::worker
