// One call as a JSON object, {"name": …, "arguments" or "parameters": …}, byte by byte.
#pragma once

#include <cstdint>
#include <string>

#include "text/chat/call_sink.h"
#include "text/chat/json_scanner.h"

namespace perdure::text {

// A value.
class JsonCall {
 public:
  // kStrict: for an answer that may as well be JSON of another kind. A key that calls do not have
  // breaks it, so that such an answer is not held back to its end.
  enum class Keys : uint8_t { kAny, kStrict };
  explicit JsonCall(Keys keys) : keys_(keys) {}

  // From the opening brace on; kDone with the closing one.
  CallStep Step(char c, const CallSink& sink);
  // The text ends within the call.
  void Finish(const CallSink&) {}

  // The call was given out.
  bool begun() const { return begun_; }
  bool arguments_complete() const { return arguments_ == Arguments::kWhole; }
  // Bytes taken that were not given out: before the call is begun all of them, and what stands
  // behind the arguments.
  const std::string& held() const { return held_; }

 private:
  enum class State : uint8_t {
    kOpen,
    kFirstKey,
    kNextKey,
    kKey,
    kColon,
    kValue,
    kName,
    kObject,  // arguments
    kText,    // arguments in a string
    kOther,   // the value of another key, or null for arguments
    kAfterValue,
  };
  enum class Key : uint8_t { kName, kArguments, kOther };
  enum class Arguments : uint8_t { kNone, kEmpty, kPart, kWhole };

  CallStep Take(char c, const CallSink& sink);
  CallStep EndKey();
  CallStep BeginValue(char c, const CallSink& sink);
  CallStep StepName(char c, const CallSink& sink);
  CallStep StepText(char c, const CallSink& sink);
  CallStep StepOther(char c, const CallSink& sink);
  CallStep Close(const CallSink& sink);
  // A byte of the arguments, as the client gets it.
  bool PassArguments(char c, const CallSink& sink);
  void Begin(const CallSink& sink);

  Keys keys_;
  State state_ = State::kOpen;
  Key key_kind_ = Key::kOther;
  Arguments arguments_ = Arguments::kNone;
  bool begun_ = false;
  bool named_ = false;
  bool passed_ = false;  // all that was taken is given out
  std::string held_;
  std::string key_;
  std::string name_;
  std::string early_;  // arguments that came before the name
  JsonStringReader string_;
  JsonScanner scanner_;
};

}  // namespace perdure::text
