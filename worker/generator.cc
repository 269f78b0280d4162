#include "worker/generator.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "protocol/codec.h"
#include "shm/status.h"
#include "worker/answer_form.h"
#include "worker/cache_schedule.h"
#include "worker/chat_context.h"
#include "worker/generator_state.h"
#include "worker/generator_transfers.h"

namespace perdure::worker {

using protocol::RequestId;

static_assert(engine::kPageTokens == shm::kArenaPageTokens);

Generator::Generator(const Model* model, const GeneratorOptions& options, shm::PageStore* store,
                     shm::StatusShm* status, EventSink* sink)
    : model_(model),
      options_(options),
      store_(store),
      status_(status),
      sink_(sink),
      conversations_(options.conversations, store, model->tokenizer.get(), options.unix_ms),
      operator_(OperatorContext()),
      scheduler_(options.scheduler, store, this),
      pace_(options.scheduler.prefill_tokens_per_step),
      stored_pages_(store->memory().root()),
      transfers_(std::make_unique<Transfers>()) {
  CHECK(options.now_us != nullptr);
  CHECK(options.scheduler.sequences_max <= limits::kSequencesMax);
  TakeStored();
  PublishCounts();  // of what a predecessor has left
}

Generator::~Generator() { store_->SetOnEvict(nullptr); }

// --- Admission ---------------------------------------------------------------------------------

namespace {

// Outside of a step: a request whose rendering or folding ends the process is as much a suspect as
// one that dies in a step.
class Suspicion {
 public:
  Suspicion(shm::StatusShm* status, uint64_t step, RequestId rid)
      : status_(status),
        phase_(status->phase.exchange(static_cast<uint32_t>(shm::Phase::kStepping))) {
    shm::BeginStep(*status_, step, {&rid, 1});
  }
  ~Suspicion() {
    status_->manifest_step.store(0, std::memory_order_release);
    status_->progress.fetch_add(1, std::memory_order_relaxed);
    status_->phase.store(phase_, std::memory_order_relaxed);
  }
  Suspicion(const Suspicion&) = delete;
  Suspicion& operator=(const Suspicion&) = delete;

