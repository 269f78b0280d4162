#include "engine/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>

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

TEST(ThreadPoolTest, IdlePoolsEnd) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(3);
}

}  // namespace
}  // namespace perdure::engine
