// One choice of an answer: what its worker has told and its client has not been given. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "frontend/logprobs_text.h"
#include "protocol/messages.h"

namespace perdure::frontend {

class ChoiceAnswer {
 public:
  explicit ChoiceAnswer(const protocol::GenerationRequest& request);

  // The next event, which the ledger has passed.
  void Add(protocol::Event event);
  // Something can be taken.
  bool has_part() const { return !parts_.empty() || (logprobs_ && !logprobs_->empty()); }
  // Bytes of all that is kept.
  size_t bytes() const;

  struct Part {
    std::vector<protocol::AnswerPart> parts;  // in their order; neighbours are of different kinds
    std::string logprobs = "null";            // JSON; of the tokens whose last text has come by now
  };
  Part Take();

  std::optional<protocol::End> end;

 private:
  void Append(protocol::AnswerPart part);

  std::vector<protocol::AnswerPart> parts_;
  size_t parts_bytes_ = 0;
  std::optional<LogprobsText> logprobs_;  // absent: not wanted
  // Logprobs of tokens whose text a stop string may still cut off, or which are half a character.
  std::deque<protocol::TokenLogprobs> held_;
  size_t held_bytes_ = 0;
  uint32_t tokens_out_ = 0;
};

// Of an answer whose choices have all ended. Where the prompt came from is what the first choice
// tells; times are those until the first choice began, until the first token, until the last one.
protocol::Usage UsageOf(std::span<const ChoiceAnswer> choices);

}  // namespace perdure::frontend
