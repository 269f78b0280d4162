#include "cli/demo/interrupt.h"

#include <signal.h>

namespace perdure::cli {
namespace {

volatile sig_atomic_t interrupted = 0;
void OnSignal(int) { interrupted = 1; }

}  // namespace

void CatchInterrupts() {
  struct sigaction action {};
  action.sa_handler = OnSignal;  // no SA_RESTART: a wait must notice
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool Interrupted() { return interrupted != 0; }
void ForgetInterrupt() { interrupted = 0; }

}  // namespace perdure::cli
