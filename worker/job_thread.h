// A thread that does jobs one after another.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace perdure::worker {

class JobThread {
 public:
  // `idle` is called every `period_ms`, between jobs; may be empty. `background`:
  // runs when nothing else wants the processor.
  JobThread(std::string name, bool background, int64_t period_ms, std::function<void()> idle);
  // Ends after the job at hand; those that wait are forgotten.
  ~JobThread();
  JobThread(const JobThread&) = delete;
  JobThread& operator=(const JobThread&) = delete;

  void Post(std::function<void()> job);
  // Until all jobs are done; false: the time was over before.
  bool WaitIdle(int64_t timeout_ms);

 private:
  void Run();

  const std::string name_;
  const bool background_;
  const int64_t period_ms_;
  const std::function<void()> idle_;
  std::mutex mutex_;
  std::condition_variable changed_, done_;
  std::deque<std::function<void()>> jobs_;
  bool is_busy_ = false;
  bool ends_ = false;
  std::thread thread_;  // the last: all else is there when it begins
};

}  // namespace perdure::worker
