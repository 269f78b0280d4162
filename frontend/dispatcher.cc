#include "frontend/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "frontend/access.h"
#include "frontend/dispatcher_state.h"
#include "frontend/generation_errors.h"
#include "frontend/http_response.h"
#include "frontend/request_timeout.h"

namespace perdure::frontend {

using protocol::RequestId;
using protocol::RosterEntry;

namespace {

HttpResponse StreamHead() {
  HttpResponse head;
  head.headers = {{"content-type", "text/event-stream; charset=utf-8"},
                  {"cache-control", "no-cache"},
                  {"x-accel-buffering", "no"},  // nginx would hold small chunks back
                  {"x-content-type-options", "nosniff"}};
  return head;
}

}  // namespace

Dispatcher::Dispatcher(const protocol::FrontendSettings* settings, const ModelTable* models)
    : settings_(settings), models_(models) {}
Dispatcher::~Dispatcher() = default;

size_t Dispatcher::running() const {
  return static_cast<size_t>(
      std::count_if(generations_.begin(), generations_.end(), [](const auto& entry) {
        return entry.second->ledger.state() == RequestLedger::State::kAccepted;
      }));
}

std::vector<RequestId> Dispatcher::AllRids() const {
  std::vector<RequestId> rids;
  rids.reserve(generations_.size());
  for (const auto& [rid, generation] : generations_) rids.push_back(rid);
  return rids;
}

// --- From clients -------------------------------------------------------------------------------

Status Dispatcher::Start(RequestId rid, ParsedRequest request, AnswerSink* sink, int64_t now_ms) {
  if (draining_ || models_->draining()) return Err(ShuttingDown());
  ASSIGN_OR_RETURN(const RosterEntry* const model, models_->Resolve(request.model));
  if (AvailabilityOf(*model) == ModelAvailability::kDown) return Err(ModelDownError(*model));
  const uint64_t client = request.generation.client;
  RETURN_IF_ERROR(queues_.Check(model->name, client, *settings_, model->retry_after_s));
  Worker* const worker =
      AvailabilityOf(*model) == ModelAvailability::kReady ? WorkerFor(model->name) : nullptr;
  if (worker && worker->port->outbox_bytes() > limits::kChannelOutboxBytesMax)
    return Err(Error{ErrorCode::overloaded,
                     fmt::format("{} has not read yet what it was sent.", model->name),
                     {},
                     std::max(1, model->retry_after_s)});

  auto generation = std::make_unique<Generation>(
      Generation{.ledger = RequestLedger(rid, std::move(request.generation))});
  const size_t bytes = generation->ledger.request_bytes();
  // Strings' lengths and the like are within the reserve.
  if (bytes + 4096 > limits::kFrameBytesMax)
    return Err(ErrorCode::payload_too_large,
               fmt::format("The request takes {} bytes as it goes to the model, more than {}.",
                           bytes, limits::kFrameBytesMax));
  if (held_bytes_ + bytes > limits::kRequestsHeldBytesMax)
    return Err(Error{
        ErrorCode::overloaded, "The requests under way hold as much memory as they may.", {}, 1});

  generation->model = model->name;
  generation->identity = {generation->ledger.request().kind, rid,
                          request.alias.empty() ? model->name : request.alias,
                          generation->ledger.request().unix_time, request.include_usage};
  generation->stream = request.stream;
  generation->keep_alive_s = request.keep_alive_s;
  generation->choices.assign(generation->ledger.choices().size(),
                             ChoiceAnswer(generation->ledger.request()));
  generation->sink = sink;
  generation->arrival = ++last_arrival_;
  generation->timeout = TimeoutOf(request.timeout_ms, model->name, *settings_);
  if (generation->timeout) deadlines_.emplace(now_ms + generation->timeout->ms, rid);
  generation->started_ms = generation->last_output_ms = generation->waiting_since_ms = now_ms;
  generation->wait_until_ms = now_ms + int64_t{limits::kModelWaitS} * 1000;
  held_bytes_ += bytes;
  queues_.Join(model->name, client);
  Generation& kept = *generation;
  const bool inserted = generations_.emplace(rid, std::move(generation)).second;
  CHECK_MSG(inserted, "request ids are unique");
  demand_.Touch(model->name);
  if (worker) Hand(kept, *worker);
  return {};
}

Status Dispatcher::StartCacheCall(RequestId rid, const CacheCall& call, AnswerSink* sink,
                                  int64_t now_ms) {
  if (draining_ || models_->draining()) return Err(ShuttingDown());
  std::vector<CacheCalls::Worker> workers;
  const auto add = [&](const RosterEntry& model) {
    Worker* const worker =
        AvailabilityOf(model) == ModelAvailability::kReady ? WorkerFor(model.name) : nullptr;
    if (worker) workers.push_back({model.name, worker->id, worker->port});
    return worker != nullptr;
  };
  if (!call.model.empty()) {
    ASSIGN_OR_RETURN(const RosterEntry* const model, models_->Resolve(call.model));
    if (!add(*model))
      return Err(AvailabilityOf(*model) == ModelAvailability::kDown ? ModelDownError(*model)
                                                                    : ModelSlowError(*model));
  } else {
    for (const RosterEntry& model : models_->models()) add(model);
    if (workers.empty()) return Err(Error{ErrorCode::model_loading, "No model is ready.", {}, 1});
  }
  return cache_calls_.Start(rid, call, workers, sink, now_ms);
}

Status Dispatcher::WithWorkerOf(const std::string& name, RequestId rid, AnswerSink* sink,
                                int64_t now_ms, WaitingCalls::Begin begin) {
  if (draining_ || models_->draining()) return Err(ShuttingDown());
  ASSIGN_OR_RETURN(const RosterEntry* const model, models_->Resolve(name));
  const ModelAvailability availability = AvailabilityOf(*model);
  if (availability == ModelAvailability::kDown) return Err(ModelDownError(*model));
  if (availability == ModelAvailability::kReady)
    if (const Worker* const worker = WorkerFor(model->name))
      return begin(worker->id, worker->port, now_ms);
  demand_.Touch(model->name);
  return waiting_calls_.Add(rid, model->name, sink, std::move(begin), now_ms);
}

Status Dispatcher::StartConversationFileCall(RequestId rid, ConversationFileCall call,
                                             AnswerSink* sink, int64_t now_ms) {
  const std::string model = call.model;
  return WithWorkerOf(model, rid, sink, now_ms,
                      [this, rid, call = std::move(call), sink](WorkerId worker, WorkerPort* port,
                                                                int64_t begin_ms) {
                        return file_calls_.Start(rid, call, worker, port, sink, begin_ms);
                      });
}

Status Dispatcher::StartConversationCall(RequestId rid, ConversationCall call, AnswerSink* sink,
                                         int64_t now_ms) {
  call.command.rid = rid;
  return WithWorkerOf(call.model, rid, sink, now_ms,
                      [this, command = std::move(call.command), sink](
                          WorkerId worker, WorkerPort* port, int64_t begin_ms) {
                        return conversation_calls_.Start(command, worker, port, sink, begin_ms);
                      });
}

void Dispatcher::OnTaken(RequestId rid, size_t payload_bytes) {
  const auto it = generations_.find(rid);
  if (it == generations_.end()) return;  // it has ended meanwhile
  it->second->ledger.OnTaken(payload_bytes);
  SendCredit(*it->second, limits::kCreditPortionBytes);
}

void Dispatcher::OnClientGone(RequestId rid) {
  cache_calls_.OnClientGone(rid);
  conversation_calls_.OnClientGone(rid);
  file_calls_.OnClientGone(rid);
  if (const auto model = waiting_calls_.OnClientGone(rid)) demand_.Touch(*model);
  const auto it = generations_.find(rid);
  if (it == generations_.end()) return;
  LogInfo("{}: {}: the client is gone", RequestIdText(rid), it->second->model);
  SendCancel(*it->second);
  Erase(rid);
}

// --- From the supervisor and the clock ----------------------------------------------------------

void Dispatcher::OnRoster(int64_t now_ms) { HandWaiting(now_ms); }

void Dispatcher::OnSettings() {
  const std::string frame = protocol::MakeFrame(TenantSettingsOf(*settings_));
  for (auto& [id, worker] : workers_)
    if (worker.greeted) worker.port->Send(frame);
}

void Dispatcher::OnTick(int64_t now_ms) {
  cache_calls_.OnTick(now_ms);
  conversation_calls_.OnTick(now_ms);
  file_calls_.OnTick(now_ms);
  HandWaitingCalls(now_ms);
  const int64_t comment_after_ms = int64_t{std::max(1, settings_->sse_comment_s)} * 1000;
  for (const RequestId rid : AllRids()) {
    const auto it = generations_.find(rid);
    if (it == generations_.end()) continue;
    Generation& generation = *it->second;
    SendCredit(generation, 1);
    if (generation.worker == 0 && now_ms >= generation.wait_until_ms) {
      const RosterEntry* model = models_->Find(generation.model);
      Fail(rid, model ? ModelSlowError(*model) : Lost(generation.model));
      continue;
    }
    if (generation.stream && generation.sink->caught_up() &&
        now_ms - generation.last_output_ms >= comment_after_ms) {
      BeginStream(generation, now_ms);
      generation.last_output_ms = now_ms;
      generation.sink->Stream(std::string(kStreamComment), 0);
    }
  }
}

std::optional<int64_t> Dispatcher::deadline_ms() const {
  if (deadlines_.empty()) return std::nullopt;
  return deadlines_.begin()->first;
}

void Dispatcher::OnDeadline(int64_t now_ms) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_ms) {
    const RequestId rid = deadlines_.begin()->second;
    const Generation& generation = *generations_.at(rid);
    PassedDeadline passed{.model = generation.model,
                          .timeout_ms = generation.timeout->ms,
                          .set_by = generation.timeout->set_by,
                          .streamed = generation.stream};
    bool begun = false;
    for (const RequestLedger::Choice& choice : generation.ledger.choices()) {
      passed.tokens += choice.token_ids.size();
      begun = begun || choice.from_arena;
    }
    passed.stage = passed.tokens > 0        ? GenerationStage::kAnswers
                   : generation.worker == 0 ? GenerationStage::kWaitsForModel
                   : begun                  ? GenerationStage::kComputesPrompt
                                            : GenerationStage::kWaitsForTurn;
    Fail(rid, DeadlineExceeded(passed));
  }
}

