// All times that the supervisor goes by, in one place: tests set short ones.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "supervisor/health.h"
#include "supervisor/restart_policy.h"

namespace perdure::supervisor {

struct Timings {
  RestartLimits restart;           // of workers
  RestartLimits frontend_restart;  // never gives up
  HealthLimits health;
  int64_t health_sample_ms = 0;
  int64_t stop_grace_ms = 0;
  int64_t drain_ms = 0;
  int64_t drain_grace_ms = 0;
  int64_t channel_end_grace_ms = 0;
  int64_t frontend_proven_ms = 0;
};

Timings TimingsOf(const Config& config);

}  // namespace perdure::supervisor
