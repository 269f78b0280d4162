// A worker process: one model, served to the frontend.
#pragma once

#include <functional>

#include "protocol/heritage.h"
#include "worker/model.h"

namespace perdure::worker {

// Loads the model and answers requests until the supervisor says drain or is gone. Takes over the
// file descriptors that the heritage names. Returns the process's exit code.
int RunWorker(const protocol::Heritage& heritage);
// `on_loaded` lets a test put something between the model and its use.
int RunWorker(const protocol::Heritage& heritage, const std::function<void(Model*)>& on_loaded);

}  // namespace perdure::worker