void Dispatcher::BeginDrain() {
  draining_ = true;
  cache_calls_.EndAll();
  conversation_calls_.EndAll();
  file_calls_.EndAll();
  HandWaitingCalls(0);
  for (const RequestId rid : AllRids()) {
    const auto it = generations_.find(rid);
    if (it == generations_.end()) continue;
    if (it->second->ledger.state() == RequestLedger::State::kWaiting) Fail(rid, ShuttingDown());
  }
}

void Dispatcher::EndDrain() {
  draining_ = true;
  for (const RequestId rid : AllRids()) Fail(rid, ShuttingDown());
}

std::optional<protocol::Demand> Dispatcher::TakeDemand(int64_t now_ms) {
  // A model stays for what is read from its disk or written to it, too.
  const size_t calls = conversation_calls_.active() + file_calls_.active();
  if (!demand_.changed() && calls == calls_told_) return std::nullopt;
  calls_told_ = calls;
  DemandTracker::Count count;
  for (const auto& [rid, generation] : generations_) {
    const std::string& model = generation->model;
    if (generation->worker != 0)
      count.Running(model);
    else
      count.Waiting(model, now_ms - generation->waiting_since_ms);
  }
  const auto run = [&](WorkerId id) {
    if (const auto worker = workers_.find(id); worker != workers_.end())
      count.Running(worker->second.offer.model);
  };
  conversation_calls_.VisitWorkers(run);
  file_calls_.VisitWorkers(run);
  waiting_calls_.Visit(
      [&](const std::string& model, int64_t since_ms) { count.Waiting(model, now_ms - since_ms); });
  return demand_.Take(std::move(count));
}

