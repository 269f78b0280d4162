#include "text/chat/xml_call.h"

#include <algorithm>
#include <string_view>

#include "base/limits.h"
#include "text/chat/json_scanner.h"
#include "text/chat/typed_value.h"
#include "text/json_escape.h"

namespace perdure::text {
namespace {

constexpr std::string_view kParameter = "<parameter=";
constexpr std::string_view kFunctionEnd = "</function>";
constexpr std::string_view kTagEnd = "</tool_call>";
constexpr std::string_view kFollowers[] = {kParameter, kFunctionEnd, kTagEnd};
// Of a value, with the line break that templates put before it and without.
constexpr std::string_view kValueEnds[] = {"\n</parameter>", "</parameter>"};

bool MayBeNull(std::string_view text) {
  return std::string_view("null").starts_with(text) || std::string_view("None").starts_with(text);
}

}  // namespace

CallStep XmlCall::Step(char c, const CallSink& sink) {
  if (state_ == State::kAfterValue) return StepAfterValue(c, sink);
  const CallStep step = Take(c, sink);
  const bool holds = !begun_ || state_ == State::kKey;
  if (step == CallStep::kMore && holds) held_ += c;
  return step;
}

CallStep XmlCall::Take(char c, const CallSink& sink) {
  switch (state_) {
    case State::kName:
      return StepName(c, sink);
    case State::kBetween: {
      std::string_view marker;
      if (!Follows(c, &marker)) return CallStep::kBroken;
      return marker.empty() ? CallStep::kMore : Follow(marker, sink);
    }
    case State::kKey:
      return StepKey(c, sink);
    case State::kFirst:
      state_ = State::kValue;
      if (c == '\n') return CallStep::kMore;
      [[fallthrough]];
    default:
      StepValue(c, sink);
      return CallStep::kMore;
  }
}

CallStep XmlCall::StepName(char c, const CallSink& sink) {
  if (c == '>') {
    if (FindTool(*sink.tools, name_) == nullptr) return CallStep::kBroken;
    state_ = State::kBetween;
    return CallStep::kMore;
  }
  name_ += c;
  return AnyToolBegins(*sink.tools, name_) ? CallStep::kMore : CallStep::kBroken;
}

bool XmlCall::Follows(char c, std::string_view* marker) {
  if (marker_.empty() && IsJsonSpace(c)) return true;
  marker_ += c;
  for (const std::string_view follower : kFollowers) {
    if (!follower.starts_with(marker_)) continue;
    if (marker_.size() == follower.size()) {
      *marker = follower;
      marker_.clear();
    }
    return true;
  }
  marker_.clear();
  return false;
}

CallStep XmlCall::Follow(std::string_view marker, const CallSink& sink) {
  if (marker == kParameter) {
    state_ = State::kKey;
    key_.clear();
    // Until the key is known this may yet be no parameter.
    if (begun_) held_ = kParameter;
    return CallStep::kMore;
  }
  if (!begun_) {
    begun_ = true;
    sink.Begin(name_);
    sink.Arguments('{');
  }
  held_.clear();
  sink.Arguments('}');
  complete_ = true;
  closed_tag_ = marker == kTagEnd;
  return CallStep::kDone;
}

CallStep XmlCall::StepKey(char c, const CallSink& sink) {
  if (c != '>') {
    key_ += c;
    const bool sound = c != '\n' && key_.size() <= limits::kCallParameterNameBytesMax;
    return sound ? CallStep::kMore : CallStep::kBroken;
  }
  if (key_.empty() || keys_.contains(key_)) return CallStep::kBroken;
  if (!begun_) {
    begun_ = true;
    sink.Begin(name_);
  }
  held_.clear();
  sink.Arguments((keys_.empty() ? "{" : ", ") + JsonQuoted(key_) + ": ");
  const ToolSignature* tool = FindTool(*sink.tools, name_);
  const auto type = tool->parameters.find(key_);
  types_ = type == tool->parameters.end() ? kJsonString : type->second;
  keys_.insert(key_);
  streams_ = false;
  value_.clear();
  state_ = State::kFirst;
  return CallStep::kMore;
}

void XmlCall::StepValue(char c, const CallSink& sink) {
  end_ += c;
  // No end begins inside of another but at a line break.
  while (!end_.empty()) {
    const bool begins = std::any_of(std::begin(kValueEnds), std::end(kValueEnds),
                                    [this](std::string_view end) { return end.starts_with(end_); });
    if (begins) break;
    PassValue(end_.front(), sink);
    end_.erase(0, 1);
  }
  if (end_ == kValueEnds[0] || end_ == kValueEnds[1]) state_ = State::kAfterValue;
}

CallStep XmlCall::StepAfterValue(char c, const CallSink& sink) {
  std::string_view marker;
  if (Follows(c, &marker)) {
    follow_ += c;
    if (marker.empty()) return CallStep::kMore;
    end_.clear();
    follow_.clear();
    EndValue(sink);
    return Follow(marker, sink);
  }
  // The value itself holds such a tag. What was read behind it is too short for another one.
  const std::string text = follow_ + c;
  for (const char byte : end_) PassValue(byte, sink);
  end_.clear();
  follow_.clear();
  state_ = State::kValue;
  for (const char byte : text) StepValue(byte, sink);
  return CallStep::kMore;
}

void XmlCall::StreamString(const CallSink& sink) {
  if (streams_) return;
  streams_ = true;
  std::string text = "\"";
  for (const char c : value_) AppendJsonEscaped(c, &text);
  value_.clear();
  sink.Arguments(text);
}

void XmlCall::PassValue(char c, const CallSink& sink) {
  if (!streams_) {
    value_ += c;
    const bool waits =
        (types_ & kJsonString) == 0 || ((types_ & kJsonNull) != 0 && MayBeNull(value_));
    if (!waits) StreamString(sink);
    return;
  }
  std::string text;
  AppendJsonEscaped(c, &text);
  sink.Arguments(text);
}

void XmlCall::EndValue(const CallSink& sink) {
  if (!streams_) {
    const auto typed =
        TypedValue(value_, (types_ & kJsonString) != 0 ? kJsonNull & types_ : types_);
    if (typed) return sink.Arguments(*typed);
    StreamString(sink);
  }
  sink.Arguments('"');
}

void XmlCall::Finish(const CallSink& sink) {
  if (!begun_) return;
  if (state_ == State::kAfterValue) return EndValue(sink);
  if (state_ != State::kValue) return;
  for (const char c : end_) PassValue(c, sink);
  if (!streams_) sink.Arguments(value_);
}

}  // namespace perdure::text
