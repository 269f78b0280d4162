// From logits to a token. Pure and counter-based: the draw depends on (seed, position) and on the
// arguments alone, so a resumed or batched sequence draws the same tokens as an undisturbed one.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/token.h"

namespace perdure::engine {

// Order of application: repetition penalty (tokens of prompt and answer), frequency and presence
// penalties (tokens of the answer), logit_bias, temperature, top_k, top_p, min_p. Logprobs are
// those of the model's own distribution, before any of these.
struct SamplingParams {
  float temperature = 1.0f;  // 0: the most probable token, lowest id on ties
  int top_k = 0;             // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  std::vector<std::pair<TokenId, float>> logit_bias;
  uint64_t seed = 0;
};

struct SampledToken {
  TokenId id = 0;
  float logprob = 0.0f;
};

// Not thread-safe (keeps work buffers); one may serve many sequences, one call after the other.
//
// Logits that are NaN count as -infinity, +infinity as the largest float. Ids outside of the
// vocabulary (in a bias, or among the tokens so far) are passed over. Logprobs below -9999, where
// JSON would have no number for them, are -9999.
class Sampler {
 public:
  // `logits`: vocab_size floats, left as they are. `prompt` and `answer`: the sequence so far.
  // `position`: that of the token to be drawn, prompt.size() + answer.size().
  SampledToken Sample(std::span<const float> logits, const SamplingParams& params,
                      std::span<const TokenId> prompt, std::span<const TokenId> answer);

  // This token with its log-probability.
  SampledToken Score(std::span<const float> logits, TokenId id);

  // The `count` most probable tokens of the model's own distribution, lowest id first on ties.
  std::vector<SampledToken> Top(std::span<const float> logits, int count);

 private:
  struct Candidate {
    float logit;
    TokenId id;
  };
  static bool Before(const Candidate& a, const Candidate& b);
  // The logits, or work_ where there is something to apply.
  std::span<const float> ApplyPenalties(std::span<const float> logits, const SamplingParams& params,
                                        std::span<const TokenId> prompt,
                                        std::span<const TokenId> answer);
  void SelectTop(std::span<const float> logits, size_t count);
  void SelectBucket(std::span<const float> logits, float maximum, float inverse, size_t bucket);
  // `maximum`: the largest logit. `inverse`: 1 / temperature. `u`: in [0, 1).
  TokenId DrawFromNucleus(std::span<const float> logits, const SamplingParams& params,
                          float maximum, float inverse, double u);
  TokenId DrawCandidate(size_t count, float maximum, float inverse, double target) const;
  TokenId Draw(std::span<const float> logits, const SamplingParams& params, uint64_t position);

  std::vector<float> work_;
  std::vector<double> blocks_;  // sums of weights
  std::vector<Candidate> candidates_;
  std::vector<uint32_t> counts_;  // per id, of the tokens so far; zero between calls
};

}  // namespace perdure::engine
