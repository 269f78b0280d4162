// Logprobs of consecutive tokens of one choice, as OpenAI's JSON. Text at once: as a DOM those of a
// long answer would be many times as large. Pure.
//
// Source of the shapes: OpenAI's API reference, chat completions (logprobs.content) and completions
// (logprobs.tokens and its siblings).
#pragma once

#include <string>

#include "protocol/messages.h"

namespace perdure::frontend {

class LogprobsText {
 public:
  // Each token is told with so many alternatives at most.
  LogprobsText(protocol::RequestKind kind, int top) : kind_(kind), top_(top) {}

  // `token`: numbers are finite.
  void Append(const protocol::TokenLogprobs& token);
  bool empty() const { return tokens_.empty(); }
  size_t bytes() const {
    return tokens_.size() + logprobs_.size() + alternatives_.size() + offsets_.size();
  }
  // The object; the tokens told are forgotten.
  std::string Take();

 private:
  protocol::RequestKind kind_;
  int top_;
  // Elements of arrays, by commas. Chats have all of a token in the first one.
  std::string tokens_, logprobs_, alternatives_, offsets_;
};

}  // namespace perdure::frontend
