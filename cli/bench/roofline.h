// The least time that a machine with given bounds could take for a step.
#pragma once

#include <cstdint>
#include <string_view>

#include "cli/bench/bounds.h"
#include "engine/config.h"
#include "engine/engine.h"

namespace perdure::cli {

// `streams` sequences with `cached` positions each are fed `fresh` tokens each; the last token of
// each asks for logits.
struct StepShape {
  int streams = 1;
  int cached = 0;
  int fresh = 1;
  int Tokens() const { return streams * fresh; }
};

// What a step has to do, whatever computes it.
struct StepWork {
  double weight_ops = 0.0;     // two a weight and token: the layers', and the head's for the logits
  double attention_ops = 0.0;  // two for each product of a score and of a sum of values
  double bytes = 0.0;          // weights once, keys and values of what was cached
  bool int8 = false;           // weights are small enough numbers for int8 instructions
};

// Of experts those of one token are read: what a batch reads beyond them depends on its tokens.
StepWork WorkOf(const engine::ModelInfo& info, const engine::ModelConfig& config,
                const StepShape& shape);

struct Roofline {
  double seconds = 0.0;
  std::string_view bound;  // "read bandwidth", "int8 peak", "f32 peak"; empty: unknown
};
// Reading and computing overlap at best; attention is computed in f32.
Roofline RooflineOf(const StepWork& work, const MachineBounds& bounds);

}  // namespace perdure::cli
