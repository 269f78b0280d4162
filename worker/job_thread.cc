#include "worker/job_thread.h"

#include <pthread.h>
#include <sched.h>

#include <chrono>
#include <utility>

namespace perdure::worker {

JobThread::JobThread(std::string name, bool background, int64_t period_ms,
                     std::function<void()> idle)
    : name_(std::move(name)),
      background_(background),
      period_ms_(period_ms),
      idle_(std::move(idle)),
      thread_([this] { Run(); }) {}

JobThread::~JobThread() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
    jobs_.clear();
  }
  changed_.notify_all();
  thread_.join();
}

void JobThread::Post(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
}

bool JobThread::WaitIdle(int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  return done_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                        [this] { return jobs_.empty() && !is_busy_; });
}

void JobThread::Run() {
  pthread_setname_np(pthread_self(), name_.c_str());
  if (background_) {
    const sched_param none{};
    sched_setscheduler(0, SCHED_BATCH, &none);
  }
  auto next_idle = std::chrono::steady_clock::now() + std::chrono::milliseconds(period_ms_);
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto has_job = [this] { return ends_ || !jobs_.empty(); };
    if (!idle_)
      changed_.wait(lock, has_job);
    else
      changed_.wait_until(lock, next_idle, has_job);
    if (ends_) return;
    // Between jobs too, where there is always one.
    if (idle_ && std::chrono::steady_clock::now() >= next_idle) {
      lock.unlock();
      idle_();
      lock.lock();
      next_idle = std::chrono::steady_clock::now() + std::chrono::milliseconds(period_ms_);
      continue;
    }
    if (jobs_.empty()) continue;
    auto job = std::move(jobs_.front());
    jobs_.pop_front();
    is_busy_ = true;
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
    is_busy_ = false;
    if (jobs_.empty()) done_.notify_all();
  }
}

}  // namespace perdure::worker
