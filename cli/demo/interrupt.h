// Ctrl-C and SIGTERM while the demonstration runs.
#pragma once

namespace perdure::cli {

// From now on both only raise a flag, and end the system call that waits.
void CatchInterrupts();
bool Interrupted();
void ForgetInterrupt();

}  // namespace perdure::cli
