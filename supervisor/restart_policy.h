// When a child that died is started again: at once the first time, then after 0.1 s doubling to
// 30 s; five counted deaths without a completed step between them end in a cool-down, after which
// one more try is made. Pure: no clocks.
#pragma once

#include <cstdint>

#include "supervisor/death.h"

namespace perdure::supervisor {

struct RestartLimits {
  int64_t first_delay_ms = 100;
  int64_t delay_max_ms = 30'000;
  // An outsider's kills say nothing about the model: they slow its restarts less.
  int64_t external_delay_max_ms = 1'000;
  int deaths_max = 5;  // 0: never give up (the frontend: without it nothing works)
  int64_t cooldown_ms = 300'000;
};

class RestartPolicy {
 public:
  struct Decision {
    bool failed = false;   // give up for delay_ms
    int64_t delay_ms = 0;  // 0: at once
  };

  // `progressed`: the dead process had completed a step.
  Decision OnDeath(DeathClass death, bool progressed, const RestartLimits& limits);
  // A person asked for another try: all is forgotten.
  void Reset() { *this = RestartPolicy(); }

  int counted_deaths() const { return counted_deaths_; }

 private:
  int counted_deaths_ = 0;  // since the last completed step
  int restarts_ = 0;        // likewise, external ones too
};

}  // namespace perdure::supervisor
