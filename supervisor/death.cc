#include "supervisor/death.h"

#include <fmt/format.h>

#include <csignal>
#include <cstring>

#include "protocol/heritage.h"

namespace perdure::supervisor {

std::string_view DeathClassName(DeathClass death) {
  switch (death) {
    case DeathClass::kExternal:
      return "external";
    case DeathClass::kOom:
      return "oom";
    case DeathClass::kHang:
      return "hang";
    case DeathClass::kCrash:
      return "crash";
    case DeathClass::kExit:
      return "exit";
    case DeathClass::kBadModel:
      return "bad_model";
    case DeathClass::kDamaged:
      return "damaged";
    case DeathClass::kStopped:
      return "stopped";
  }
  return "crash";
}

bool CountsAgainstModel(DeathClass death) {
  return death == DeathClass::kOom || death == DeathClass::kHang || death == DeathClass::kCrash ||
         death == DeathClass::kExit;
}

DeathClass ClassifyDeath(const DeathFacts& facts) {
  if (!facts.signaled) {
    if (facts.code == protocol::kExitBadModel) return DeathClass::kBadModel;
    if (facts.code == protocol::kExitDamaged) return DeathClass::kDamaged;
    if (facts.code != 0) return DeathClass::kCrash;
    return facts.asked_to_stop ? DeathClass::kStopped : DeathClass::kExit;
  }
  if (facts.code == SIGKILL) {
    switch (facts.killed_by_us) {
      case KillReason::kHang:
        return DeathClass::kHang;
      case KillReason::kProtocol:
        return DeathClass::kCrash;
      case KillReason::kStop:
        return DeathClass::kStopped;
      case KillReason::kNone:
        return facts.oom_kills_grew ? DeathClass::kOom : DeathClass::kExternal;
    }
  }
  // No program error raises these: somebody sent them.
  if (facts.code == SIGTERM || facts.code == SIGINT || facts.code == SIGHUP)
    return DeathClass::kExternal;
  return DeathClass::kCrash;
}

std::string DescribeExit(bool signaled, int code) {
  if (!signaled) return fmt::format("exit code {}", code);
  if (const char* name = sigabbrev_np(code)) return fmt::format("killed by SIG{}", name);
  return fmt::format("killed by signal {}", code);
}

}  // namespace perdure::supervisor
