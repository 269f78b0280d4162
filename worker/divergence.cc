#include "worker/divergence.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "base/check.h"
#include "base/limits.h"
#include "worker/cache_schedule.h"

namespace perdure::worker {
namespace {

// Logits in 16 bits are kept: of so many positions that they take 16 MiB, and no more than this.
constexpr size_t kPositionsMax = 64;
constexpr size_t kFloatsMax = size_t{4} << 20;

size_t FirstCompared(size_t tokens, int vocab) {
  const size_t positions = std::clamp<size_t>(kFloatsMax / static_cast<size_t>(vocab), 1,
                                              std::min(kPositionsMax, tokens / 2));
  return tokens - positions;
}

// ln of the sum of exponentials.
double LogSum(std::span<const float> logits) {
  const double top = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - top);
  return top + std::log(sum);
}

double Divergence(std::span<const float> p, std::span<const float> q) {
  const double log_p = LogSum(p), log_q = LogSum(q);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_of_it = p[i] - log_p;
    if (log_of_it > -700) sum += std::exp(log_of_it) * (log_of_it - (q[i] - log_q));
  }
  return std::max(sum, 0.0);
}

}  // namespace

DivergenceMeasure::DivergenceMeasure(engine::Engine* engine, std::vector<TokenId> tokens)
    : engine_(engine),
      tokens_(std::move(tokens)),
      from_(FirstCompared(tokens_.size(), engine->info().vocab_size)) {
  CHECK(tokens_.size() >= limits::kDivergenceTokensMin);
}

bool DivergenceMeasure::BeginPass() {
  constexpr size_t kAlignment = 64;  // a cache line
  const size_t page_bytes =
      engine_->info().kv.PageBytes(PrecisionOf(static_cast<shm::PageFormat>(pass_)));
  const auto count =
      static_cast<size_t>(engine::KvShape::PagesFor(static_cast<int>(tokens_.size())));
  const size_t stride = (page_bytes + kAlignment - 1) / kAlignment * kAlignment;
  pages_.clear();
  memory_.reset();
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, count * stride)));
  if (memory_ == nullptr) return false;
  for (size_t i = 0; i < count; ++i) pages_.push_back(memory_.get() + i * stride);
  return true;
}

void DivergenceMeasure::Note(std::span<const float> logits, size_t position) {
  if (pass_ == 0) {
    exact_.insert(exact_.end(), logits.begin(), logits.end());
    return;
  }
  const std::span<const float> exact =
      std::span(exact_).subspan((position - from_) * logits.size(), logits.size());
  sums_[pass_] += Divergence(exact, logits);
}

bool DivergenceMeasure::Step() {
  if (failed_ || pass_ == shm::kPageFormats) return true;
  if (done_ == 0 && !BeginPass()) {
    failed_ = true;
    return true;
  }
  const std::vector<engine::KvPrecision> precisions(
      pages_.size(), PrecisionOf(static_cast<shm::PageFormat>(pass_)));
  const size_t count = std::min(limits::kDivergenceTokensPerStep, tokens_.size() - done_);
  engine::SequenceStep step;
  step.kv.pages = pages_;
  step.kv.precisions = precisions;
  step.start = static_cast<int>(done_);
  step.tokens = std::span(tokens_).subspan(done_, count);
  const size_t logits_from = std::clamp(from_, done_, done_ + count) - done_;
  step.logits_from = static_cast<int>(logits_from);
  const std::span<const float> logits = engine_->Step({&step, 1});
  const auto vocab = static_cast<size_t>(engine_->info().vocab_size);
  for (size_t i = logits_from; i < count; ++i)
    Note(logits.subspan((i - logits_from) * vocab, vocab), done_ + i);
  done_ += count;
  if (done_ < tokens_.size()) return false;
  done_ = 0;
  return ++pass_ == shm::kPageFormats;
}

std::optional<CacheDivergence> DivergenceMeasure::result() const {
  if (failed_ || pass_ != shm::kPageFormats) return std::nullopt;
  const size_t positions = tokens_.size() - from_;
  const auto mean = [&](shm::PageFormat format) {
    return sums_[static_cast<size_t>(format)] / static_cast<double>(positions);
  };
  return CacheDivergence{mean(shm::PageFormat::kBits8), mean(shm::PageFormat::kBits4),
                         static_cast<int>(positions)};
}

}  // namespace perdure::worker
