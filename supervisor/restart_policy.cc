#include "supervisor/restart_policy.h"

#include <algorithm>

namespace perdure::supervisor {

RestartPolicy::Decision RestartPolicy::OnDeath(DeathClass death, bool progressed,
                                               const RestartLimits& limits) {
  if (progressed) Reset();
  if (death == DeathClass::kBadModel) return {true, limits.cooldown_ms};
  if (CountsAgainstModel(death)) {
    ++counted_deaths_;
    if (limits.deaths_max > 0 && counted_deaths_ >= limits.deaths_max) {
      // The try after the cool-down is one: its death is the last again.
      counted_deaths_ = limits.deaths_max - 1;
      return {true, limits.cooldown_ms};
    }
  }
  const int64_t ceiling = death == DeathClass::kExternal
                              ? std::min(limits.external_delay_max_ms, limits.delay_max_ms)
                              : limits.delay_max_ms;
  Decision decision;
  if (restarts_ > 0) {
    decision.delay_ms = limits.first_delay_ms;
    for (int i = 1; i < restarts_ && decision.delay_ms < ceiling; ++i) decision.delay_ms *= 2;
    decision.delay_ms = std::min(decision.delay_ms, ceiling);
  }
  restarts_ = std::min(restarts_ + 1, 64);
  return decision;
}

}  // namespace perdure::supervisor
