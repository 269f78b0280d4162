#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
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

// Four floats at a time: what every CPU has, and the same bits on all of them.
using Four = float __attribute__((vector_size(16)));
using FourBits = uint32_t __attribute__((vector_size(16)));

inline Four Load(const float* at) {
  Four four;
  std::memcpy(&four, at, sizeof four);
  return four;
}
inline Four Fill(float x) { return Four{x, x, x, x}; }

// e^x for x ≤ 0; 0 below -86.5 and of NaN.
inline Four ExpOfNegative(Four x) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer in the low bits
  const Four shifted = x * 0x1.715476p0f + kMagic;
  const Four n = shifted - kMagic;
  Four r = x - n * 0x1.62e4p-1f;
  r = r - n * 0x1.7f7d1cp-20f;
  Four p = r * 0x1.6a2348p-10f + 0x1.123a6cp-7f;
  p = p * r + 0x1.5558f4p-5f;
  p = p * r + 0x1.555490p-3f;
  p = p * r + 0x1.fffffcp-2f;
  p = r * r * p + (r + 1.0f);
  const FourBits bits = std::bit_cast<FourBits>(p) + (std::bit_cast<FourBits>(shifted) << 23);
  return std::bit_cast<Four>(bits & std::bit_cast<FourBits>(x >= -86.5f));
}

// Loops over a vocabulary go in blocks: within, 16 lanes; across, sums in double precision, so that
// thousands of small terms are not lost.
constexpr size_t kLanes = 16, kBlock = 256;

// Calls fn(begin, end) for each block; all but the last are whole.
template <class Fn>
void ForBlocks(size_t n, Fn fn) {
  for (size_t begin = 0; begin < n; begin += kBlock) fn(begin, std::min(n, begin + kBlock));
}

// Calls fn(id, count, four) for each four logits from `id` on; the last ones are `count`, then NaN.
template <class Fn>
void ForFours(std::span<const float> logits, Fn fn) {
  size_t id = 0;
  for (; id + 4 <= logits.size(); id += 4) fn(id, size_t{4}, Load(&logits[id]));
  if (id == logits.size()) return;
  Four tail = Fill(std::numeric_limits<float>::quiet_NaN());
  for (size_t j = 0; id + j < logits.size(); ++j) tail[j] = logits[id + j];
  fn(id, logits.size() - id, tail);
}

// The largest of [begin, end), NaN counting as none.
float BlockMaximum(std::span<const float> logits, size_t begin, size_t end) {
  Four lanes[4] = {Fill(kNever), Fill(kNever), Fill(kNever), Fill(kNever)};
  size_t i = begin;
  for (; i + kLanes <= end; i += kLanes)
    for (size_t j = 0; j < 4; ++j) {
      const Four four = Load(&logits[i + 4 * j]);
      lanes[j] = four > lanes[j] ? four : lanes[j];
    }
  float maximum = kNever;
  for (const Four& four : lanes)
    for (size_t j = 0; j < 4; ++j) maximum = std::max(maximum, float{four[j]});
  for (; i < end; ++i) maximum = logits[i] > maximum ? logits[i] : maximum;
  return maximum;
}

// Weights e^((logit - maximum) · inverse) of logits of any value; `inverse`, 1 / temperature, is
// finite.
struct Weigher {
  float maximum, inverse;

  // Of the logits' weights; ≤ 0, or NaN.
  Four Logs(Four logits) const {
    const Four largest = Fill(kLargest);
    return ((largest < logits ? largest : logits) - maximum) * inverse;
  }
  // Zero of NaN.
  Four Of(Four logits) const { return ExpOfNegative(Logs(logits)); }
  float Of(float logit) const { return Of(Fill(logit))[0]; }
};

