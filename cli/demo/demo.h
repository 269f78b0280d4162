// `perdure demo`: a service with the built-in model, whose answers and conversations outlive its
// processes before the user's eyes.
#pragma once

#include "base/config.h"
#include "cli/command_line.h"

namespace perdure::cli {

// Starts this program's `serve` with the same flags as a child, shows the scenes, then stays until
// Ctrl-C unless options.once. Returns the exit code: that of the first scene that failed.
int RunDemo(const Config& config, const ConfigFlags& flags, const DemoOptions& options);

}  // namespace perdure::cli
