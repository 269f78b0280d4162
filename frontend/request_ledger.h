// One request's book: what was asked, what its worker acknowledged, and which tokens arrived.
//
// Implements F's steps of the protocol in docs/wire_protocol.md: an event is appended iff its
// number is the last one's successor; ids are kept, for with the prompt's they are the whole truth
// of a stream. Pure; not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "protocol/messages.h"

namespace perdure::frontend {

class RequestLedger {
 public:
  enum class State {
    kWaiting,    // for a worker
    kSubmitted,  // nothing heard yet: may be submitted to another worker
    kAccepted,   // that worker computes it
    kOrphaned,   // accepted by a worker that died: goes on with the next one
    kEnded,      // every choice has ended
  };

  RequestLedger(protocol::RequestId rid, protocol::GenerationRequest request);

  protocol::RequestId rid() const { return rid_; }
  State state() const { return state_; }
  // Bytes that the request itself holds, for bounds.
  size_t request_bytes() const { return request_bytes_; }

  // kWaiting → kSubmitted, with a full window of credit.
  protocol::Submit MakeSubmit(bool suspect);
  // kOrphaned → kAccepted, with as much credit as the client's unread bytes leave of the window.
  protocol::Resume MakeResume(bool suspect);
  // Its worker died: kSubmitted → kWaiting, kAccepted → kOrphaned.
  void TakeBack();

  // Errors are the worker's breaches of the protocol: its channel is not to be trusted further.
  Status OnAccepted(protocol::Accepted accepted);
  Status OnBegun(const protocol::Begun& begun);
  // True: a new event, to be passed on. False: known already.
  Result<bool> OnEvent(const protocol::Event& event, size_t payload_bytes);
  // True: this choice's end is new.
  Result<bool> OnEnd(const protocol::End& end);

  // Its conversation was deleted: no later worker keeps anything of it.
  void Forget();

  // The client has taken what came with so many payload bytes.
  void OnTaken(size_t payload_bytes) { taken_bytes_ += payload_bytes; }
  // Credit to send now: nothing below `portion`.
  uint32_t DrawCredit(uint32_t portion);
  // Payload bytes that the worker sent and the client has not taken.
  size_t bytes_under_way() const { return received_bytes_ - credited_bytes_ - taken_bytes_; }

  struct Choice {
    uint64_t last_seq = 0;
    std::vector<TokenId> token_ids;
    uint32_t tokens_out = 0;  // of Event
    bool ended = false;
    std::optional<int32_t> from_arena;
    int32_t from_snapshot = 0;
  };
  const std::vector<Choice>& choices() const { return choices_; }
  const std::vector<TokenId>& prompt_ids() const { return prompt_ids_; }
  // What Accepted told beside the prompt; its prompt_ids are empty.
  const protocol::Accepted& accepted() const { return accepted_; }
  const protocol::GenerationRequest& request() const { return request_; }

 private:
  Result<Choice*> ChoiceOf(int32_t index, std::string_view what);
  Status CheckLogprobs(const Choice& choice, const protocol::Event& event) const;

  protocol::RequestId rid_;
  protocol::GenerationRequest request_;
  size_t request_bytes_;
  State state_ = State::kWaiting;
  std::vector<TokenId> prompt_ids_;
  protocol::Accepted accepted_;
  std::vector<Choice> choices_;
  // received = credited back + taken and not credited yet + under way.
  size_t received_bytes_ = 0;
  size_t credited_bytes_ = 0;
  size_t taken_bytes_ = 0;
};

}  // namespace perdure::frontend
