// A worker process: one model, served to the frontend.
#pragma once

#include "protocol/heritage.h"

namespace perdure::worker {

// Loads the model and answers requests until the supervisor says drain or is gone. Takes over the
// file descriptors that the heritage names. Returns the process's exit code.
int RunWorker(const protocol::Heritage& heritage);

}  // namespace perdure::worker
