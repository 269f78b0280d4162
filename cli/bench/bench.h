// `perdure bench`: how fast this machine runs a model, beside what it could do at best.
#pragma once

#include <string>

#include "base/config.h"

namespace perdure::cli {

struct BenchOptions {
  int threads = 0;            // 0: as the service would have
  double seconds_each = 1.5;  // as in MeasurePlan
  bool long_context = false;
  bool profile = false;
  bool json = false;
};

// `model` as in RunShow. Prints; returns the exit code.
int RunBench(const std::string& model, const ConfigFlags& flags, const GetEnv& env,
             const BenchOptions& options);

}  // namespace perdure::cli