 private:
  shm::StatusShm* const status_;
  const uint32_t phase_;
};

tl::unexpected<Error> InUse(RequestId rid) {
  return Err(ErrorCode::protocol_error, fmt::format("request id {:016x} is already in use", rid));
}

Status CheckVocabulary(const protocol::Resume& resume, int vocab_size) {
  for (const protocol::ChoiceSoFar& choice : resume.choices) {
    for (TokenId id : choice.token_ids) {
      if (id < 0 || id >= vocab_size)
        return Err(ErrorCode::worker_lost,
                   "the model was exchanged for another one while this answer was under way");
    }
  }
  return {};
}

constexpr size_t kBits = 64;

std::vector<uint64_t> BitsOf(const std::vector<bool>& drawn) {
  std::vector<uint64_t> bits;
  for (size_t i = 0; i < drawn.size(); ++i) {
    if (!drawn[i]) continue;
    bits.resize(i / kBits + 1);
    bits.back() |= uint64_t{1} << i % kBits;
  }
  return bits;
}

// What is beyond the prompt is ignored.
void AddBits(const std::vector<uint64_t>& bits, std::vector<bool>* drawn) {
  for (size_t i = 0; i < std::min(drawn->size(), bits.size() * kBits); ++i)
    if ((bits[i / kBits] >> i % kBits & 1) != 0) (*drawn)[i] = true;
}

}  // namespace

Status Generator::Submit(const protocol::Submit& submit) {
  if (requests_.contains(submit.rid) || fetching_.contains(submit.rid)) return InUse(submit.rid);
  const int64_t received_us = options_.now_us();
  if (const auto refusal = Refusal()) {
    FailUnknown(submit.rid, *refusal);
    return {};
  }
  const Suspicion suspicion(status_, step_ + 1, submit.rid);
  auto prompt = TakePrompt(*model_, options_.admission, submit.request);
  if (!prompt) {
    FailUnknown(submit.rid, prompt.error());
    return {};
  }
  if (!FetchConversation(submit, &*prompt, received_us))
    Accept(submit, std::move(*prompt), received_us);
  PublishCounts();
  return {};
}

void Generator::Accept(const protocol::Submit& submit, Prompt prompt, int64_t received_us) {
  const Suspicion suspicion(status_, step_ + 1, submit.rid);
  auto owned = std::make_unique<Request>();
  owned->rid = submit.rid;
  protocol::Accepted accepted = Recognize(submit.request, &prompt.ids, owned.get());
  owned->ticket.form = accepted.ticket.form = prompt.form;
  auto admitted = Admit(*model_, options_.admission, submit.request, std::move(prompt.ids),
                        MemoryTokens(owned->ticket.cache));
  if (admitted && prompt_tokens_ + admitted->prompt_ids.size() > limits::kWorkerPromptTokensMax)
    admitted = Err(ErrorCode::overloaded, "the prompts that wait for this model are too long");
  if (!admitted) return FailUnknown(submit.rid, admitted.error());
  Request* const request =
      Open(submit.rid, std::move(owned), &*admitted, submit.credit_bytes, submit.request);
  request->received_us = received_us;
  accepted.prompt_ids = request->prompt_ids;
  accepted.ticket.drawn = BitsOf(request->prompt_drawn);
  sink_->Send(accepted);
  const text::AnswerFold fold = FoldOf(*request, submit.request, *admitted, prompt.tools);
  for (int i = 0; i < submit.request.choices; ++i) {
    Choice* const choice = AddChoice(request, fold, *admitted);
    SendEcho(request, choice, admitted->echo);
    if (admitted->answer_tokens_max == 0) Finish(request, choice, protocol::FinishReason::kLength);
  }
  if (admitted->answer_tokens_max > 0) ScheduleOrLoad(request, submit.suspect);
}

Status Generator::Resume(const protocol::Resume& resume) {
  if (requests_.contains(resume.rid) || fetching_.contains(resume.rid)) return InUse(resume.rid);
  if (resume.choices.size() != static_cast<size_t>(resume.request.choices))
    return Err(ErrorCode::protocol_error,
               fmt::format("request {:016x} has {} choices, {} are to go on", resume.rid,
                           resume.request.choices, resume.choices.size()));
  if (!IsSound(resume.ticket.cache) || !IsSound(resume.ticket.form))
    return Err(ErrorCode::protocol_error,
               fmt::format("request {:016x} has a cache schedule or a form of answers that there "
                           "is not",
                           resume.rid));
  const int64_t received_us = options_.now_us();
  if (const auto refusal = Refusal()) {
    FailUnknown(resume.rid, *refusal);
    return {};
  }
  const Suspicion suspicion(status_, step_ + 1, resume.rid);
  auto owned = std::make_unique<Request>();
  owned->rid = resume.rid;
  owned->ticket = resume.ticket;
  auto admitted = Admit(*model_, options_.admission, resume.request, resume.prompt_ids,
                        MemoryTokens(owned->ticket.cache));
  if (const Status known = CheckVocabulary(resume, model_->engine->info().vocab_size); !known)
    admitted = Err(known.error());
  if (!admitted) {
    FailUnknown(resume.rid, admitted.error());
    return {};
  }
  Request* const request =
      Open(resume.rid, std::move(owned), &*admitted, resume.credit_bytes, resume.request);
  request->prompt_drawn = conversations_.DrawnOf(request->owner, request->prompt_ids);
  AddBits(resume.ticket.drawn, &request->prompt_drawn);
  request->received_us = received_us;
  const bool is_chat = request->kind == protocol::RequestKind::kChat;
  const text::AnswerFold fold = FoldOf(*request, resume.request, *admitted,
                                       is_chat ? ToolsOf(resume.request.chat_json) : Json());
  for (const protocol::ChoiceSoFar& so_far : resume.choices) {
    Choice* const choice = AddChoice(request, fold, *admitted);
    choice->sent_seq = so_far.last_seq;
    choice->from_arena = so_far.from_arena;
    choice->from_snapshot = so_far.from_snapshot;
    if (so_far.ended) {
      choice->ended = true;
      continue;
    }
    Replay(request, choice, *admitted, so_far);
    if (choice->unsent_end || choice->ended || choice->keeping) continue;
    const int64_t now_us = options_.now_us();
    choice->comeback = {.known = request->prompt_ids.size() + choice->ids.size(),
                        .readmit_us = now_us - received_us,
                        .begin_us = now_us};
  }
  ScheduleOrLoad(request, resume.suspect);
  Flush(request);
  PublishCounts();
  return {};
}

std::optional<Error> Generator::Refusal() const {
  if (!admitting_) return Error{ErrorCode::shutting_down, "this model is being shut down", {}, 0};
  if (live() >= limits::kWorkerRequestsMax)
    return Error{ErrorCode::overloaded,
                 fmt::format("{} requests wait for this model already", live_),
                 {},
                 0};
  return std::nullopt;
}

Generator::Request* Generator::Open(RequestId rid, std::unique_ptr<Request> owned,
                                    AdmittedRequest* admitted, uint32_t credit_bytes,
                                    const protocol::GenerationRequest& asked) {
  Request* const request = owned.get();
  requests_.emplace(rid, std::move(owned));
  ++live_;
  prompt_tokens_ += admitted->prompt_ids.size();
  request->prompt_ids = std::move(admitted->prompt_ids);
  request->prompt_drawn.resize(request->prompt_ids.size());
  Remember(asked, request);
  request->credit_bytes = credit_bytes;
  request->client = asked.client;
  request->top_logprobs = asked.top_logprobs;
  request->choices_wanted = static_cast<size_t>(asked.choices);
  request->choices.reserve(request->choices_wanted);
  return request;
}

text::AnswerFold Generator::FoldOf(const Request& request, const protocol::GenerationRequest& asked,
                                   const AdmittedRequest& admitted, const Json& tools) const {
  text::AnswerSettings settings;
  settings.output.stop = asked.stop;
  settings.output.eos_ids = model_->eos_ids;
  settings.output.ignore_eos = asked.ignore_eos;
  settings.output.max_tokens = admitted.answer_tokens_max;
  settings.drawable_ids = model_->engine->info().vocab_size;
  if (asked.kind == protocol::RequestKind::kChat) {
    settings.output.own_text = true;
    settings.chat = ParserSettings(request.ticket.form, tools);
    settings.reasoning_tokens_max = asked.reasoning_tokens_max;
  }
  return {model_->tokenizer.get(), std::move(settings)};
}

Generator::Choice* Generator::AddChoice(Request* request, const text::AnswerFold& fold,
                                        const AdmittedRequest& admitted) {
  const auto index = static_cast<int>(request->choices.size());
  Choice& choice = request->choices.emplace_back(index, fold);
  choice.sampling = admitted.sampling;
  choice.sampling.seed = SeedOfChoice(admitted.sampling.seed, index);
  return &choice;
}

void Generator::Schedule(Request* request, Choice* choice, bool suspect) {
  choice->sequence = scheduler_.Add(
      static_cast<int>(request->prompt_ids.size() + choice->ids.size()), request->ticket.cache,
      {.client = request->client, .had_place = choice->from_arena.has_value()});
  places_[choice->sequence] = {request, choice};
  const auto leads = [choice](const Choice& other) {
    return &other != choice && other.sequence != 0;
  };
  choice->follows = request->prompt_ids.size() > engine::kPageTokens &&
                    std::any_of(request->choices.begin(), request->choices.end(), leads);
  scheduler_.SetBlocked(choice->sequence, choice->follows);
  if (!suspect) return;
  choice->suspect = true;
  scheduler_.SetSuspect(choice->sequence, true);
}

// Folds what the client has again, from zero: the state behind the last event, without sending it.
void Generator::Replay(Request* request, Choice* choice, const AdmittedRequest& admitted,
                       const protocol::ChoiceSoFar& so_far) {
  SendEcho(request, choice, admitted.echo);
  const Place place{request, choice};
  if (admitted.answer_tokens_max == 0) Finish(request, choice, protocol::FinishReason::kLength);
  for (TokenId id : so_far.token_ids) {
    // A context that has become smaller ends the answer where it is.
    if (choice->fold.finished() || choice->ended) break;
    Take(place, id, std::numeric_limits<float>::quiet_NaN(), std::nullopt);
  }
}

void Generator::SendEcho(Request* request, Choice* choice, std::string_view text) {
  while (!text.empty()) {
    size_t size = std::min(text.size(), limits::kEchoEventBytesMax);
    // Not inside a character: continuation bytes begin with 10.
    while (size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
    protocol::Event piece;
    piece.text = text.substr(0, size);
    Deliver(request, choice, std::move(piece));
    text.remove_prefix(size);
  }
}

// --- Sending -----------------------------------------------------------------------------------

void Generator::Deliver(Request* request, Choice* choice, protocol::Event event) {
  event.rid = request->rid;
  event.choice = choice->index;
  event.seq = choice->next_seq++;
  if (event.seq <= choice->sent_seq) return;
  choice->unsent.push_back(std::move(event));
  Flush(request);
}

void Generator::Finish(Request* request, Choice* choice, protocol::FinishReason reason) {
  const std::string conversation_id = Leave({request, choice}, true);
  const int64_t now_us = options_.now_us();
  const int64_t begin_us = choice->first_step_us == 0 ? now_us : choice->first_step_us;
  const int64_t token_us = choice->first_token_us == 0 ? now_us : choice->first_token_us;
  protocol::End end;
  end.rid = request->rid;
  end.choice = choice->index;
  // Not before what the client has, should a smaller context cut the answer shorter.
  end.seq = std::max(choice->next_seq, choice->sent_seq + 1);
  end.reason = reason;
  end.usage.prompt_tokens = static_cast<int32_t>(request->prompt_ids.size());
  end.usage.completion_tokens = static_cast<int32_t>(choice->ids.size());
  end.usage.from_arena = choice->from_arena.value_or(0);
  end.usage.from_snapshot = choice->from_snapshot;
  end.usage.computed = end.usage.prompt_tokens - end.usage.from_arena - end.usage.from_snapshot;
  end.usage.queue_us = begin_us - request->received_us;
  end.usage.prefill_us = token_us - begin_us;
  end.usage.decode_us = now_us - token_us;
  end.usage.reasoning_tokens = choice->fold.reasoning_tokens();
  if (request->stores && !conversation_id.empty())
    return KeepTurn({request, choice}, conversation_id, end);
  choice->unsent_end = end;
  Flush(request);
}

// Sends what credit allows, and lets those sequences run whose events are all sent.
void Generator::Flush(Request* request) {
  bool starved = false;
  bool all_ended = true;
  for (Choice& choice : request->choices) {
    while (!choice.unsent.empty()) {
      const auto bytes = static_cast<int64_t>(protocol::Encode(choice.unsent.front()).size());
      if (bytes > request->credit_bytes) break;
      request->credit_bytes -= bytes;
      sink_->Send(choice.unsent.front());
      choice.unsent.pop_front();
    }
    const bool waits = !choice.unsent.empty();
    starved = starved || waits;
    if (!waits && choice.unsent_end) {
      sink_->Send(*choice.unsent_end);
      choice.unsent_end.reset();
      choice.ended = true;
    }
    if (choice.sequence != 0) scheduler_.SetBlocked(choice.sequence, waits || choice.follows);
    all_ended = all_ended && choice.ended;
  }
  if (!starved) {
    request->starved_since_us = 0;
  } else if (request->starved_since_us == 0) {
    request->starved_since_us = options_.now_us();
  }
  // While choices are still being set up, the missing ones have not ended either.
  if (all_ended && request->choices.size() == request->choices_wanted) NoteEnd(request);
}

void Generator::NoteEnd(Request* request) {
  if (!request->live) return;
  request->live = false;
  --live_;
  prompt_tokens_ -= request->prompt_ids.size();
  EndConversation(request);
  CountRequest(*request);
  ended_.push_back(request->rid);
  // Their Release may be lost with a frontend that forgets: what is kept for it is bounded.
  while (ended_.size() > limits::kWorkerEndedMax) {
    const auto it = requests_.find(ended_.front());
    if (it != requests_.end() && !it->second->live) requests_.erase(it);
    ended_.pop_front();
  }
}

void Generator::FailUnknown(RequestId rid, const Error& error) {
  sink_->Send(protocol::Failed{rid, static_cast<uint16_t>(error.code), error.message, error.param});
}

void Generator::Fail(Request* request, const Error& error) {
  const RequestId rid = request->rid;
  FailUnknown(rid, error);
  Forget(rid);
}

// --- Ends from outside -------------------------------------------------------------------------

void Generator::Forget(RequestId rid) {
  fetching_.erase(rid);
  const auto it = requests_.find(rid);
  if (it == requests_.end()) return;
  Request& request = *it->second;
  AbandonLoad(&request);
  for (Choice& choice : request.choices) Leave({&request, &choice}, false);
  if (request.live) {
    --live_;
    prompt_tokens_ -= request.prompt_ids.size();
    EndConversation(&request);
  }
  requests_.erase(it);
}

void Generator::Cancel(RequestId rid) {
  Forget(rid);
  CancelTransfer(rid);
  PublishCounts();
}

void Generator::Release(RequestId rid) { Cancel(rid); }

void Generator::Credit(RequestId rid, uint32_t bytes) {
  const auto it = requests_.find(rid);
  if (it == requests_.end()) return;
  it->second->credit_bytes += bytes;
  Flush(it->second.get());
}

void Generator::CancelAll() {
  operator_.ForgetAskers();
  fetching_.clear();
  CancelTransfers();
  while (!requests_.empty()) Forget(requests_.begin()->first);
  ended_.clear();
  PublishCounts();
}

void Generator::FailAll(const Error& error) {
  std::vector<Request*> live;
  for (const auto& [rid, request] : requests_) {
    if (request->live) live.push_back(request.get());
  }
  for (Request* request : live) Fail(request, error);
  for (const auto& [rid, fetching] : std::exchange(fetching_, {})) FailUnknown(rid, error);
  FailTransfers(error);
  PublishCounts();
}

void Generator::FailSlowClients() {
  const int64_t now_us = options_.now_us();
  std::vector<Request*> slow;
  for (const auto& [rid, request] : requests_) {
    if (request->starved_since_us != 0 &&
        now_us - request->starved_since_us > options_.slow_client_timeout_us)
      slow.push_back(request.get());
  }
  for (Request* request : slow)
    Fail(request, Error{ErrorCode::slow_client,
                        "the answer was not read for too long and was given up",
                        {},
                        0});
  if (!slow.empty()) PublishCounts();
}

// --- Upkeep ------------------------------------------------------------------------------------

void Generator::Scrub() {
  store_->Scrub(limits::kScrubBytes);
  // What is in use is computed again by all that have it.
  for (const PageIndex damaged : store_->TakeDamagedInUse()) {
    const auto is_damaged = [&](PageIndex page) { return store_->IsBefore(damaged, page); };
    scheduler_.PreemptHolders(is_damaged);
    conversations_.Unpin(is_damaged);
    store_->DropDamaged(damaged);
  }
  PublishCounts();
}

void Generator::Upkeep() {
  if (HasChainsToForget())
    ForgetSomeChains();
  else if (operator_.HasWork(!HasWork()))
    operator_.Work(!HasWork());
  else
    KeepSomePages();
  PublishCounts();
}

void Generator::Tick() {
  const int64_t now_us = options_.now_us();
  if (now_us < next_expiry_us_) return;
  next_expiry_us_ = now_us + int64_t{limits::kExpiryIntervalMs} * 1000;
  conversations_.Expire();
  operator_.Tick();
  DropPastRetention();
  PublishCounts();
}

void Generator::PublishCounts() {
  status_->sequences_running.store(static_cast<uint32_t>(scheduler_.resident()),
                                   std::memory_order_relaxed);
  status_->sequences_waiting.store(static_cast<uint32_t>(scheduler_.waiting()),
                                   std::memory_order_relaxed);
  status_->kv_bytes_used.store(store_->used_bytes(), std::memory_order_relaxed);
  status_->kv_bytes_reserved.store(store_->bytes_granted(), std::memory_order_relaxed);
  status_->kv_pages_damaged.store(store_->damaged() + store_->recovery().dropped,
                                  std::memory_order_relaxed);
}

std::optional<Generator::AnswerView> Generator::answer(RequestId rid, int choice) const {
  const auto it = requests_.find(rid);
  if (it == requests_.end()) return std::nullopt;
  const auto index = static_cast<size_t>(choice);
  if (choice < 0 || index >= it->second->choices.size()) return std::nullopt;
  const Choice& found = it->second->choices[index];
  return AnswerView{found.ids, found.logprobs};
}

}  // namespace perdure::worker
