// One call as Devstral writes it behind [TOOL_CALLS]: NAME[ARGS]{…}, perhaps with [CALL_ID]ID
// before [ARGS]. Some versions leave [ARGS] out.
#pragma once

#include <cstdint>
#include <string>

#include "text/chat/call_sink.h"
#include "text/chat/json_scanner.h"

namespace perdure::text {

// A value. Members as in JsonCall.
class BracketCall {
 public:
  // From the first byte of the name on; kDone with the arguments' closing brace.
  CallStep Step(char c, const CallSink& sink);
  void Finish(const CallSink&) {}

  bool begun() const { return begun_; }
  bool arguments_complete() const { return complete_; }
  const std::string& held() const { return held_; }

 private:
  enum class State : uint8_t { kName, kMarkup, kCallId, kBeforeArguments, kArguments };

  CallStep Take(char c, const CallSink& sink);
  CallStep StepMarkup(char c, const CallSink& sink);
  CallStep StepArguments(char c, const CallSink& sink);

  State state_ = State::kName;
  bool begun_ = false;
  bool complete_ = false;
  bool has_id_ = false;
  std::string held_;
  std::string name_;
  std::string markup_;  // the beginning of [ARGS] or [CALL_ID]
  JsonScanner scanner_;
};

}  // namespace perdure::text
