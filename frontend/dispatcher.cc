#include "frontend/dispatcher.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "frontend/access.h"
#include "frontend/http_response.h"

namespace perdure::frontend {

using protocol::Frame;
using protocol::MessageType;
using protocol::RequestId;
using protocol::RosterEntry;

struct Dispatcher::Worker {
  WorkerId id = 0;
  protocol::ChannelOffer offer{};
  WorkerPort* port = nullptr;
  bool greeted = false;  // its Hello has come
};

struct Dispatcher::Generation {
  RequestLedger ledger;
  std::string model{};
  AnswerIdentity identity{};  // with the model as the client calls it
  bool stream = false;
  std::optional<int32_t> keep_alive_s{};
  AnswerSink* sink = nullptr;
  WorkerId worker = 0;  // 0: waits for one
  int64_t started_ms = 0;
  int64_t waited_ms = 0;                            // until it was submitted
  int64_t waiting_since_ms = 0, wait_until_ms = 0;  // while it waits
  int64_t last_output_ms = 0;                       // of a stream
  bool head_sent = false;
  bool start_sent = false;
  std::vector<ChoiceAnswer> choices{};
  size_t kept_bytes = 0;  // of them all
};

namespace {

HttpResponse StreamHead() {
  HttpResponse head;
  head.headers = {{"content-type", "text/event-stream; charset=utf-8"},
                  {"cache-control", "no-cache"},
                  {"x-accel-buffering", "no"},  // nginx would hold small chunks back
                  {"x-content-type-options", "nosniff"}};
  return head;
}

Error ShuttingDown() { return {ErrorCode::shutting_down, "The service is shutting down.", {}, 5}; }

Error Lost(const std::string& model) {
  return {ErrorCode::worker_lost,
          fmt::format("The process that serves {} ended while this answer was under way, and no "
                      "other one follows it. Send the request again.",
                      model),
          {},
          1};
}

Error NoLongerServed(const std::string& model) {
  return {ErrorCode::model_not_found, fmt::format("The model {} is no longer served.", model),
          "model", 0};
}

Error Poison(const std::string& model) {
  return {ErrorCode::worker_crashed,
          fmt::format("The process that serves {} crashed twice while it computed this request, "
                      "the second time with nothing else: the request was given up. The "
                      "service's log has the details.",
                      model),
          {},
          0};
}

Error TooLong(bool logprobs) {
  std::string message = fmt::format("The answer exceeds {} bytes.", limits::kAnswerBytesMax);
  if (!logprobs) return {ErrorCode::internal, std::move(message), {}, 0};
  return {ErrorCode::unsupported, message + " Ask for a stream, or for fewer logprobs.", "logprobs",
          0};
}

bool Names(const std::vector<RequestId>& rids, RequestId rid) {
  return std::find(rids.begin(), rids.end(), rid) != rids.end();
}

template <class T>
Result<T> DecodeFrame(const Frame& frame) {
  return protocol::Decode<T>(frame.payload);
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
  size_t& under_way = per_model_[model->name];
  Worker* const worker =
      AvailabilityOf(*model) == ModelAvailability::kReady ? WorkerFor(model->name) : nullptr;
  if (under_way >= static_cast<size_t>(std::max(1, settings_->queue_max)) ||
      (worker && worker->port->outbox_bytes() > limits::kChannelOutboxBytesMax))
    return Err(Error{ErrorCode::overloaded,
                     fmt::format("{} requests are under way for {}, as many as its queue takes.",
                                 under_way, model->name),
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
  generation->started_ms = generation->last_output_ms = generation->waiting_since_ms = now_ms;
  generation->wait_until_ms = now_ms + int64_t{limits::kModelWaitS} * 1000;
  held_bytes_ += bytes;
  ++under_way;
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

// --- From workers -------------------------------------------------------------------------------

WorkerId Dispatcher::AddWorker(protocol::ChannelOffer offer, WorkerPort* port) {
  const WorkerId id = next_worker_++;
  workers_.emplace(id, Worker{id, std::move(offer), port});
  return id;
}

Dispatcher::Worker* Dispatcher::WorkerFor(const std::string& model) {
  // The newest; an older one may still be draining its last frames.
  Worker* best = nullptr;
  for (auto& [id, worker] : workers_) {
    if (worker.greeted && worker.offer.model == model &&
        (!best || worker.offer.epoch >= best->offer.epoch))
      best = &worker;
  }
  return best;
}

Dispatcher::Generation* Dispatcher::GenerationOf(RequestId rid, WorkerId worker) {
  const auto it = generations_.find(rid);
  return it != generations_.end() && it->second->worker == worker ? it->second.get() : nullptr;
}

void Dispatcher::Hand(Generation& generation, Worker& worker) {
  RequestLedger& ledger = generation.ledger;
  const bool suspect = Names(worker.offer.suspects, ledger.rid());
  generation.worker = worker.id;
  demand_.Touch(generation.model);
  worker.port->Send(ledger.state() == RequestLedger::State::kOrphaned
                        ? protocol::MakeFrame(ledger.MakeResume(suspect))
                        : protocol::MakeFrame(ledger.MakeSubmit(suspect)));
}

void Dispatcher::HandWaitingCalls(int64_t now_ms) {
  for (const RosterEntry& model : models_->models())
    if (model.state == protocol::ModelState::kReady)
      if (const Worker* const worker = WorkerFor(model.name))
        if (waiting_calls_.HandTo(model.name, worker->id, worker->port, now_ms) > 0)
          demand_.Touch(model.name);
  Error error;
  waiting_calls_.FailIf([&](const std::string& name, int64_t since_ms) -> const Error* {
    const RosterEntry* const model = models_->Find(name);
    if (draining_) {
      error = ShuttingDown();
    } else if (model == nullptr) {
      error = NoLongerServed(name);
    } else if (AvailabilityOf(*model) == ModelAvailability::kDown) {
      error = ModelDownError(*model);
    } else if (now_ms >= since_ms + int64_t{limits::kModelWaitS} * 1000) {
      error = ModelSlowError(*model);
    } else {
      return nullptr;
    }
    demand_.Touch(name);
    return &error;
  });
}

void Dispatcher::HandWaiting(int64_t now_ms) {
  HandWaitingCalls(now_ms);
  for (const RequestId rid : AllRids()) {
    const auto it = generations_.find(rid);
    if (it == generations_.end() || it->second->worker != 0) continue;
    Generation& generation = *it->second;
    const bool begun = generation.ledger.state() == RequestLedger::State::kOrphaned;
    const std::string& name = generation.model;
    const RosterEntry* model = models_->Find(name);
    if (!model) {
      Fail(rid, begun ? Lost(name) : NoLongerServed(name));
      continue;
    }
    switch (model->state) {
      case protocol::ModelState::kReady:
        if (Worker* worker = WorkerFor(name)) {
          if (Names(worker->offer.quarantined, rid)) {
            Fail(rid, Poison(name));
            break;
          }
          if (!begun) generation.waited_ms = now_ms - generation.started_ms;
          Hand(generation, *worker);
        }
        break;
      case protocol::ModelState::kStarting:
      case protocol::ModelState::kLoading:
      case protocol::ModelState::kBackoff:  // its next worker comes by itself
        break;
      case protocol::ModelState::kStopping:
      case protocol::ModelState::kStopped:
        // It comes back: with other settings, when it is asked for, or after another one's turn.
        if (AvailabilityOf(*model) == ModelAvailability::kComing) break;
        if (!begun || model->state == protocol::ModelState::kStopped)
          Fail(rid, ModelDownError(*model));
        break;
      case protocol::ModelState::kFailed:
        Fail(rid, ModelDownError(*model));
        break;
    }
  }
}

Status Dispatcher::OnFrame(WorkerId id, const Frame& frame, int64_t now_ms, UniqueFd fd) {
  const auto it = workers_.find(id);
  CHECK_MSG(it != workers_.end(), "a frame of a worker that is gone");
  auto status = Dispatch(it->second, id, frame, now_ms, std::move(fd));
  if (!status)
    return ErrWithContext(
        fmt::format("worker {} of {}", it->second.offer.epoch, it->second.offer.model),
        status.error());
  return {};
}

Status Dispatcher::Dispatch(Worker& worker, WorkerId id, const Frame& frame, int64_t now_ms,
                            UniqueFd fd) {
  if (worker.greeted == (frame.type == MessageType::kHello))
    return Err(ErrorCode::protocol_error, worker.greeted ? "a second Hello" : "no Hello first");
  switch (frame.type) {
    case MessageType::kHello: {
      ASSIGN_OR_RETURN(const auto hello, DecodeFrame<protocol::Hello>(frame));
      RETURN_IF_ERROR(OnHello(worker, hello));
      HandWaiting(now_ms);
      return {};
    }
    case MessageType::kAccepted: {
      ASSIGN_OR_RETURN(auto accepted, DecodeFrame<protocol::Accepted>(frame));
      Generation* const generation = GenerationOf(accepted.rid, id);
      if (!generation) return {};  // cancelled while this was on its way
      if (const Status taken = generation->ledger.OnAccepted(std::move(accepted)); !taken)
        return GiveUp(*generation, taken.error());
      if (generation->stream) {
        BeginStream(*generation, now_ms);
        generation->start_sent = true;
        if (std::string start =
                StreamStart(generation->identity, static_cast<int>(generation->choices.size()));
            !start.empty())
          generation->sink->Stream(std::move(start), 0);
      }
      return {};
    }
    case MessageType::kBegun: {
      ASSIGN_OR_RETURN(const auto begun, DecodeFrame<protocol::Begun>(frame));
      Generation* const generation = GenerationOf(begun.rid, id);
      if (!generation) return {};
      if (const Status taken = generation->ledger.OnBegun(begun); !taken)
        return GiveUp(*generation, taken.error());
      return {};
    }
    case MessageType::kEvent: {
      ASSIGN_OR_RETURN(auto event, DecodeFrame<protocol::Event>(frame));
      Generation* const generation = GenerationOf(event.rid, id);
      if (!generation) return {};
      if (const Status taken = OnEvent(*generation, std::move(event), frame.payload.size(), now_ms);
          !taken)
        return GiveUp(*generation, taken.error());
      return {};
    }
    case MessageType::kEnd: {
      ASSIGN_OR_RETURN(const auto end, DecodeFrame<protocol::End>(frame));
      Generation* const generation = GenerationOf(end.rid, id);
      if (!generation) return {};
      if (const Status taken = OnEnd(*generation, end, now_ms); !taken)
        return GiveUp(*generation, taken.error());
      return {};
    }
    case MessageType::kFailed: {
      ASSIGN_OR_RETURN(const auto failed, DecodeFrame<protocol::Failed>(frame));
      Generation* const generation = GenerationOf(failed.rid, id);
      if (!generation) return {};
      generation->worker = 0;  // it has forgotten the request: nothing to cancel
      const ErrorCode code = ErrorCodeFromWire(failed.error_code);
      Fail(failed.rid, {code, failed.message, failed.param, InfoOf(code).retryable ? 1 : 0});
      return {};
    }
    case MessageType::kForgotten: {
      ASSIGN_OR_RETURN(const auto forgotten, DecodeFrame<protocol::Forgotten>(frame));
      OnForgotten(id, forgotten);
      return {};
    }
    case MessageType::kConversationAnswer: {
      ASSIGN_OR_RETURN(const auto answer, DecodeFrame<protocol::ConversationAnswer>(frame));
      RETURN_IF_ERROR(conversation_calls_.OnAnswer(id, answer));
      return file_calls_.OnAnswer(id, answer);
    }
    case MessageType::kConversationFile: {
      ASSIGN_OR_RETURN(const auto file, DecodeFrame<protocol::ConversationFile>(frame));
      file_calls_.OnFile(id, file, std::move(fd));
      return {};
    }
    case MessageType::kCacheAnswer: {
      ASSIGN_OR_RETURN(const auto answer, DecodeFrame<protocol::CacheAnswer>(frame));
      return cache_calls_.OnAnswer(id, answer);
    }
    default:
      return Err(ErrorCode::protocol_error,
                 fmt::format("a frame of type {}, which workers do not send",
                             static_cast<int>(frame.type)));
  }
}

// A worker that breaks the protocol is replaced; the next one could break it with the same request.
Status Dispatcher::GiveUp(Generation& generation, const Error& breach) {
  Fail(generation.ledger.rid(),
       {ErrorCode::internal,
        fmt::format("The process that serves {} answered with nonsense and is being replaced; the "
                    "request was given up. The service's log has the details.",
                    generation.model),
        {},
        0});
  return tl::unexpected(breach);
}

Status Dispatcher::OnHello(Worker& worker, const protocol::Hello& hello) {
  if (hello.model != worker.offer.model || hello.epoch != worker.offer.epoch)
    return Err(ErrorCode::protocol_error,
               fmt::format("its Hello names {} epoch {}", hello.model, hello.epoch));
  worker.greeted = true;
  worker.port->Send(protocol::MakeFrame(TenantSettingsOf(*settings_)));
  LogInfo("worker {} of {} is connected, context {}", hello.epoch, hello.model, hello.max_context);
  return {};
}

// A request that is another worker's meanwhile has begun anew.
void Dispatcher::OnForgotten(WorkerId worker, const protocol::Forgotten& forgotten) {
  for (const RequestId rid : forgotten.rids)
    if (Generation* const generation = GenerationOf(rid, worker)) generation->ledger.Forget();
}

Status Dispatcher::OnEvent(Generation& generation, protocol::Event event, size_t payload_bytes,
                           int64_t now_ms) {
  RequestLedger& ledger = generation.ledger;
  ASSIGN_OR_RETURN(const bool is_new, ledger.OnEvent(event, payload_bytes));
  if (is_new) {
    const int index = event.choice;
    ChoiceAnswer& choice = generation.choices[static_cast<size_t>(index)];
    generation.kept_bytes -= choice.bytes();
    choice.Add(std::move(event));
    if (generation.stream && choice.has_part()) {
      generation.last_output_ms = now_ms;
      generation.sink->Stream(StreamDelta(generation.identity, index, choice.Take()),
                              payload_bytes);
      payload_bytes = 0;
    }
    generation.kept_bytes += choice.bytes();
    ledger.OnTaken(payload_bytes);
    if (generation.kept_bytes > limits::kAnswerBytesMax) {
      Fail(ledger.rid(), TooLong(ledger.request().top_logprobs.has_value()));
      return {};
    }
    // A worker keeps to its credit but for one event, which may echo a whole prompt.
    if (ledger.bytes_under_way() > limits::kCreditBytes + limits::kFrameBytesMax)
      return Err(ErrorCode::protocol_error, "events far beyond the credit that was given");
  }
  SendCredit(generation, limits::kCreditPortionBytes);
  return {};
}

Status Dispatcher::OnEnd(Generation& generation, const protocol::End& end, int64_t now_ms) {
  ASSIGN_OR_RETURN(const bool is_new, generation.ledger.OnEnd(end));
  if (!is_new) return {};
  generation.choices[static_cast<size_t>(end.choice)].end = end;
  if (generation.ledger.state() == RequestLedger::State::kEnded) {
    Finish(generation, end, now_ms);
  } else if (generation.stream) {
    generation.last_output_ms = now_ms;
    generation.sink->Stream(StreamChoiceEnd(generation.identity, end.choice, end.reason), 0);
  }
  return {};
}

// `end`: that of the choice that was the last to end.
void Dispatcher::Finish(Generation& generation, const protocol::End& end, int64_t now_ms) {
  const protocol::Accepted& accepted = generation.ledger.accepted();
  const AnswerEnd answer_end{
      UsageOf(generation.choices),
      generation.waited_ms,
      accepted.ticket.cache.type,
      accepted.ticket.conversation_id,
      accepted.spliced,
      accepted.warnings,
      std::ranges::all_of(generation.choices,
                          [](const ChoiceAnswer& choice) { return choice.end->persisted; })};
  AnswerSink* const sink = generation.sink;
  if (generation.stream) {
    BeginStream(generation, now_ms);
    sink->Stream(StreamEnd(generation.identity, end.choice, end.reason, answer_end), 0);
    sink->EndStream();
  } else {
    std::vector<WholeChoice> choices;
    for (ChoiceAnswer& choice : generation.choices)
      choices.push_back({choice.Take(), choice.end->reason});
    sink->Respond(JsonResponse(200, WholeAnswer(generation.identity, choices, answer_end)));
  }
  LogInfo("{}: {}: {} + {} tokens in {} ms", RequestIdText(generation.ledger.rid()),
          generation.model, answer_end.usage.prompt_tokens, answer_end.usage.completion_tokens,
          now_ms - generation.started_ms);
  const auto worker = workers_.find(generation.worker);
  if (worker != workers_.end())
    worker->second.port->Send(protocol::MakeFrame(protocol::Release{generation.ledger.rid()}));
  Erase(generation.ledger.rid());
}

void Dispatcher::OnWorkerGone(WorkerId id, int64_t now_ms) {
  const auto it = workers_.find(id);
  if (it == workers_.end()) return;
  const std::string model = it->second.offer.model;
  workers_.erase(it);
  cache_calls_.OnWorkerGone(id);
  conversation_calls_.OnWorkerGone(id);
  file_calls_.OnWorkerGone(id);
  size_t begun = 0, waiting = 0;
  for (const RequestId rid : AllRids()) {
    const auto found = generations_.find(rid);
    if (found == generations_.end() || found->second->worker != id) continue;
    Generation& generation = *found->second;
    generation.worker = 0;
    generation.waiting_since_ms = now_ms;
    demand_.Touch(model);
    generation.ledger.TakeBack();
    generation.wait_until_ms = now_ms + int64_t{limits::kModelWaitS} * 1000;
    if (generation.ledger.state() == RequestLedger::State::kOrphaned) {
      ++begun;
    } else if (draining_) {
      Fail(rid, ShuttingDown());
    } else {
      ++waiting;
    }
  }
  if (begun + waiting > 0) {
    LogWarning("a worker of {} is gone: {} answers and {} requests wait for the next", model, begun,
               waiting);
  } else {
    LogInfo("a worker of {} is gone", model);
  }
  HandWaiting(now_ms);
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
  held_bytes_ -= it->second->ledger.request_bytes();
  demand_.OnEnd(it->second->model, it->second->keep_alive_s);
  const auto count = per_model_.find(it->second->model);
  CHECK(count != per_model_.end() && count->second > 0);
  if (--count->second == 0) per_model_.erase(count);
  generations_.erase(it);
}

}  // namespace perdure::frontend
