#include "cli/bench/bench.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/processors.h"
#include "cli/bench/measure.h"
#include "cli/bench/report.h"
#include "cli/model_choice.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

constexpr int kLongPrompt = 8192;

Result<engine::EngineOptions> EngineOptionsOf(const ModelChoice& choice, int threads) {
  engine::EngineOptions options;
  options.threads = threads > 0 ? threads : choice.model.threads;
  if (options.threads == 0) options.threads = UsableProcessors();
  options.threads = std::min(options.threads, limits::kEngineThreadsMax);
  options.quantize_bits = choice.model.quantize_bits;
  if (choice.config.prepared_weights) options.prepared.dir = choice.config.state_dir / "prepared";
  options.prepared.bytes_max = choice.config.prepared_weights_max;
  if (!choice.model.activations.empty()) {
    const auto activations = engine::ParseActivations(choice.model.activations);
    if (!activations)
      return Err(ErrorCode::bad_config,
                 fmt::format("activations is '{}', allowed are int8, float32 and nothing",
                             choice.model.activations));
    options.activations = *activations;
  }
  if (choice.config.isa.empty()) return options;
  const auto isa = engine::ParseIsa(choice.config.isa);
  if (!isa || !engine::CpuHas(*isa))
    return Err(ErrorCode::bad_config,
               fmt::format("this CPU cannot run isa '{}' of the configuration; leave the key out "
                           "for the fastest path that it has",
                           choice.config.isa));
  options.isa = *isa;
  return options;
}

// On a terminal: a line that is written over. Nothing else should stand in what is piped.
void ShowStep(const std::string& step) {
  if (isatty(STDERR_FILENO) == 0) return;
  fmt::print(stderr, "\r\033[K{}", step.empty() ? "" : "measuring: " + step);
  std::fflush(stderr);
}

Result<Json> Bench(const std::string& name, const ConfigFlags& flags, const GetEnv& env,
                   const BenchOptions& options) {
  ASSIGN_OR_RETURN(const ModelChoice choice, ChooseModel(name, flags, env));
  ASSIGN_OR_RETURN(const std::filesystem::path folder,
                   hub::FindModel(choice.model.source, hub::PlacesOf(choice.config, env)));
  ASSIGN_OR_RETURN(const engine::EngineOptions engine, EngineOptionsOf(choice, options.threads));
  MeasurePlan plan;
  plan.profile = options.profile;
  plan.seconds_each = options.seconds_each;
  if (options.long_context) plan.long_prompt = kLongPrompt;
  auto measured = Measure(folder, engine, plan, ShowStep);
  ShowStep("");
  if (!measured) return Err(std::move(measured).error());
  return BenchJson(choice.model.name, *measured);
}

}  // namespace

int RunBench(const std::string& model, const ConfigFlags& flags, const GetEnv& env,
             const BenchOptions& options) {
  const auto report = Bench(model, flags, env, options);
  if (!report) {
    fmt::print(stderr, "perdure: {}\n", report.error().message);
    const ErrorCode code = report.error().code;
    return code == ErrorCode::bad_model || code == ErrorCode::unsupported ? protocol::kExitBadModel
                                                                          : protocol::kExitUsage;
  }
  fmt::print("{}", options.json ? DumpJson(*report) + "\n" : FormatBench(*report));
  return protocol::kExitOk;
}

}  // namespace perdure::cli
