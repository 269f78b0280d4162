#include "worker/step_pace.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"

namespace perdure::worker {
namespace {

constexpr int kFirstTokens = 64;

}  // namespace

StepPace::StepPace(int tokens_max)
    : tokens_max_(tokens_max), tokens_(std::min(tokens_max, kFirstTokens)) {
  CHECK(tokens_max >= 1);
}

void StepPace::Note(int prefill_tokens, int64_t elapsed_us) {
  if (prefill_tokens < 1 || elapsed_us < 1) return;
  const int64_t fitting = int64_t{prefill_tokens} * limits::kStepTargetMs * 1000 / elapsed_us;
  // A step that was not full says little about a larger one: its time went to decoding.
  if (fitting > tokens_ && prefill_tokens < tokens_) return;
  // At most twice as many at once: one lucky measurement is no promise.
  const int64_t next = std::min<int64_t>({fitting, int64_t{2} * tokens_, tokens_max_});
  const int floor = std::min(tokens_max_, limits::kPrefillTokensPerStepMin);
  tokens_ = static_cast<int>(std::max<int64_t>(next, floor));
}

}  // namespace perdure::worker
