// Calls that wait for their model's worker, which is being loaded for them. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "frontend/answer_sink.h"
#include "frontend/worker_port.h"
#include "protocol/messages.h"

namespace perdure::frontend {

class WaitingCalls {
 public:
  // Hands it to a worker; an error is answered to the client.
  using Begin = std::function<Status(WorkerId worker, WorkerPort* port, int64_t now_ms)>;

  // overloaded: too many wait.
  Status Add(protocol::RequestId rid, const std::string& model, AnswerSink* sink, Begin begin,
             int64_t now_ms);
  // How many.
  size_t HandTo(const std::string& model, WorkerId worker, WorkerPort* port, int64_t now_ms);
  // Answers those of which `why` has an error.
  void FailIf(const std::function<const Error*(const std::string& model, int64_t since_ms)>& why);
  // The model that it waited for, if it did.
  std::optional<std::string> OnClientGone(protocol::RequestId rid);
  void Visit(const std::function<void(const std::string& model, int64_t since_ms)>& visit) const;
  size_t active() const { return calls_.size(); }

 private:
  struct Call {
    protocol::RequestId rid = 0;
    std::string model;
    AnswerSink* sink = nullptr;
    Begin begin;
    int64_t since_ms = 0;
  };
  std::vector<Call> calls_;  // in the order in which they came
};

}  // namespace perdure::frontend
