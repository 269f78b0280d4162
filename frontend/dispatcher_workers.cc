// What workers send, and what they are given.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "frontend/access.h"
#include "frontend/dispatcher_state.h"
#include "frontend/generation_errors.h"
#include "frontend/http_response.h"

namespace perdure::frontend {

using protocol::Frame;
using protocol::MessageType;
using protocol::RequestId;
using protocol::RosterEntry;

namespace {

bool Names(const std::vector<RequestId>& rids, RequestId rid) {
  return std::find(rids.begin(), rids.end(), rid) != rids.end();
}

template <class T>
Result<T> DecodeFrame(const Frame& frame) {
  return protocol::Decode<T>(frame.payload);
}

}  // namespace

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
  std::vector<WaitingRequest> waiting;
  for (const auto& [rid, each] : generations_)
    if (each->worker == 0)
      waiting.push_back({rid, each->ledger.request().client, each->arrival,
                         each->ledger.state() == RequestLedger::State::kOrphaned});
  for (const RequestId rid : HandingOrder(std::move(waiting))) {
    Generation& generation = *generations_.at(rid);
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

}  // namespace perdure::frontend