// --- Common -------------------------------------------------------------------------------------

void Dispatcher::SendCredit(Generation& generation, uint32_t portion) {
  if (generation.worker == 0) return;
  const uint32_t bytes = generation.ledger.DrawCredit(portion);
  const auto worker = workers_.find(generation.worker);
  if (bytes > 0 && worker != workers_.end())
    worker->second.port->Send(
        protocol::MakeFrame(protocol::Credit{generation.ledger.rid(), bytes}));
}

void Dispatcher::SendCancel(Generation& generation) {
  const auto worker = workers_.find(generation.worker);
  if (worker != workers_.end())
    worker->second.port->Send(protocol::MakeFrame(protocol::Cancel{generation.ledger.rid()}));
}

void Dispatcher::BeginStream(Generation& generation, int64_t now_ms) {
  if (generation.head_sent) return;
  generation.head_sent = true;
  generation.last_output_ms = now_ms;
  generation.sink->BeginStream(StreamHead());
}

void Dispatcher::Fail(RequestId rid, const Error& error) {
  const auto it = generations_.find(rid);
  if (it == generations_.end()) return;
  Generation& generation = *it->second;
  LogInfo("{}: {}: {}", RequestIdText(rid), generation.model, InfoOf(error.code).name);
  SendCancel(generation);
  AnswerSink* const sink = generation.sink;
  if (generation.head_sent) {
    sink->Stream(StreamError(error), 0);
    sink->EndStream();
  } else {
    sink->Respond(ErrorResponse(error));
  }
  Erase(rid);
}

void Dispatcher::Erase(RequestId rid) {
  const auto it = generations_.find(rid);
  CHECK(it != generations_.end());
  const Generation& generation = *it->second;
  held_bytes_ -= generation.ledger.request_bytes();
  demand_.OnEnd(generation.model, generation.keep_alive_s);
  queues_.Leave(generation.model, generation.ledger.request().client);
  if (generation.timeout) deadlines_.erase({generation.started_ms + generation.timeout->ms, rid});
  generations_.erase(it);
}

}  // namespace perdure::frontend
