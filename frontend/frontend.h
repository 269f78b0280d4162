// The frontend process: serves the HTTP API and passes generations on to the workers.
#pragma once

#include "protocol/heritage.h"

namespace perdure::frontend {

// Runs until the supervisor drains it or is gone; returns the process's exit code. Sets up
// logging, ignores the signals that go to whole groups. Single-threaded; takes over the descriptors
// that the heritage names.
int RunFrontend(const protocol::Heritage& heritage);

}  // namespace perdure::frontend
