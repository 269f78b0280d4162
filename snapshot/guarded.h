// Memory that a file is mapped to can turn out unreadable: its disk fails, or somebody has cut the
// file short (SIGBUS). And who follows a damaged file's pointers ends up anywhere (SIGSEGV). A
// guarded call gives these back as values.
#pragma once

namespace perdure::snapshot {

enum class GuardEnd {
  kReturned,
  kUnreadable,  // SIGBUS
  kAstray,      // SIGSEGV
  kLeft,        // LeaveGuard
};

// Makes SIGBUS and SIGSEGV values within guarded calls, for the whole process; anywhere else they
// do what they did before. A second time it does nothing. Any thread.
void InstallGuard();

// Calls run(context). Other ends than kReturned: it was left in the middle; whatever it had begun,
// locks included, stays begun, so what it worked on must not be used any more. `run` has nothing on
// its stack that wants to be destroyed. After InstallGuard; any thread; does not nest.
GuardEnd GuardedCall(void (*run)(void* context), void* context);

template <class Run>
GuardEnd Guarded(Run& run) {
  return GuardedCall([](void* context) { (*static_cast<Run*>(context))(); }, &run);
}

// Leaves this thread's guarded call; does nothing outside of one.
void LeaveGuard();

}  // namespace perdure::snapshot
