#include "protocol/messages.h"

#include <fmt/format.h>

namespace perdure::protocol {

std::string ToolCallId(RequestId rid, int32_t choice, int32_t call) {
  return fmt::format("call_{:016x}_{}_{}", rid, choice, call);
}

std::string_view ModelStateName(ModelState state) {
  switch (state) {
    case ModelState::kStarting:
      return "starting";
    case ModelState::kLoading:
      return "loading";
    case ModelState::kReady:
      return "ready";
    case ModelState::kBackoff:
      return "backoff";
    case ModelState::kFailed:
      return "failed";
    case ModelState::kStopping:
      return "stopping";
    case ModelState::kStopped:
      return "stopped";
  }
  return "unknown";  // a number from the wire
}

}  // namespace perdure::protocol
