#include "supervisor/timings.h"

#include "base/limits.h"

namespace perdure::supervisor {

Timings TimingsOf(const Config& config) {
  Timings timings;
  timings.restart.cooldown_ms = int64_t{1000} * config.cooldown_s;
  timings.frontend_restart.deaths_max = 0;
  timings.frontend_restart.delay_max_ms = 1'000;
  timings.health.loading_ms = int64_t{1000} * config.load_timeout_s;
  timings.health.stepping_ms = int64_t{1000} * config.hang_timeout_s;
  timings.health_sample_ms = limits::kHealthSampleMs;
  timings.stop_grace_ms = limits::kStopGraceMs;
  timings.drain_ms = int64_t{1000} * config.drain_timeout_s;
  timings.drain_grace_ms = limits::kDrainGraceMs;
  timings.channel_end_grace_ms = limits::kChannelEndGraceMs;
  timings.frontend_proven_ms = limits::kFrontendProvenMs;
  return timings;
}

}  // namespace perdure::supervisor
