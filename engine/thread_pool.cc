#include "engine/thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include "base/check.h"
#include "base/limits.h"

namespace perdure::engine {
namespace {

// A step has some hundred phases of 10 µs to 10 ms: spinning for some 10 µs saves most of the
// wake-ups, and costs little where another process wants the core.
constexpr int kSpins = 500;

constexpr uint32_t kWorkersMask = (1u << 11) - 1;
constexpr uint32_t kOpen = 1u << 11;
constexpr uint32_t kJob = 1u << 12;
static_assert(limits::kEngineThreadsMax <= kWorkersMask);

uint32_t JobOf(uint32_t state) { return state / kJob; }

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Waits until `value` differs from `old`; may return early.
void WaitWhile(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads, PhaseProfile* profile)
    : profile_(profile), shares_(static_cast<size_t>(std::max(threads, 1))), active_(threads) {
  CHECK(threads >= 1 && threads <= limits::kEngineThreadsMax);
  // Signals belong to the threads that were there before.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (int thread = 1; thread < threads; ++thread)
    workers_.emplace_back([this, thread] { WorkerMain(thread); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  SetActive(threads());
  state_.fetch_add(kJob, std::memory_order_release);
  state_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::SetActive(int threads) {
  active_.store(std::clamp(threads, 1, this->threads()), std::memory_order_relaxed);
  active_.notify_all();
}

void ThreadPool::Run(Job job, void* context) {
  job_ = job;
  context_ = context;
  const uint32_t drained = drained_.load(std::memory_order_relaxed);
  const uint32_t number = JobOf(state_.load(std::memory_order_relaxed)) + 1;
  state_.store(number * kJob | kOpen, std::memory_order_release);
  state_.notify_all();
  job(context, 0);
  // Nothing is left to claim. Those who are in finish what they have claimed.
  const uint32_t closed = state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  if ((closed & kWorkersMask) == 0) return;
  while (drained_.load(std::memory_order_acquire) == drained) WaitWhile(drained_, drained);
}

void ThreadPool::WorkerMain(int thread) {
  pthread_setname_np(pthread_self(), "engine");
  // The job numbers wrap around; taking an old number for a new one only misses that job.
  uint32_t seen = 0;
  for (;;) {
    // It misses the phases of those that are active.
    for (int active; (active = active_.load(std::memory_order_relaxed)) <= thread;)
      active_.wait(active, std::memory_order_relaxed);
    uint32_t state = state_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    if ((state & kOpen) == 0 || JobOf(state) == seen) {
      WaitWhile(state_, state);
      continue;
    }
    if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) continue;
    seen = JobOf(state);
    job_(context_, thread);
    const uint32_t left = state_.fetch_sub(1, std::memory_order_acq_rel);
    if ((left & kOpen) == 0 && (left & kWorkersMask) == 1) {
      drained_.fetch_add(1, std::memory_order_release);
      drained_.notify_one();
    }
  }
}

}  // namespace perdure::engine
