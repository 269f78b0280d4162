// Requests of conversations as files under way: each is asked of one model's worker, which answers
// with a file or with words. Pure but for the descriptors that it passes on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "base/unique_fd.h"
#include "frontend/answer_sink.h"
#include "frontend/http_types.h"
#include "frontend/worker_port.h"
#include "protocol/messages.h"

namespace perdure::frontend {

struct ConversationFileCall {
  std::string model;  // empty: the default
  protocol::ConversationFileCommand command;
  std::shared_ptr<UploadedFile> upload;  // of an import, which has no operation
};

class ConversationFileCalls {
 public:
  // Takes the call on, or says why not; the sink is used only after a success, and not before this
  // returns.
  Status Start(protocol::RequestId rid, ConversationFileCall call, WorkerId worker,
               WorkerPort* port, AnswerSink* sink, int64_t now_ms);
  // Answers of calls that are over are ignored; one that is no JSON is a breach of the protocol.
  Status OnAnswer(WorkerId worker, const protocol::ConversationAnswer& answer);
  void OnFile(WorkerId worker, const protocol::ConversationFile& file, UniqueFd fd);
  void OnWorkerGone(WorkerId worker);
  // The worker is told to give it up.
  void OnClientGone(protocol::RequestId rid);
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
    WorkerPort* port = nullptr;
    int64_t give_up_ms = 0;
  };
  template <class Condition>
  void FailIf(const Condition& condition, bool tell, ErrorCode code, const char* message);

  std::unordered_map<protocol::RequestId, Call> calls_;
};

}  // namespace perdure::frontend