// Adds the weights of each block up; returns the sum of all.
double SumBlocks(std::span<const float> logits, const Weigher& weigher,
                 std::vector<double>* blocks) {
  blocks->clear();
  double total = 0.0;
  ForBlocks(logits.size(), [&](size_t begin, size_t end) {
    Four lanes[4] = {};
    size_t i = begin;
    for (; i + kLanes <= end; i += kLanes)
      for (size_t j = 0; j < 4; ++j) lanes[j] += weigher.Of(Load(&logits[i + 4 * j]));
    double sum = 0.0;
    for (const Four& four : lanes)
      for (size_t j = 0; j < 4; ++j) sum += four[j];
    for (; i < end; ++i) sum += weigher.Of(logits[i]);
    blocks->push_back(sum);
    total += sum;
  });
  return total;
}

// The id whose weight and those before it exceed `target`, or else the last one that has a weight.
TokenId IdAt(std::span<const float> logits, const Weigher& weigher, std::span<const double> blocks,
             double target) {
  size_t last = blocks.size() - 1;
  while (blocks[last] == 0.0) --last;  // the largest logit has a weight
  size_t block = 0, id = 0;
  double sum = 0.0;
  for (; block < last && sum + blocks[block] <= target; ++block) sum += blocks[block];
  for (size_t i = block * kBlock, end = std::min(logits.size(), i + kBlock); i < end; ++i) {
    const float weight = weigher.Of(logits[i]);
    if (weight == 0.0f) continue;
    id = i;
    sum += weight;
    if (sum > target) break;
  }
  return static_cast<TokenId>(id);
}

// What top_p and min_p leave of weights that come in descending order, whose sum is `all`. The
// first one always belongs.
class Nucleus {
 public:
  Nucleus(const SamplingParams& params, double all)
      : least_(params.min_p),
        wanted_(params.top_p < 1.0f ? std::max(0.0, double{params.top_p}) * all
                                    : std::numeric_limits<double>::infinity()) {}

  double sum() const { return sum_; }
  bool closed() const { return closed_; }

  // Whether the next weight belongs.
  bool Take(double weight) {
    if (closed_) return false;
    closed_ = !empty_ && (weight == 0.0 || weight < least_);
    if (closed_) return false;
    empty_ = false;
    sum_ += weight;
    closed_ = sum_ >= wanted_;
    return true;
  }

  // Takes the next weights, each at least `least` and `mass` in all, unless some may not belong.
  bool TakeAll(double mass, float least) {
    if (least < least_ || sum_ + mass >= wanted_) return false;
    empty_ = false;
    sum_ += mass;
    return true;
  }

 private:
  const float least_;
  const double wanted_;
  bool empty_ = true, closed_ = false;
  double sum_ = 0.0;
};

// Buckets of weights: each spans a factor of e^(1/16). The last one holds those that are zero.
constexpr int kBucketsPerNat = 16;
constexpr size_t kBuckets = 87 * kBucketsPerNat;

using FourBuckets = int32_t __attribute__((vector_size(16)));
FourBuckets BucketsOf(const Weigher& weigher, Four logits) {
  const Four buckets = weigher.Logs(logits) * -float{kBucketsPerNat};
  const Four last = Fill(kBuckets - 1);
  return __builtin_convertvector(buckets < last ? buckets : last, FourBuckets);
}

// No weight of the bucket is below: a little less than at its border, for rounding.
float LeastWeight(size_t bucket) {
  return ExpOfNegative(Fill(-static_cast<float>(bucket + 1) / kBucketsPerNat))[0] * 0.999f;
}

// As Sanitize would leave it.
float Maximum(std::span<const float> logits) {
  float maximum = kNever;
  ForBlocks(logits.size(), [&](size_t begin, size_t end) {
    maximum = std::max(maximum, BlockMaximum(logits, begin, end));
  });
  return std::min(maximum, kLargest);
}

// The first id whose logit is the largest; 0 where none is above -infinity.
TokenId ArgMax(std::span<const float> logits) {
  const float maximum = Maximum(logits);
  if (maximum == kNever) return 0;
  for (size_t begin = 0;; begin += kBlock) {
    const size_t end = std::min(logits.size(), begin + kBlock);
    if (BlockMaximum(logits, begin, end) < maximum) continue;
    while (!(logits[begin] >= maximum)) ++begin;
    return static_cast<TokenId>(begin);
  }
}

