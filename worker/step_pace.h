// How many prompt tokens the next step takes, so that steps stay short on any model and machine.
//
// A pure core. Steps are long where the model is large; how long, only the steps themselves tell.
#pragma once

#include <cstdint>

namespace perdure::worker {

class StepPace {
 public:
  // Never more than `tokens_max` ≥ 1 tokens. Starts small: the first step of a large model should
  // not take minutes.
  explicit StepPace(int tokens_max);

  int tokens() const { return tokens_; }
  // A step computed `prefill_tokens` of prompts within `elapsed_us`.
  void Note(int prefill_tokens, int64_t elapsed_us);

 private:
  const int tokens_max_;
  int tokens_;
};

}  // namespace perdure::worker
