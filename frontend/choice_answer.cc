#include "frontend/choice_answer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"

namespace perdure::frontend {
namespace {

size_t BytesOf(const protocol::TokenLogprobs& token) {
  size_t bytes = sizeof token + token.token.bytes.size();
  for (const protocol::TokenLogprob& one : token.top) bytes += sizeof one + one.bytes.size();
  return bytes;
}

}  // namespace

ChoiceAnswer::ChoiceAnswer(const protocol::GenerationRequest& request) {
  if (request.top_logprobs) logprobs_.emplace(request.kind, *request.top_logprobs);
}

void ChoiceAnswer::Add(protocol::Event event) {
  if (!event.text.empty()) Append({protocol::PartKind::kContent, 0, std::move(event.text)});
  for (protocol::AnswerPart& part : event.parts) Append(std::move(part));
  if (!logprobs_) return;
  for (protocol::TokenLogprobs& token : event.logprobs) {
    held_bytes_ += BytesOf(token);
    held_.push_back(std::move(token));
  }
  for (; tokens_out_ < event.tokens_out; ++tokens_out_) {
    CHECK(!held_.empty());
    held_bytes_ -= BytesOf(held_.front());
    logprobs_->Append(held_.front());
    held_.pop_front();
  }
}

void ChoiceAnswer::Append(protocol::AnswerPart part) {
  parts_bytes_ += part.text.size();
  const bool extends = !parts_.empty() && parts_.back().kind == part.kind &&
                       parts_.back().call == part.call &&
                       part.kind != protocol::PartKind::kCallBegin;
  if (extends) {
    parts_.back().text += part.text;
    return;
  }
  parts_bytes_ += sizeof part;
  parts_.push_back(std::move(part));
}

size_t ChoiceAnswer::bytes() const {
  return parts_bytes_ + held_bytes_ + (logprobs_ ? logprobs_->bytes() : 0);
}

ChoiceAnswer::Part ChoiceAnswer::Take() {
  Part part;
  part.parts = std::exchange(parts_, {});
  parts_bytes_ = 0;
  if (logprobs_) part.logprobs = logprobs_->Take();
  return part;
}

protocol::Usage UsageOf(std::span<const ChoiceAnswer> choices) {
  CHECK(!choices.empty() && choices[0].end);
  protocol::Usage all = choices[0].end->usage;
  int64_t begun_us = std::numeric_limits<int64_t>::max(), token_us = begun_us, end_us = 0;
  int64_t tokens = 0, reasoning = 0;
  for (const ChoiceAnswer& choice : choices) {
    CHECK(choice.end);
    const protocol::Usage& one = choice.end->usage;
    tokens += one.completion_tokens;
    reasoning += one.reasoning_tokens;
    begun_us = std::min(begun_us, one.queue_us);
    token_us = std::min(token_us, one.queue_us + one.prefill_us);
    end_us = std::max(end_us, one.queue_us + one.prefill_us + one.decode_us);
  }
  all.completion_tokens =
      static_cast<int32_t>(std::min<int64_t>(tokens, std::numeric_limits<int32_t>::max()));
  all.reasoning_tokens = static_cast<int32_t>(std::min<int64_t>(reasoning, all.completion_tokens));
  all.queue_us = begun_us;
  all.prefill_us = token_us - begun_us;
  all.decode_us = end_us - token_us;
  return all;
}

}  // namespace perdure::frontend
