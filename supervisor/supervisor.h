// The supervisor: starts the frontend and one worker per model, restarts what dies, answers the
// control socket. One thread, one event loop; it never parses what clients send, never maps
// weights and never waits for a child.
#pragma once

#include <filesystem>
#include <functional>

#include "base/config.h"
#include "supervisor/timings.h"

namespace perdure::supervisor {

// What tests replace.
struct SupervisorOptions {
  std::filesystem::path program_dir;  // of perdure-worker and perdure-frontend; empty: our own
  std::function<void(Timings&)> adjust_timings;
  GetEnv env = ProcessEnvironment();
};

// Runs the service until it is told to stop; returns the exit code (protocol/heritage.h). `flags`
// are kept for reading the config again on SIGHUP. Blocks the signals that it handles in the
// calling thread, which must be the only one; logging must have been set up.
int RunSupervisor(const Config& config, const ConfigFlags& flags,
                  const SupervisorOptions& options = {});

}  // namespace perdure::supervisor
