// `perdure demo`: a server with the built-in model, one streamed answer, and what to try next.
#pragma once

#include <string>

#include "base/config.h"
#include "cli/command_line.h"

namespace perdure::cli {

// Starts this program's `serve` with the same flags) as a child, waits until it is
// ready, streams an answer, then stays until Ctrl-C unless options.once. Returns the exit code.
int RunDemo(const Config& config, const ConfigFlags& flags, const DemoOptions& options);

}  // namespace perdure::cli
