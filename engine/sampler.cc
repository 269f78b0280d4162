#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "engine/philox.h"

namespace perdure::engine {
namespace {

constexpr float kLargest = std::numeric_limits<float>::max();
constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr float kLogprobMin = -9999.0f;

float Sanitize(float logit) {
  if (std::isnan(logit)) return kNever;
  return std::min(logit, kLargest);
}

// e^x for x ≤ 0, 0 below -86.5; plain operations only, so that it is vectorized by the compiler
// and gives the same bits on every CPU.
inline float ExpOfNegative(float x) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer in the low bits
  const float shifted = x * 0x1.715476p0f + kMagic;
  const float n = shifted - kMagic;
  float r = x - n * 0x1.62e4p-1f;
  r = r - n * 0x1.7f7d1cp-20f;
  float p = 0x1.6a2348p-10f;
  p = p * r + 0x1.123a6cp-7f;
  p = p * r + 0x1.5558f4p-5f;
  p = p * r + 0x1.555490p-3f;
  p = p * r + 0x1.fffffcp-2f;
  p = r * r * p + (r + 1.0f);
  const uint32_t bits = std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23);
  return x >= -86.5f ? std::bit_cast<float>(bits) : 0.0f;
}

// Weight of a logit among those whose largest is `maximum`. `inverse` is 1 / temperature.
inline float Weight(float logit, float maximum, float inverse) {
  return ExpOfNegative((logit - maximum) * inverse);
}

// Σ weights, in blocks so that thousands of small terms are not lost beside large ones.
double SumOfWeights(std::span<const float> logits, float maximum, float inverse) {
  constexpr size_t kLanes = 16, kBlock = 256;
  double total = 0.0;
  size_t i = 0;
  for (; i + kBlock <= logits.size(); i += kBlock) {
    float lanes[kLanes] = {};
    for (size_t j = 0; j < kBlock; j += kLanes)
      for (size_t lane = 0; lane < kLanes; ++lane)
        lanes[lane] += Weight(logits[i + j + lane], maximum, inverse);
    for (float lane : lanes) total += lane;
  }
  for (; i < logits.size(); ++i) total += Weight(logits[i], maximum, inverse);
  return total;
}

float Maximum(std::span<const float> logits) {
  float maximum = kNever;
  for (float logit : logits) maximum = logit > maximum ? logit : maximum;
  return maximum;
}

// Log-probabilities under the model's own distribution.
class Logprobs {
 public:
  explicit Logprobs(std::span<const float> sanitized)
      : maximum_(Maximum(sanitized)),
        log_sum_(maximum_ == kNever ? 0.0 : std::log(SumOfWeights(sanitized, maximum_, 1.0f))) {}

  float Of(float sanitized) const {
    const double logprob = static_cast<double>(sanitized) - maximum_ - log_sum_;
    return logprob > kLogprobMin ? static_cast<float>(std::min(logprob, 0.0)) : kLogprobMin;
  }

 private:
  float maximum_;
  double log_sum_;
};

TokenId ArgMax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i)
    if (logits[i] > logits[best]) best = i;
  return static_cast<TokenId>(best);
}

}  // namespace

// candidates_ = the `count` largest, sorted by (logit descending, id ascending). One pass with a
// rising threshold: what is below the count-th best seen so far is not even written down.
void Sampler::SelectTop(std::span<const float> logits, size_t count) {
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  count = std::min(count, logits.size());
  const size_t room = 2 * count + 64;
  const auto cut = [&] {
    if (candidates_.size() <= count) return;
    const auto nth = candidates_.begin() + static_cast<ptrdiff_t>(count);
    std::nth_element(candidates_.begin(), nth - 1, candidates_.end(), before);
    candidates_.erase(nth, candidates_.end());
  };
  candidates_.clear();
  if (count == 0) return;
  float threshold = kNever;  // later ids must be above it once there are `count`
  bool full = false;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (full && !(logits[id] > threshold)) continue;
    candidates_.push_back({logits[id], static_cast<TokenId>(id)});
    if (candidates_.size() < room) continue;
    cut();
    threshold = candidates_[count - 1].logit;
    full = true;
  }
  cut();
  std::sort(candidates_.begin(), candidates_.end(), before);
}

