// How much quantized KV changes what a model says, measured on a conversation of its own: a few
// tokens at a time, while nobody needs the engine.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "base/token.h"
#include "engine/engine.h"
#include "shm/page_store.h"
#include "worker/cache_facts.h"

namespace perdure::worker {

class DivergenceMeasure {
 public:
  // Of the last positions of `tokens`, at least kDivergenceTokensMin of them. All that is pointed
  // to outlives the measure.
  DivergenceMeasure(engine::Engine* engine, shm::PageStore* store, std::vector<TokenId> tokens);
  ~DivergenceMeasure();
  DivergenceMeasure(const DivergenceMeasure&) = delete;
  DivergenceMeasure& operator=(const DivergenceMeasure&) = delete;

  // Computes some tokens; true when it is over.
  bool Step();
  // Once it is over; nothing where there was no memory for it.
  std::optional<CacheDivergence> result() const;

 private:
  bool BeginPass();
  void EndPass();
  void Note(std::span<const float> logits, size_t position);

  engine::Engine* const engine_;
  shm::PageStore* const store_;
  const std::vector<TokenId> tokens_;
  const size_t from_;  // the first position that is compared
  size_t pass_ = 0;    // of 16, 8, 4 bits
  size_t done_ = 0;    // tokens of this pass
  bool failed_ = false;
  std::vector<shm::PageIndex> pages_;
  std::vector<float> exact_;  // logits in 16 bits, from from_ on
  double sums_[shm::kPageFormats] = {};
};

}  // namespace perdure::worker
