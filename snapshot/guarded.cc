#include "snapshot/guarded.h"

#include <setjmp.h>
#include <signal.h>

#include <atomic>
#include <mutex>

#include "base/check.h"

namespace perdure::snapshot {
namespace {

struct Guard {
  sigjmp_buf begin;
  volatile GuardEnd end = GuardEnd::kReturned;
};
constinit thread_local Guard* volatile current = nullptr;

struct sigaction before_bus, before_segv;
std::atomic<bool> is_installed = false;

[[noreturn]] void Leave(GuardEnd end) {
  Guard* const guard = current;
  guard->end = end;
  siglongjmp(guard->begin, 1);
}

// As if Handle were not there.
void Forward(int signal, siginfo_t* info, void* context, const struct sigaction& before) {
  const bool was_sent = info->si_code <= 0;  // by somebody; else the kernel tells of a fault
  if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
    if (was_sent && before.sa_handler == SIG_IGN) return;
    // On return the instruction faults again, and nobody catches it.
    sigaction(signal, &before, nullptr);
    if (was_sent) raise(signal);
  } else {
    before.sa_handler(signal);
  }
}

void Handle(int signal, siginfo_t* info, void* context) {
  if (current != nullptr && info->si_code > 0)
    Leave(signal == SIGBUS ? GuardEnd::kUnreadable : GuardEnd::kAstray);
  Forward(signal, info, context, signal == SIGBUS ? before_bus : before_segv);
}

}  // namespace

void InstallGuard() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = Handle;
    // SA_NODEFER: the signal's mask is the same afterwards, so that jumping out needs not set it.
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    // Known before they are needed: another thread may fault between the calls.
    CHECK(sigaction(SIGBUS, nullptr, &before_bus) == 0);
    CHECK(sigaction(SIGSEGV, nullptr, &before_segv) == 0);
    CHECK(sigaction(SIGBUS, &action, nullptr) == 0);
    CHECK(sigaction(SIGSEGV, &action, nullptr) == 0);
    is_installed.store(true);
  });
}

GuardEnd GuardedCall(void (*run)(void* context), void* context) {
  CHECK(is_installed.load(std::memory_order_relaxed));
  CHECK(current == nullptr);
  Guard guard;
  if (sigsetjmp(guard.begin, 0) == 0) {
    current = &guard;
    run(context);
  }
  current = nullptr;
  return guard.end;
}

void LeaveGuard() {
  if (current != nullptr) Leave(GuardEnd::kLeft);
}

}  // namespace perdure::snapshot