// Log-probability under the distribution whose largest logit is `maximum` and whose weights at
// temperature 1 add to `sum`.
float Logprob(float logit, float maximum, double sum) {
  if (maximum == kNever) return kLogprobMin;
  const double logprob = static_cast<double>(Sanitize(logit)) - maximum - std::log(sum);
  return logprob > kLogprobMin ? static_cast<float>(std::min(logprob, 0.0)) : kLogprobMin;
}

}  // namespace

bool Sampler::Before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// candidates_ = the `count` largest, sorted by (logit descending, id ascending). One pass with a
// rising threshold: what is below the count-th best seen so far is not even written down.
void Sampler::SelectTop(std::span<const float> logits, size_t count) {
  count = std::min(count, logits.size());
  const size_t room = 2 * count + 64;
  const auto cut = [&] {
    if (candidates_.size() <= count) return;
    const auto nth = candidates_.begin() + static_cast<ptrdiff_t>(count);
    std::nth_element(candidates_.begin(), nth - 1, candidates_.end(), Before);
    candidates_.erase(nth, candidates_.end());
  };
  candidates_.clear();
  if (count == 0) return;
  float threshold = kNever;  // later ids must be above it once there are `count`
  bool full = false;
  ForBlocks(logits.size(), [&](size_t begin, size_t end) {
    if (full && !(BlockMaximum(logits, begin, end) > threshold)) return;
    for (size_t id = begin; id < end; ++id) {
      if (full && !(logits[id] > threshold)) continue;
      candidates_.push_back({Sanitize(logits[id]), static_cast<TokenId>(id)});
      if (candidates_.size() < room) continue;
      cut();
      threshold = candidates_[count - 1].logit;
      full = true;
    }
  });
  cut();
  std::sort(candidates_.begin(), candidates_.end(), Before);
}

std::span<const float> Sampler::ApplyPenalties(std::span<const float> logits,
                                               const SamplingParams& params,
                                               std::span<const TokenId> prompt,
                                               std::span<const TokenId> answer) {
  if (params.repetition_penalty == 1.0f && params.frequency_penalty == 0.0f &&
      params.presence_penalty == 0.0f && params.logit_bias.empty())
    return logits;
  work_.resize(logits.size());
  std::transform(logits.begin(), logits.end(), work_.begin(), Sanitize);
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
  return work_;
}

// candidates_ = those of a bucket, sorted.
void Sampler::SelectBucket(std::span<const float> logits, float maximum, float inverse,
                           size_t bucket) {
  const Weigher weigher{maximum, inverse};
  candidates_.clear();
  const int wanted = static_cast<int>(bucket);
  ForFours(logits, [&](size_t begin, size_t count, Four four) {
    const FourBuckets member = BucketsOf(weigher, four) == wanted;
    if ((member[0] | member[1] | member[2] | member[3]) == 0) return;
    const Four weights = weigher.Of(four);
    for (size_t j = 0; j < count; ++j)
      if (member[j] != 0 && weights[j] > 0.0f)
        candidates_.push_back({Sanitize(four[j]), static_cast<TokenId>(begin + j)});
  });
  std::sort(candidates_.begin(), candidates_.end(), Before);
}

// Without top_k the nucleus may be large. By buckets of weights, two of them at most have to be put
// in order: the one that a rule cuts, and the one that is drawn from.
TokenId Sampler::DrawFromNucleus(std::span<const float> logits, const SamplingParams& params,
                                 float maximum, float inverse, double u) {
  const Weigher weigher{maximum, inverse};
  double masses[kBuckets] = {};
  double all = 0.0;
  ForFours(logits, [&](size_t, size_t count, Four four) {
    const FourBuckets buckets = BucketsOf(weigher, four);
    const Four weights = weigher.Of(four);
    for (size_t j = 0; j < count; ++j) masses[buckets[j]] += weights[j];
  });
  for (double mass : masses) all += mass;

  constexpr size_t kAll = std::numeric_limits<size_t>::max();
  Nucleus nucleus(params, all);
  size_t last = 0, members = 0;  // the nucleus' last bucket, and how many of it belong
  for (size_t bucket = 0; bucket < kBuckets && !nucleus.closed(); ++bucket) {
    if (masses[bucket] == 0.0) continue;
    size_t taken = kAll;
    if (!nucleus.TakeAll(masses[bucket], LeastWeight(bucket))) {
      SelectBucket(logits, maximum, inverse, bucket);
      taken = 0;
      while (taken < candidates_.size() && nucleus.Take(weigher.Of(candidates_[taken].logit)))
        ++taken;
    }
    if (taken == 0) continue;  // closed
    last = bucket;
    members = taken;
  }

  const double target = u * nucleus.sum();
  double sum = 0.0;
  size_t bucket = 0;
  for (; bucket < last && sum + masses[bucket] <= target; ++bucket) sum += masses[bucket];
  SelectBucket(logits, maximum, inverse, bucket);
  if (bucket < last) members = kAll;
  return DrawCandidate(std::min(members, candidates_.size()), maximum, inverse, target - sum);
}

