// One call as Qwen3-Coder writes it: <function=NAME>, <parameter=KEY>VALUE</parameter> …,
// </function>. The arguments become a JSON object, values typed by the tool's schema.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "text/chat/call_sink.h"

namespace perdure::text {

// A value. Members as in JsonCall.
class XmlCall {
 public:
  // From behind "<function=" on; kDone with "</function>", or with a closing tag where the model
  // has left that out.
  CallStep Step(char c, const CallSink& sink);
  // Of a value that is cut off, what was held back goes to the arguments.
  void Finish(const CallSink& sink);

  bool begun() const { return begun_; }
  bool arguments_complete() const { return complete_; }
  const std::string& held() const { return held_; }
  // "</tool_call>" was read, too.
  bool closed_tag() const { return closed_tag_; }

 private:
  enum class State : uint8_t {
    kName,
    kBetween,  // before the first parameter
    kKey,
    kFirst,  // of a value: the line break after <parameter=KEY> is not part of it
    kValue,
    kAfterValue,  // behind </parameter>, if what follows shows that the value ends there
  };

  CallStep Take(char c, const CallSink& sink);
  CallStep StepName(char c, const CallSink& sink);
  CallStep StepKey(char c, const CallSink& sink);
  void StepValue(char c, const CallSink& sink);
  CallStep StepAfterValue(char c, const CallSink& sink);
  // White space, or the beginning of what may follow; `marker` is what was completed, if any.
  bool Follows(char c, std::string_view* marker);
  CallStep Follow(std::string_view marker, const CallSink& sink);
  void PassValue(char c, const CallSink& sink);
  void StreamString(const CallSink& sink);
  void EndValue(const CallSink& sink);

  State state_ = State::kName;
  bool begun_ = false;
  bool complete_ = false;
  bool closed_tag_ = false;
  bool streams_ = false;  // the value is a string of which a part is given out
  JsonTypes types_ = 0;   // of the value
  std::string held_;
  std::string name_;
  std::string key_;
  std::string value_;   // where its type is not settled
  std::string end_;     // the beginning of a value's end, with the line break before it
  std::string follow_;  // what was read behind it
  std::string marker_;  // the beginning of a marker, at the end of it
  std::set<std::string> keys_;
};

}  // namespace perdure::text
