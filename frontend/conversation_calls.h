// Requests of /v1/conversations under way: each is asked of one model's worker. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "frontend/answer_sink.h"
#include "frontend/http_types.h"
#include "frontend/worker_port.h"
#include "protocol/messages.h"

namespace perdure::frontend {

struct ConversationCall {
  std::string model;  // empty: the default
  protocol::ConversationCommand command;
};

// What the client gets of a worker's answer; one that is no JSON is a breach of the protocol.
Result<HttpResponse> ResponseTo(const protocol::ConversationAnswer& answer);

class ConversationCalls {
 public:
  // Takes the call on, or says why not; the sink is used only after a success, and not before this
  // returns.
  Status Start(protocol::ConversationCommand command, WorkerId worker, WorkerPort* port,
               AnswerSink* sink, int64_t now_ms);
  // Answers of calls that are over are ignored; one that is no JSON is a breach of the protocol.
  Status OnAnswer(WorkerId worker, const protocol::ConversationAnswer& answer);
  void OnWorkerGone(WorkerId worker);
  void OnClientGone(protocol::RequestId rid) { calls_.erase(rid); }
  // Gives those up that take too long.
  void OnTick(int64_t now_ms);
  // Answers all: nobody waits for the workers any more.
  void EndAll();

  size_t active() const { return calls_.size(); }
  // For each call the worker that has it.
  template <class Visit>
  void VisitWorkers(const Visit& visit) const {
    for (const auto& [rid, call] : calls_) visit(call.worker);
  }

 private:
  struct Call {
    AnswerSink* sink = nullptr;
    WorkerId worker = 0;
    int64_t give_up_ms = 0;
  };
  template <class Condition>
  void FailIf(const Condition& condition, ErrorCode code, const char* message);

  std::unordered_map<protocol::RequestId, Call> calls_;
};

}  // namespace perdure::frontend
