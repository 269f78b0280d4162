// What a measurement tells: for people and for programs.
#pragma once

#include <string>

#include "base/json.h"
#include "cli/bench/measure.h"

namespace perdure::cli {

// Stable keys (docs/performance.md). Rates are tokens of all streams each second.
Json BenchJson(const std::string& model, const Measurement& measured);

// The report as lines for a terminal, from BenchJson's object.
std::string FormatBench(const Json& report);

}  // namespace perdure::cli
