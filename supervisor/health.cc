#include "supervisor/health.h"

#include <algorithm>

namespace perdure::supervisor {
namespace {

int64_t LimitMs(shm::Phase phase, const HealthLimits& limits) {
  switch (phase) {
    case shm::Phase::kStarting:
    case shm::Phase::kLoading:
      return limits.loading_ms;
    case shm::Phase::kIdle:
      return limits.idle_ms;
    case shm::Phase::kStepping:
    case shm::Phase::kDraining:
      break;
  }
  return limits.stepping_ms;  // and whatever number stands in shared memory
}

}  // namespace

bool HealthWatch::Observe(const HealthSample& sample, const HealthLimits& limits) {
  const bool progressed = first_ || sample.phase != last_.phase ||
                          sample.progress != last_.progress ||
                          sample.load_bytes_done != last_.load_bytes_done;
  const bool faulted = sample.major_faults != last_.major_faults;
  const int64_t passed =
      first_ ? 0 : std::clamp<int64_t>(sample.now_ms - last_.now_ms, 0, limits.sample_gap_max_ms);
  no_progress_ms_ = progressed ? 0 : no_progress_ms_ + passed;
  stalled_ms_ = progressed || faulted ? 0 : stalled_ms_ + passed;
  first_ = false;
  last_ = sample;
  const int64_t limit = LimitMs(sample.phase, limits);
  return stalled_ms_ < limit && no_progress_ms_ < limit * limits.fault_factor;
}

}  // namespace perdure::supervisor
