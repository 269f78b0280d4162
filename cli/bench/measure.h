// Measures a model: the one core behind `perdure bench` and bench/engine_bench.
//
// Every figure is a step (or the steps of a prompt) of the engine, repeated: the same tokens at the
// same positions. The machine's bounds are measured between the figures.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/bench/bounds.h"
#include "cli/bench/roofline.h"
#include "engine/engine.h"
#include "engine/phase_profile.h"

namespace perdure::cli {

struct MeasurePlan {
  int prompt = 512;
  int decode_context = 128;  // positions before the token, each stream
  std::vector<int> streams = {1, 4, 8, 16};
  int continuation_cached = 1146;
  int continuation_tokens = 16;
  int long_prompt = 0;  // tokens; 0: not measured
  // A figure is repeated until it has taken so long, at least three times.
  double seconds_each = 1.5;
  int bound_rounds = BoundsMeter::kRounds;
  size_t bound_bytes = BoundsMeter::kBytes;
  bool profile = false;
};

struct Figure {
  std::string key;   // "prefill", "decode", "continuation", "long_prefill", "long_decode"
  std::string name;  // for people: "prefill 512"
  StepShape shape;
  int repetitions = 0;
  double median_s = 0.0;
  double best_s = 0.0;
  Roofline bound;  // for one repetition, by the bounds before and after
  std::vector<engine::PhaseProfile::Phase> phases;  // of all repetitions; empty unless asked for
  double profiled_s = 0.0;                          // all repetitions
};

struct MemoryUse {
  uint64_t resident_bytes = 0;   // of this process at the end
  uint64_t anonymous_bytes = 0;  // of them: not backed by a file
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;
};

struct Measurement {
  engine::ModelInfo info;
  engine::Isa isa = engine::Isa::kScalar;
  int threads = 0;
  double load_s = 0.0;
  double load_first_token_s = 0.0;  // from before the load to the first token of a one-token prompt
  std::vector<MachineBounds> bounds;  // as measured, in order
  std::vector<Figure> figures;
  MemoryUse memory;
  std::vector<std::string> notes;  // what was left out, and why
};

// Loads the model in `dir` and measures it. `on_step` tells what begins ("loading", a figure's
// name). Errors are those of Engine::Load, and out_of_memory for the KV.
Result<Measurement> Measure(const std::filesystem::path& dir, const engine::EngineOptions& options,
                            const MeasurePlan& plan,
                            const std::function<void(const std::string&)>& on_step);

}  // namespace perdure::cli