// The one of the first `count` candidates at which the sum of their weights exceeds `target`.
TokenId Sampler::DrawCandidate(size_t count, float maximum, float inverse, double target) const {
  const Weigher weigher{maximum, inverse};
  double sum = 0.0;
  size_t i = 0;
  for (; i + 1 < count; ++i) {
    sum += weigher.Of(candidates_[i].logit);
    if (sum > target) break;
  }
  return candidates_[i].id;
}

TokenId Sampler::Draw(std::span<const float> logits, const SamplingParams& params,
                      uint64_t position) {
  const float maximum = Maximum(logits);
  if (maximum == kNever) return 0;
  const float inverse = std::min(1.0f / params.temperature, kLargest);
  const Weigher weigher{maximum, inverse};
  const double u = UniformAt(params.seed, position);
  if (params.top_k <= 0 || static_cast<size_t>(params.top_k) >= logits.size()) {
    if (params.top_p < 1.0f || params.min_p > 0.0f)
      return DrawFromNucleus(logits, params, maximum, inverse, u);
    // Nothing is cut off: no order is needed, ids ascending will do.
    const double all = SumBlocks(logits, weigher, &blocks_);
    return IdAt(logits, weigher, blocks_, u * all);
  }
  SelectTop(logits, static_cast<size_t>(params.top_k));
  double all = 0.0;
  for (const Candidate& candidate : candidates_) all += weigher.Of(candidate.logit);
  Nucleus nucleus(params, all);
  size_t count = 0;
  while (count < candidates_.size() && nucleus.Take(weigher.Of(candidates_[count].logit))) ++count;
  return DrawCandidate(count, maximum, inverse, u * nucleus.sum());
}

SampledToken Sampler::Sample(std::span<const float> logits, const SamplingParams& params,
                             std::span<const TokenId> prompt, std::span<const TokenId> answer) {
  CHECK(!logits.empty());
  const float maximum = Maximum(logits);
  const double sum = SumBlocks(logits, {maximum, 1.0f}, &blocks_);
  const std::span<const float> shaped = ApplyPenalties(logits, params, prompt, answer);
  const bool greedy = !(params.temperature > 0.0f);
  const TokenId id = greedy ? ArgMax(shaped) : Draw(shaped, params, prompt.size() + answer.size());
  return {id, Logprob(logits[static_cast<size_t>(id)], maximum, sum)};
}

SampledToken Sampler::Score(std::span<const float> logits, TokenId id) {
  CHECK(id >= 0 && static_cast<size_t>(id) < logits.size());
  const float maximum = Maximum(logits);
  const double sum = SumBlocks(logits, {maximum, 1.0f}, &blocks_);
  return {id, Logprob(logits[static_cast<size_t>(id)], maximum, sum)};
}

std::vector<SampledToken> Sampler::Top(std::span<const float> logits, int count) {
  const float maximum = Maximum(logits);
  const double sum = SumBlocks(logits, {maximum, 1.0f}, &blocks_);
  SelectTop(logits, static_cast<size_t>(std::max(count, 0)));
  std::vector<SampledToken> top;
  for (const Candidate& candidate : candidates_)
    top.push_back({candidate.id, Logprob(candidate.logit, maximum, sum)});
  return top;
}

}  // namespace perdure::engine
