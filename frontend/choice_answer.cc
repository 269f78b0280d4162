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
  text_ += event.text;
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

size_t ChoiceAnswer::bytes() const {
  return text_.size() + held_bytes_ + (logprobs_ ? logprobs_->bytes() : 0);
}

ChoiceAnswer::Part ChoiceAnswer::Take() {
  Part part;
  part.text = std::exchange(text_, {});
  if (logprobs_) part.logprobs = logprobs_->Take();
  return part;
}

protocol::Usage UsageOf(std::span<const ChoiceAnswer> choices) {
  CHECK(!choices.empty() && choices[0].end);
  protocol::Usage all = choices[0].end->usage;
  int64_t begun_us = std::numeric_limits<int64_t>::max(), token_us = begun_us, end_us = 0;
  int64_t tokens = 0;
  for (const ChoiceAnswer& choice : choices) {
    CHECK(choice.end);
    const protocol::Usage& one = choice.end->usage;
    tokens += one.completion_tokens;
    begun_us = std::min(begun_us, one.queue_us);
    token_us = std::min(token_us, one.queue_us + one.prefill_us);
    end_us = std::max(end_us, one.queue_us + one.prefill_us + one.decode_us);
  }
  all.completion_tokens =
      static_cast<int32_t>(std::min<int64_t>(tokens, std::numeric_limits<int32_t>::max()));
  all.queue_us = begun_us;
  all.prefill_us = token_us - begun_us;
  all.decode_us = end_us - token_us;
  return all;
}

}  // namespace perdure::frontend
