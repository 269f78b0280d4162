// Why a child ended. A pure function of what is known after it was reaped.
#pragma once

#include <string>
#include <string_view>

namespace perdure::supervisor {

// docs/lifecycle.md has the table. Only kOom, kHang, kCrash and kExit count against a model.
enum class DeathClass {
  kExternal,  // a signal from outside: SIGKILL that is neither ours nor the OOM killer's, SIGTERM …
  kOom,       // the OOM killer
  kHang,      // killed by the supervisor for lack of progress
  kCrash,     // another signal, an exit code that tells an error, a channel misused
  kExit,      // exited with 0 though nobody asked it to
  kBadModel,  // exit code 112: the model's files; restarting does not help
  kDamaged,   // exit code 113: a prepared file was damaged, and is made again
  kStopped,   // as it was asked to
};
std::string_view DeathClassName(DeathClass death);
bool CountsAgainstModel(DeathClass death);

// Why the supervisor sent SIGKILL, if it did.
enum class KillReason { kNone, kHang, kProtocol, kStop };

struct DeathFacts {
  bool signaled = false;
  int code = 0;  // the signal's number or the exit code
  KillReason killed_by_us = KillReason::kNone;
  bool asked_to_stop = false;  // Drain was sent
  bool oom_kills_grew = false;
};
DeathClass ClassifyDeath(const DeathFacts& facts);

// "killed by SIGSEGV", "exit code 112".
std::string DescribeExit(bool signaled, int code);

}  // namespace perdure::supervisor
