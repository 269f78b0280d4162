// Requests of /admin/cache under way: each is asked of one model's worker or of all, and answered
// when all have answered. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "frontend/answer_sink.h"
#include "frontend/worker_port.h"
#include "protocol/messages.h"

namespace perdure::frontend {

struct CacheCall {
  std::string model;  // empty: all that are ready
  protocol::CacheOperation operation = protocol::CacheOperation::kStats;
  bool unused_only = false;
  int32_t seconds = 0;
};

class CacheCalls {
 public:
  struct Worker {
    std::string model;
    WorkerId id = 0;
    WorkerPort* port = nullptr;
  };

  // Takes the call on, or says why not; the sink is used only after a success, and not before this
  // returns. `workers`: of the models that are asked, at least one.
  Status Start(protocol::RequestId rid, const CacheCall& call, const std::vector<Worker>& workers,
               AnswerSink* sink, int64_t now_ms);
  // Answers of calls that are over are ignored; one that is no JSON is a breach of the protocol.
  Status OnAnswer(WorkerId worker, const protocol::CacheAnswer& answer);
  void OnWorkerGone(WorkerId worker);
  void OnClientGone(protocol::RequestId rid) { calls_.erase(rid); }
  // Gives those up that take too long.
  void OnTick(int64_t now_ms);
  // Answers all: nobody waits for the workers any more.
  void EndAll();

  size_t active() const { return calls_.size(); }

 private:
  struct Call {
    AnswerSink* sink = nullptr;
    int64_t give_up_ms = 0;
    std::map<WorkerId, std::string> waits_for;   // model
    std::map<std::string, std::string> answers;  // of models, as JSON
  };
  void FinishIfDone(protocol::RequestId rid);
  void GiveUp(Call* call, WorkerId worker, ErrorCode code, const std::string& message);

  std::unordered_map<protocol::RequestId, Call> calls_;
};

}  // namespace perdure::frontend
