#include "text/chat/json_call.h"

#include <algorithm>

namespace perdure::text {
namespace {

// Longer than any key that means something here.
constexpr size_t kKeyBytesKept = 16;

}  // namespace

CallStep JsonCall::Step(char c, const CallSink& sink) {
  passed_ = false;
  const CallStep step = Take(c, sink);
  if (step != CallStep::kMore) return step;
  if (passed_)
    held_.clear();
  else
    held_ += c;
  return step;
}

CallStep JsonCall::Take(char c, const CallSink& sink) {
  const auto go = [this](State state) {
    state_ = state;
    return CallStep::kMore;
  };
  switch (state_) {
    case State::kKey: {
      const JsonStep step = string_.Step(c, &key_);
      if (step == JsonStep::kBad) return CallStep::kBroken;
      if (key_.size() > kKeyBytesKept) key_.resize(kKeyBytesKept + 1);
      return step == JsonStep::kDone ? EndKey() : CallStep::kMore;
    }
    case State::kName:
      return StepName(c, sink);
    case State::kObject:
      if (!PassArguments(c, sink)) return CallStep::kBroken;
      passed_ = begun_;
      return go(arguments_ == Arguments::kWhole ? State::kAfterValue : State::kObject);
    case State::kText:
      return StepText(c, sink);
    case State::kOther:
      return StepOther(c, sink);
    default:
      break;
  }
  if (IsJsonSpace(c) && state_ != State::kOpen) return CallStep::kMore;
  switch (state_) {
    case State::kOpen:
      return c == '{' ? go(State::kFirstKey) : CallStep::kBroken;
    case State::kFirstKey:
    case State::kNextKey:
      if (c != '"') return CallStep::kBroken;
      string_ = {};
      key_.clear();
      return go(State::kKey);
    case State::kColon:
      return c == ':' ? go(State::kValue) : CallStep::kBroken;
    case State::kValue:
      return BeginValue(c, sink);
    default:
      if (c == ',') return go(State::kNextKey);
      return c == '}' ? Close(sink) : CallStep::kBroken;
  }
}

CallStep JsonCall::EndKey() {
  if (key_ == "name") {
    if (named_) return CallStep::kBroken;
    key_kind_ = Key::kName;
  } else if (key_ == "arguments" || key_ == "parameters") {
    if (arguments_ != Arguments::kNone) return CallStep::kBroken;
    key_kind_ = Key::kArguments;
  } else {
    const bool usual = key_ == "type" || key_ == "id";
    if (keys_ == Keys::kStrict && !usual && !begun_) return CallStep::kBroken;
    key_kind_ = Key::kOther;
  }
  state_ = State::kColon;
  return CallStep::kMore;
}

CallStep JsonCall::BeginValue(char c, const CallSink& sink) {
  string_ = {};
  scanner_ = {};
  if (key_kind_ == Key::kName) {
    if (c != '"') return CallStep::kBroken;
    state_ = State::kName;
    return CallStep::kMore;
  }
  if (key_kind_ == Key::kArguments) {
    if (c == '"') {
      arguments_ = Arguments::kEmpty;
      state_ = State::kText;
      return CallStep::kMore;
    }
    if (c == '{') {
      if (!PassArguments(c, sink)) return CallStep::kBroken;
      passed_ = begun_;
      state_ = State::kObject;
      return CallStep::kMore;
    }
    if (c != 'n') return CallStep::kBroken;
    arguments_ = Arguments::kEmpty;
  }
  state_ = State::kOther;
  return StepOther(c, sink);
}

CallStep JsonCall::StepName(char c, const CallSink& sink) {
  const JsonStep step = string_.Step(c, &name_);
  if (step == JsonStep::kBad) return CallStep::kBroken;
  if (step == JsonStep::kMore)
    return AnyToolBegins(*sink.tools, name_) ? CallStep::kMore : CallStep::kBroken;
  if (FindTool(*sink.tools, name_) == nullptr) return CallStep::kBroken;
  named_ = true;
  state_ = State::kAfterValue;
  if (arguments_ == Arguments::kWhole) {
    Begin(sink);
    passed_ = true;
  }
  return CallStep::kMore;
}

CallStep JsonCall::StepText(char c, const CallSink& sink) {
  std::string text;
  const JsonStep step = string_.Step(c, &text);
  if (step == JsonStep::kBad) return CallStep::kBroken;
  if (step == JsonStep::kDone) {
    if (arguments_ == Arguments::kPart) return CallStep::kBroken;
    state_ = State::kAfterValue;
    return CallStep::kMore;
  }
  for (const char byte : text) {
    if (arguments_ != Arguments::kPart && IsJsonSpace(byte)) continue;
    if (arguments_ == Arguments::kWhole || (arguments_ == Arguments::kEmpty && byte != '{') ||
        !PassArguments(byte, sink))
      return CallStep::kBroken;
    passed_ = begun_;
  }
  return CallStep::kMore;
}

CallStep JsonCall::StepOther(char c, const CallSink& sink) {
  const JsonStep step = scanner_.Step(c);
  if (step == JsonStep::kBad) return CallStep::kBroken;
  if (step == JsonStep::kMore) return CallStep::kMore;
  state_ = State::kAfterValue;
  return scanner_.done_before() ? Take(c, sink) : CallStep::kMore;
}

CallStep JsonCall::Close(const CallSink& sink) {
  if (!named_) return CallStep::kBroken;
  if (!begun_) {
    early_ = "{}";
    arguments_ = Arguments::kWhole;
    Begin(sink);
  }
  return CallStep::kDone;
}

bool JsonCall::PassArguments(char c, const CallSink& sink) {
  const JsonStep step = scanner_.Step(c);
  if (step == JsonStep::kBad) return false;
  arguments_ = step == JsonStep::kDone ? Arguments::kWhole : Arguments::kPart;
  if (named_ && !begun_) Begin(sink);
  if (begun_)
    sink.Arguments(c);
  else
    early_ += c;
  return true;
}

void JsonCall::Begin(const CallSink& sink) {
  begun_ = true;
  sink.Begin(name_);
  sink.Arguments(early_);
  early_.clear();
  held_.clear();
}

}  // namespace perdure::text