void Sampler::ApplyPenalties(const SamplingParams& params, std::span<const TokenId> prompt,
                             std::span<const TokenId> answer) {
  const auto known = [&](TokenId id) { return id >= 0 && static_cast<size_t>(id) < work_.size(); };
  counts_.resize(work_.size(), 0);
  const auto clear = [&](std::span<const TokenId> tokens) {
    for (TokenId id : tokens)
      if (known(id)) counts_[static_cast<size_t>(id)] = 0;
  };
  if (params.repetition_penalty != 1.0f) {
    for (std::span<const TokenId> tokens : {prompt, answer})
      for (TokenId id : tokens) {
        if (!known(id) || counts_[static_cast<size_t>(id)]++ != 0) continue;
        float& logit = work_[static_cast<size_t>(id)];
        logit =
            logit > 0.0f ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      }
    clear(prompt);
    clear(answer);
  }
  if (params.frequency_penalty != 0.0f || params.presence_penalty != 0.0f) {
    for (TokenId id : answer)
      if (known(id)) ++counts_[static_cast<size_t>(id)];
    for (TokenId id : answer) {
      if (!known(id)) continue;
      uint32_t& count = counts_[static_cast<size_t>(id)];
      if (count == 0) continue;  // was dealt with
      work_[static_cast<size_t>(id)] -=
          params.frequency_penalty * static_cast<float>(count) + params.presence_penalty;
      count = 0;
    }
  }
  for (const auto& [id, bias] : params.logit_bias)
    if (known(id)) work_[static_cast<size_t>(id)] += bias;
  for (float& logit : work_) logit = Sanitize(logit);
}

TokenId Sampler::Draw(const SamplingParams& params, uint64_t position) {
  const float maximum = Maximum(work_);
  if (maximum == kNever) return 0;
  const float inverse = std::min(1.0f / params.temperature, kLargest);
  const double u = UniformAt(params.seed, position);
  const auto weight = [&](float logit) { return double{Weight(logit, maximum, inverse)}; };

  const bool limited = params.top_k > 0 && static_cast<size_t>(params.top_k) < work_.size();
  if (!limited && params.top_p >= 1.0f && !(params.min_p > 0.0f)) {
    // Nothing is cut off: no order is needed, ids ascending will do.
    const double target = u * SumOfWeights(work_, maximum, inverse);
    double sum = 0.0;
    TokenId last = 0;
    for (size_t id = 0; id < work_.size(); ++id) {
      const double w = weight(work_[id]);
      if (w == 0.0) continue;
      last = static_cast<TokenId>(id);
      sum += w;
      if (sum > target) break;
    }
    return last;
  }

  // Without top_k, few candidates nearly always hold the mass that top_p asks for.
  size_t count = limited ? static_cast<size_t>(params.top_k) : 256;
  double all = 0.0;
  if (limited) {
    SelectTop(work_, count);
    for (const Candidate& candidate : candidates_) all += weight(candidate.logit);
  } else {
    all = SumOfWeights(work_, maximum, inverse);
  }
  const double wanted = std::max(0.0, static_cast<double>(params.top_p)) * all;
  size_t kept = 0;
  double kept_sum = 0.0;
  for (;; count *= 8) {
    if (!limited) SelectTop(work_, count);
    kept = 0;
    kept_sum = 0.0;
    while (kept < candidates_.size()) {
      const double w = weight(candidates_[kept].logit);
      if (w == 0.0 && kept > 0) break;
      if (params.min_p > 0.0f && kept > 0 && w < params.min_p) break;
      kept_sum += w;
      ++kept;
      if (params.top_p < 1.0f && kept_sum >= wanted) break;
    }
    // Cut by a rule, or there are no more.
    if (kept < candidates_.size() || limited || candidates_.size() == work_.size()) break;
  }
  double sum = 0.0;
  const double target = u * kept_sum;
  for (size_t i = 0; i < kept; ++i) {
    sum += weight(candidates_[i].logit);
    if (sum > target) return candidates_[i].id;
  }
  return candidates_[kept - 1].id;
}

SampledToken Sampler::Sample(std::span<const float> logits, const SamplingParams& params,
                             std::span<const TokenId> prompt, std::span<const TokenId> answer) {
  CHECK(!logits.empty());
  work_.resize(logits.size());
  std::transform(logits.begin(), logits.end(), work_.begin(), Sanitize);
  const Logprobs logprobs(work_);
  ApplyPenalties(params, prompt, answer);
  const bool greedy = !(params.temperature > 0.0f);
  const TokenId id = greedy ? ArgMax(work_) : Draw(params, prompt.size() + answer.size());
  return {id, logprobs.Of(Sanitize(logits[static_cast<size_t>(id)]))};
}

std::vector<SampledToken> Sampler::Top(std::span<const float> logits, int count) {
  work_.resize(logits.size());
  std::transform(logits.begin(), logits.end(), work_.begin(), Sanitize);
  const Logprobs logprobs(work_);
  SelectTop(work_, static_cast<size_t>(std::max(count, 0)));
  std::vector<SampledToken> top;
  for (const Candidate& candidate : candidates_)
    top.push_back({candidate.id, logprobs.Of(candidate.logit)});
  return top;
}

}  // namespace perdure::engine
