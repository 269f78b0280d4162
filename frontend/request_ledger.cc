#include "frontend/request_ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace perdure::frontend {
namespace {

tl::unexpected<Error> Breach(std::string_view what, protocol::RequestId rid) {
  return Err(ErrorCode::protocol_error, fmt::format("{} (request {:016x})", what, rid));
}

size_t BytesOf(const protocol::GenerationRequest& request) {
  size_t bytes = sizeof request + request.chat_json.size() + request.prompt.size() +
                 request.tenant.size() + request.conversation_id.size() +
                 request.cache.settings.type.size();
  for (const CachePhase& phase : request.cache.then)
    bytes += sizeof phase + phase.settings.type.size();
  if (request.prompt_ids) bytes += request.prompt_ids->size() * sizeof(TokenId);
  for (const std::string& stop : request.stop) bytes += stop.size();
  return bytes + request.sampling.logit_bias.size() * sizeof(request.sampling.logit_bias[0]);
}

}  // namespace

RequestLedger::RequestLedger(protocol::RequestId rid, protocol::GenerationRequest request)
    : rid_(rid), request_(std::move(request)), request_bytes_(BytesOf(request_)) {
  CHECK(request_.choices >= 1);
  choices_.resize(static_cast<size_t>(request_.choices));
}

protocol::Submit RequestLedger::MakeSubmit(bool suspect) {
  CHECK(state_ == State::kWaiting);
  state_ = State::kSubmitted;
  received_bytes_ = credited_bytes_ = taken_bytes_ = 0;
  return {rid_, request_, limits::kCreditBytes, suspect};
}

protocol::Resume RequestLedger::MakeResume(bool suspect) {
  CHECK(state_ == State::kOrphaned);
  state_ = State::kAccepted;
  // The dead worker's window ended with it; what the client has not read still fills this one.
  received_bytes_ = bytes_under_way();
  credited_bytes_ = taken_bytes_ = 0;
  protocol::Resume resume;
  resume.rid = rid_;
  resume.request = request_;
  resume.prompt_ids = prompt_ids_;
  resume.ticket = accepted_.ticket;
  for (const Choice& choice : choices_)
    resume.choices.push_back(
        {choice.last_seq, choice.token_ids, choice.ended, choice.from_arena, choice.from_snapshot});
  resume.credit_bytes = static_cast<uint32_t>(
      limits::kCreditBytes - std::min<size_t>(limits::kCreditBytes, received_bytes_));
  resume.suspect = suspect;
  return resume;
}

void RequestLedger::TakeBack() {
  CHECK(state_ == State::kSubmitted || state_ == State::kAccepted);
  state_ = state_ == State::kSubmitted ? State::kWaiting : State::kOrphaned;
}

Status RequestLedger::OnAccepted(protocol::Accepted accepted) {
  if (state_ != State::kSubmitted) return Breach("a request was accepted twice", rid_);
  state_ = State::kAccepted;
  prompt_ids_ = std::exchange(accepted.prompt_ids, {});
  accepted_ = std::move(accepted);
  return {};
}

Result<RequestLedger::Choice*> RequestLedger::ChoiceOf(int32_t index, std::string_view what) {
  if (state_ != State::kAccepted && state_ != State::kEnded)
    return Breach(fmt::format("{} came before Accepted", what), rid_);
  if (index < 0 || static_cast<size_t>(index) >= choices_.size())
    return Breach(fmt::format("{} names choice {}", what, index), rid_);
  return &choices_[static_cast<size_t>(index)];
}

Status RequestLedger::OnBegun(const protocol::Begun& begun) {
  ASSIGN_OR_RETURN(Choice* const choice, ChoiceOf(begun.choice, "a beginning"));
  if (choice->from_arena) return Breach("a choice began twice", rid_);
  choice->from_arena = begun.from_arena;
  choice->from_snapshot = begun.from_snapshot;
  return {};
}

Status RequestLedger::CheckLogprobs(const Choice& choice, const protocol::Event& event) const {
  if (event.logprobs.size() != (request_.top_logprobs ? event.token_ids.size() : 0))
    return Breach(fmt::format("event {} has {} logprobs of {} tokens", event.seq,
                              event.logprobs.size(), event.token_ids.size()),
                  rid_);
  if (event.tokens_out < choice.tokens_out ||
      event.tokens_out > choice.token_ids.size() + event.logprobs.size())
    return Breach(fmt::format("event {} tells that {} tokens are out", event.seq, event.tokens_out),
                  rid_);
  const auto finite = [](const protocol::TokenLogprob& one) { return std::isfinite(one.logprob); };
  for (const protocol::TokenLogprobs& token : event.logprobs) {
    if (!finite(token.token) || !std::all_of(token.top.begin(), token.top.end(), finite))
      return Breach(fmt::format("event {} has a logprob that is no number", event.seq), rid_);
    if (token.top.size() > static_cast<size_t>(*request_.top_logprobs))
      return Breach(
          fmt::format("event {} has {} alternatives of a token", event.seq, token.top.size()),
          rid_);
  }
  return {};
}

Result<bool> RequestLedger::OnEvent(const protocol::Event& event, size_t payload_bytes) {
  ASSIGN_OR_RETURN(Choice* const choice, ChoiceOf(event.choice, "an event"));
  received_bytes_ += payload_bytes;
  if (event.seq <= choice->last_seq) {
    OnTaken(payload_bytes);
    return false;
  }
  if (choice->ended) return Breach("an event follows its choice's end", rid_);
  if (event.seq != choice->last_seq + 1)
    return Breach(fmt::format("event {} follows event {}", event.seq, choice->last_seq), rid_);
  RETURN_IF_ERROR(CheckLogprobs(*choice, event));
  choice->last_seq = event.seq;
  choice->tokens_out = event.tokens_out;
  choice->token_ids.insert(choice->token_ids.end(), event.token_ids.begin(), event.token_ids.end());
  return true;
}

Result<bool> RequestLedger::OnEnd(const protocol::End& end) {
  ASSIGN_OR_RETURN(Choice* const choice, ChoiceOf(end.choice, "an end"));
  if (choice->ended) return false;
  if (end.seq != choice->last_seq + 1)
    return Breach(fmt::format("end {} follows event {}", end.seq, choice->last_seq), rid_);
  choice->last_seq = end.seq;
  choice->ended = true;
  if (std::all_of(choices_.begin(), choices_.end(), [](const Choice& c) { return c.ended; }))
    state_ = State::kEnded;
  return true;
}

void RequestLedger::Forget() {
  request_.remembers = false;
  accepted_.ticket.conversation_id.clear();
}

uint32_t RequestLedger::DrawCredit(uint32_t portion) {
  if (taken_bytes_ == 0 || taken_bytes_ < portion) return 0;
  const uint32_t credit = static_cast<uint32_t>(std::min<size_t>(taken_bytes_, UINT32_MAX));
  taken_bytes_ -= credit;
  credited_bytes_ += credit;
  return credit;
}

}  // namespace perdure::frontend
