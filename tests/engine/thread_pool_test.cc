#include "engine/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>

namespace perdure::engine {
namespace {

TEST(ThreadPoolTest, SplitCoversEveryItemOnce) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (int items : {0, 1, 2, 6, 7, 8, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(items));
      pool.Split(items, [&](int begin, int end, int thread) {
        EXPECT_LT(begin, end);
        EXPECT_LT(thread, threads);
        for (int i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
      for (const auto& count : seen) EXPECT_EQ(count, 1);
    }
  }
}

TEST(ThreadPoolTest, ClaimCoversEveryItemOnce) {
  ThreadPool pool(4);
  for (int items : {0, 1, 3, 500}) {
    std::vector<std::atomic<int>> seen(static_cast<size_t>(items));
    pool.Claim(items, [&](int item, int) { ++seen[static_cast<size_t>(item)]; });
    for (const auto& count : seen) EXPECT_EQ(count, 1);
  }
}

// Many short phases: what one phase wrote, the next one reads on other threads.
TEST(ThreadPoolTest, PhasesFollowEachOther) {
  ThreadPool pool(3);
  std::vector<int> from(30, 1), to(30, 0);
  for (int phase = 0; phase < 3000; ++phase) {
    pool.Split(30, [&](int begin, int end, int) {
      for (int i = begin; i < end; ++i)
        to[static_cast<size_t>(i)] = from[static_cast<size_t>(29 - i)] + 1;
    });
    std::swap(from, to);
  }
  EXPECT_EQ(std::accumulate(from.begin(), from.end(), 0), 30 * 3001);
}

// All threads do take part: none of two can pass a phase alone.
TEST(ThreadPoolTest, ThreadsWorkAtTheSameTime) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.Claim(2, [&](int, int) {
    ++arrived;
    while (arrived != 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

// What /proc tells of each thread of a pool: state, and how often it went to sleep.
struct ThreadState {
  char state = '?';
  uint64_t sleeps = 0;
};
std::vector<ThreadState> PoolThreads() {
  std::vector<ThreadState> threads;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "status");
    ThreadState thread;
    bool of_pool = false;
    for (std::string line; std::getline(file, line);) {
      if (line == "Name:\tengine") of_pool = true;
      if (line.starts_with("State:\t")) thread.state = line[7];
      if (line.starts_with("voluntary_ctxt_switches:"))
        thread.sleeps = std::stoull(line.substr(line.find('\t')));
    }
    if (of_pool) threads.push_back(thread);
  }
  return threads;
}

TEST(ThreadPoolTest, IdleThreadsSleepAndStayAsleep) {
  ThreadPool pool(4);
  pool.Claim(100, [](int, int) {});
  std::vector<ThreadState> before;
  const auto all_asleep = [&] {
    return before.size() == 3 && std::all_of(before.begin(), before.end(),
                                             [](const ThreadState& t) { return t.state == 'S'; });
  };
  while (!all_asleep()) {
    std::this_thread::yield();
    before = PoolThreads();
  }
  // The caller is busy with something else for a while.
  for (const std::clock_t begin = std::clock(); std::clock() - begin < CLOCKS_PER_SEC / 50;) {
  }
  const std::vector<ThreadState> after = PoolThreads();
  ASSERT_EQ(after.size(), before.size());
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_EQ(after[i].state, 'S');
    EXPECT_EQ(after[i].sleeps, before[i].sleeps) << "it woke up";
  }
}

TEST(ThreadPoolTest, FewerThreadsDoTheSame) {
  ThreadPool pool(4);
  for (const int active : {4, 2, 1, 3, 4, 1}) {
    pool.SetActive(active);
    EXPECT_EQ(pool.active(), active);
    for (int phase = 0; phase < 50; ++phase) {
      std::vector<std::atomic<int>> seen(500);
      pool.Claim(500, [&](int item, int) { ++seen[static_cast<size_t>(item)]; });
      for (const auto& count : seen) EXPECT_EQ(count, 1);
    }
  }
  pool.SetActive(0);
  EXPECT_EQ(pool.active(), 1) << "somebody has to do it";
  pool.Claim(100, [](int, int thread) { EXPECT_EQ(thread, 0); });
  pool.SetActive(100);
  EXPECT_EQ(pool.active(), 4);
  // It ends with threads that sleep.
  pool.SetActive(1);
}

TEST(ThreadPoolTest, ProfilesTellOfEachPlace) {
  for (int threads : {1, 2}) {
    PhaseProfile profile;
    ThreadPool pool(threads, &profile);
    const int first = __LINE__ + 1;
    for (int i = 0; i < 3; ++i) pool.Claim(4, [](int, int) {});
    pool.Split(9, [](int, int, int) {});
    std::vector<PhaseProfile::Phase> phases = profile.Phases();
    ASSERT_EQ(phases.size(), 2u);
    if (phases[0].calls == 1) std::swap(phases[0], phases[1]);
    const auto place = [](int line) {
      return "thread_pool_test.cc:" + std::to_string(line) + " TestBody";
    };
    EXPECT_EQ(phases[0].place, place(first));
    EXPECT_EQ(phases[0].calls, 3u);
    EXPECT_EQ(phases[1].place, place(first + 1));
    EXPECT_EQ(phases[1].calls, 1u);
    EXPECT_GE(phases[0].seconds, 0.0);
    profile.Clear();
    EXPECT_TRUE(profile.Phases().empty());
  }
}

TEST(ThreadPoolTest, IdlePoolsEnd) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(3);
}

}  // namespace
}  // namespace perdure::engine
