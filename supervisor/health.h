// Whether a child still gets things done: its counters in shared memory against a limit per phase.
// Pure: samples come with their time.
#pragma once

#include <cstdint>

#include "shm/layout.h"

namespace perdure::supervisor {

struct HealthLimits {
  int64_t loading_ms = 300'000;  // starting and loading
  int64_t idle_ms = 10'000;      // heartbeats are due every second
  int64_t stepping_ms = 60'000;  // a step, and draining
  // Growing major faults count as alive (a slow disk is no hang), for so many times the limit.
  int fault_factor = 4;
  // Time between two samples counts at most so much: the supervisor may have been stopped itself.
  int64_t sample_gap_max_ms = 2'000;
};

struct HealthSample {
  shm::Phase phase = shm::Phase::kStarting;
  uint64_t progress = 0;
  uint64_t load_bytes_done = 0;
  uint64_t major_faults = 0;
  int64_t now_ms = 0;
};

class HealthWatch {
 public:
  // False when the child hangs.
  bool Observe(const HealthSample& sample, const HealthLimits& limits);

  // Time without progress, and without major faults either, as of the last sample.
  int64_t stalled_ms() const { return stalled_ms_; }

 private:
  bool first_ = true;
  HealthSample last_;
  int64_t stalled_ms_ = 0;      // nothing at all happens
  int64_t no_progress_ms_ = 0;  // perhaps major faults
};

}  // namespace perdure::supervisor
