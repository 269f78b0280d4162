// How much quantized KV changes what a model says, measured on a conversation of its own: a few
// tokens at a time, while nobody needs the engine, in memory of its own, so that no page that
// somebody may come back to is given up for it.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/token.h"
#include "engine/engine.h"
#include "shm/layout.h"
#include "worker/cache_facts.h"

namespace perdure::worker {

class DivergenceMeasure {
 public:
  // Of the last positions of `tokens`, at least kDivergenceTokensMin of them. The engine outlives
  // the measure.
  DivergenceMeasure(engine::Engine* engine, std::vector<TokenId> tokens);

  // Computes some tokens; true when it is over.
  bool Step();
  // Once it is over; nothing where there was no memory for it.
  std::optional<CacheDivergence> result() const;

 private:
  bool BeginPass();
  void Note(std::span<const float> logits, size_t position);

  engine::Engine* const engine_;
  const std::vector<TokenId> tokens_;
  const size_t from_;  // the first position that is compared
  size_t pass_ = 0;    // of 16, 8, 4 bits
  size_t done_ = 0;    // tokens of this pass
  bool failed_ = false;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;  // of this pass's pages
  std::vector<std::byte*> pages_;
  std::vector<float> exact_;  // logits in 16 bits, from from_ on
  double sums_[shm::kPageFormats] = {};
};

}  // namespace perdure::worker
