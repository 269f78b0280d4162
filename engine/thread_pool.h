// Persistent threads for the phases of a step. Work is claimed item by item: which thread computes
// an item never changes the item's result. Each thread begins with a share of its own, which it
// goes through in order (what lies behind an item is fetched meanwhile, and comes to the same
// thread in the next phase over the same items), and then helps the others with theirs.
//
// Nobody is waited for that has not begun: a thread that is still waking up, or lost its core to
// another process, misses a phase instead of holding it up.
//
// One caller at a time; the caller is thread 0. A pool of one runs everything inline.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

#include "engine/phase_profile.h"

namespace perdure::engine {

class ThreadPool {
 public:
  // `profile` is told of every phase, unless it is null; it outlives the pool.
  explicit ThreadPool(int threads, PhaseProfile* profile = nullptr);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // From the next phase on only so many of them take part, at least one and at most all; the others
  // sleep. What is computed does not depend on it.
  void SetActive(int threads);
  int active() const { return active_.load(std::memory_order_relaxed); }

  // fn(item, thread) for each item of [0, items). Returns when all are done.
  template <class Fn>
  void Claim(int items, Fn&& fn, SourcePlace where = SourcePlace::Here()) {
    const Timer timer(profile_, where);
    const int count = active();
    if (items <= 1 || count == 1) {
      for (int item = 0; item < items; ++item) fn(item, 0);
      return;
    }
    for (int t = 0; t < count; ++t) {
      Share& share = shares_[static_cast<size_t>(t)];
      share.next.store(static_cast<int>(int64_t{items} * t / count), std::memory_order_relaxed);
      share.end = static_cast<int>(int64_t{items} * (t + 1) / count);
    }
    auto work = [&](int thread) {
      for (int t = 0; t < count; ++t) {
        Share& share = shares_[static_cast<size_t>((thread + t) % count)];
        for (int item; (item = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
          fn(item, thread);
      }
    };
    using Work = decltype(work);
    Run([](void* context, int thread) { (*static_cast<Work*>(context))(thread); }, &work);
  }

  // fn(begin, end, thread) for contiguous ranges that cover [0, items), a few a thread.
  template <class Fn>
  void Split(int items, Fn&& fn, SourcePlace where = SourcePlace::Here()) {
    const int count = active();
    const int ranges = count == 1 ? 1 : std::min(items, count * kRangesPerThread);
    const auto part = [&](int range, int thread) {
      const int begin = static_cast<int>(int64_t{items} * range / ranges);
      const int end = static_cast<int>(int64_t{items} * (range + 1) / ranges);
      if (begin < end) fn(begin, end, thread);
    };
    Claim(ranges, part, where);
  }

 private:
  // Tells the profile how long it lived.
  class Timer {
   public:
    Timer(PhaseProfile* profile, const SourcePlace& where) : profile_(profile), where_(where) {
      if (profile_ != nullptr) begin_ = std::chrono::steady_clock::now();
    }
    ~Timer() {
      if (profile_ == nullptr) return;
      const std::chrono::duration<double> lived = std::chrono::steady_clock::now() - begin_;
      profile_->Add(where_, lived.count());
    }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

   private:
    PhaseProfile* const profile_;
    const SourcePlace where_;
    std::chrono::steady_clock::time_point begin_;
  };

  using Job = void (*)(void* context, int thread);
  // Items of a phase: those from `next` on are not claimed yet.
  struct alignas(64) Share {
    std::atomic<int> next{0};
    int end = 0;
  };
  // Small enough that a slow thread's last range is short, large enough to stream.
  static constexpr int kRangesPerThread = 8;

  // job(context, 0) here, job(context, i) on each other thread that arrives before it ends.
  void Run(Job job, void* context);
  void WorkerMain(int thread);

  PhaseProfile* const profile_;
  // Written while the job is closed and nobody is in it.
  Job job_ = nullptr;
  void* context_ = nullptr;
  std::vector<Share> shares_;  // one a thread
  // number of the job · kJob | kOpen while it may be entered | workers in it.
  alignas(64) std::atomic<uint32_t> state_{0};
  // Goes up when the last worker leaves a closed job.
  alignas(64) std::atomic<uint32_t> drained_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<int> active_;
  std::vector<std::thread> workers_;
};

}  // namespace perdure::engine
