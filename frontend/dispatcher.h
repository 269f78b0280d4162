// Generations under way: from the parsed request to its last byte, across workers that come and go.
//
// Pure: events and times in, calls on two interfaces out (the answer's way to the client, the
// frames' way to a worker). No call comes back into the dispatcher from within those interfaces
// except OnTaken. Not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "frontend/answer_sink.h"
#include "frontend/cache_calls.h"
#include "frontend/choice_answer.h"
#include "frontend/conversation_calls.h"
#include "frontend/conversation_file_calls.h"
#include "frontend/demand_tracker.h"
#include "frontend/model_queues.h"
#include "frontend/model_table.h"
#include "frontend/request_ledger.h"
#include "frontend/request_parser.h"
#include "frontend/response_writer.h"
#include "frontend/waiting_calls.h"
#include "frontend/worker_port.h"
#include "protocol/frame.h"
#include "protocol/messages.h"

namespace perdure::frontend {

class Dispatcher {
 public:
  // Both outlive the dispatcher and may change between calls.
  Dispatcher(const protocol::FrontendSettings* settings, const ModelTable* models);
  ~Dispatcher();

  // --- From clients -----------------------------------------------------------------------------

  // Takes the request on, or says why not; the sink is used only after a success, and not before
  // this returns.
  Status Start(protocol::RequestId rid, ParsedRequest request, AnswerSink* sink, int64_t now_ms);
  // The same for a request of /admin/cache.
  Status StartCacheCall(protocol::RequestId rid, const CacheCall& call, AnswerSink* sink,
                        int64_t now_ms);
  // The same for one of /v1/conversations.
  Status StartConversationCall(protocol::RequestId rid, ConversationCall call, AnswerSink* sink,
                               int64_t now_ms);
  // The same for one of conversations as files.
  Status StartConversationFileCall(protocol::RequestId rid, ConversationFileCall call,
                                   AnswerSink* sink, int64_t now_ms);
  void OnTaken(protocol::RequestId rid, size_t payload_bytes);
  // Cancels; the sink is forgotten.
  void OnClientGone(protocol::RequestId rid);

  // --- From workers -----------------------------------------------------------------------------

  // `port` is used until OnWorkerGone.
  WorkerId AddWorker(protocol::ChannelOffer offer, WorkerPort* port);
  // An error is a breach of the protocol: the caller closes the channel and calls OnWorkerGone.
  Status OnFrame(WorkerId worker, const protocol::Frame& frame, int64_t now_ms,
                 UniqueFd fd = UniqueFd());
  // The channel ended. What it had been given goes on with the next worker of its model.
  void OnWorkerGone(WorkerId worker, int64_t now_ms);

  // --- From the supervisor and the clock --------------------------------------------------------

  // The model table has changed.
  void OnRoster(int64_t now_ms);
  // Comments in silent streams, credit in small portions, waiting that took too long.
  void OnTick(int64_t now_ms);
  // When the first of the requests' own deadlines passes, and what follows then.
  std::optional<int64_t> deadline_ms() const;
  void OnDeadline(int64_t now_ms);
  // The settings have changed.
  void OnSettings();
  // Refuses new work and what no worker has accepted; running answers go on.
  void BeginDrain();
  // Ends what still runs: its time is over.
  void EndDrain();

  // What is asked of the models, if that has changed since it was taken last.
  std::optional<protocol::Demand> TakeDemand(int64_t now_ms);
  bool draining() const { return draining_; }
  size_t active() const {
    return generations_.size() + cache_calls_.active() + conversation_calls_.active() +
           file_calls_.active() + waiting_calls_.active();
  }
  size_t running() const;  // accepted by a worker

 private:
  struct Worker;
  struct Generation;

  Worker* WorkerFor(const std::string& model);
  Generation* GenerationOf(protocol::RequestId rid, WorkerId worker);
  void Hand(Generation& generation, Worker& worker);
  void HandWaiting(int64_t now_ms);
  Status Dispatch(Worker& worker, WorkerId id, const protocol::Frame& frame, int64_t now_ms,
                  UniqueFd fd);
  // Of a model that is ready, or once it is.
  Status WithWorkerOf(const std::string& name, protocol::RequestId rid, AnswerSink* sink,
                      int64_t now_ms, WaitingCalls::Begin begin);
  void HandWaitingCalls(int64_t now_ms);
  Status GiveUp(Generation& generation, const Error& breach);
  Status OnHello(Worker& worker, const protocol::Hello& hello);
  void OnForgotten(WorkerId worker, const protocol::Forgotten& forgotten);
  Status OnEvent(Generation& generation, protocol::Event event, size_t payload_bytes,
                 int64_t now_ms);
  Status OnEnd(Generation& generation, const protocol::End& end, int64_t now_ms);
  void Finish(Generation& generation, const protocol::End& end, int64_t now_ms);
  void SendCredit(Generation& generation, uint32_t portion);
  void SendCancel(Generation& generation);
  void BeginStream(Generation& generation, int64_t now_ms);
  void Fail(protocol::RequestId rid, const Error& error);
  void Erase(protocol::RequestId rid);
  std::vector<protocol::RequestId> AllRids() const;

  const protocol::FrontendSettings* settings_;
  const ModelTable* models_;
  bool draining_ = false;
  size_t held_bytes_ = 0;
  WorkerId next_worker_ = 1;
  std::map<WorkerId, Worker> workers_;
  std::unordered_map<protocol::RequestId, std::unique_ptr<Generation>> generations_;
  uint64_t last_arrival_ = 0;
  ModelQueues queues_;
  std::set<std::pair<int64_t, protocol::RequestId>> deadlines_;
  DemandTracker demand_;
  size_t calls_told_ = 0;  // that workers had when the demand was taken last
  CacheCalls cache_calls_;
  ConversationCalls conversation_calls_;
  ConversationFileCalls file_calls_;
  WaitingCalls waiting_calls_;
};

}  // namespace perdure::frontend
