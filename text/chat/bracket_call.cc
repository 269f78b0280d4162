#include "text/chat/bracket_call.h"

#include <string_view>

namespace perdure::text {
namespace {

constexpr std::string_view kArgs = "[ARGS]";
constexpr std::string_view kCallId = "[CALL_ID]";

}  // namespace

CallStep BracketCall::Step(char c, const CallSink& sink) {
  const CallStep step = Take(c, sink);
  if (step == CallStep::kMore && !begun_) held_ += c;
  return step;
}

CallStep BracketCall::Take(char c, const CallSink& sink) {
  switch (state_) {
    case State::kName:
      if (c != '[' && c != '{' && !IsJsonSpace(c)) {
        name_ += c;
        return AnyToolBegins(*sink.tools, name_) ? CallStep::kMore : CallStep::kBroken;
      }
      if (FindTool(*sink.tools, name_) == nullptr) return CallStep::kBroken;
      state_ = State::kMarkup;
      return StepMarkup(c, sink);
    case State::kMarkup:
      return StepMarkup(c, sink);
    case State::kCallId:
      if (c == '[') {
        state_ = State::kMarkup;
        return StepMarkup(c, sink);
      }
      return IsJsonSpace(c) || c == '{' ? CallStep::kBroken : CallStep::kMore;
    case State::kBeforeArguments:
      if (IsJsonSpace(c)) return CallStep::kMore;
      return c == '{' ? StepArguments(c, sink) : CallStep::kBroken;
    case State::kArguments:
      break;
  }
  return StepArguments(c, sink);
}

CallStep BracketCall::StepMarkup(char c, const CallSink& sink) {
  if (markup_.empty() && !has_id_) {
    if (IsJsonSpace(c)) return CallStep::kMore;
    if (c == '{') return StepArguments(c, sink);
  }
  markup_ += c;
  if (markup_ == kArgs) {
    state_ = State::kBeforeArguments;
  } else if (markup_ == kCallId && !has_id_) {
    has_id_ = true;
    markup_.clear();
    state_ = State::kCallId;
  } else if (!kArgs.starts_with(markup_) && (has_id_ || !kCallId.starts_with(markup_))) {
    return CallStep::kBroken;
  }
  return CallStep::kMore;
}

CallStep BracketCall::StepArguments(char c, const CallSink& sink) {
  const JsonStep step = scanner_.Step(c);
  if (step == JsonStep::kBad) return CallStep::kBroken;
  if (!begun_) {
    begun_ = true;
    held_.clear();
    sink.Begin(name_);
    state_ = State::kArguments;
  }
  sink.Arguments(c);
  complete_ = step == JsonStep::kDone;
  return complete_ ? CallStep::kDone : CallStep::kMore;
}

}  // namespace perdure::text
