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

namespace perdure::worker {

using protocol::RequestId;

// What it costs a stream to go on with this worker, for the log.
struct Comeback {
  size_t known = 0;  // tokens of prompt and answer
  int cached = 0;    // of them: their KV was found
  int64_t readmit_us = 0, verify_us = 0, begin_us = 0;
};

// One answer to a request.
struct Generator::Choice {
  Choice(int index_, text::OutputFold fold_) : index(index_), fold(std::move(fold_)) {}

  int index;
  text::OutputFold fold;
  engine::SamplingParams sampling;
  std::vector<TokenId> ids;
  std::vector<float> logprobs;
  uint64_t next_seq = 1;
  uint64_t sent_seq = 0;  // events up to this one were sent by a worker that died
  bool suspect = false;   // a worker died in its step, and it has not been beyond that since
  std::deque<protocol::Event> unsent;  // wait for credit, in order
  std::optional<protocol::End> unsent_end;
  SequenceId sequence = 0;  // 0: not in the scheduler (any more)
  bool follows = false;     // waits until another choice has computed the prompt for all
  bool ended = false;       // End is sent
  // Of its pages in residence: these are in the cache, full and found by others.
  size_t sealed_pages = 0;
  std::optional<int32_t> from_arena;  // tokens of the prompt, where this or an earlier worker began
  int64_t first_step_us = 0;
  int64_t first_token_us = 0;
  std::optional<Comeback> comeback;  // until its next token
};

struct Generator::Request {
  RequestId rid = 0;
  std::vector<TokenId> prompt_ids;
  std::optional<int> top_logprobs;  // absent: no logprobs are wanted
  std::vector<Choice> choices;      // never grows beyond its reserve: places_ point into it
  size_t choices_wanted = 0;
  int64_t credit_bytes = 0;
  int64_t received_us = 0;
  int64_t starved_since_us = 0;  // 0: nothing waits for credit
  bool live = true;
};

static_assert(engine::kPageTokens == shm::kArenaPageTokens);

Generator::Generator(const Model* model, const GeneratorOptions& options, shm::PageStore* store,
                     shm::StatusShm* status, EventSink* sink)
    : model_(model),
      options_(options),
      store_(store),
      status_(status),
      sink_(sink),
      scheduler_(options.scheduler, store, this),
      pace_(options.scheduler.prefill_tokens_per_step) {
  CHECK(options.now_us != nullptr);
  CHECK(options.scheduler.sequences_max <= limits::kSequencesMax);
  PublishCounts();  // of what a predecessor has left
}

Generator::~Generator() = default;

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

}  // namespace

Status Generator::Submit(const protocol::Submit& submit) {
  if (requests_.contains(submit.rid)) return InUse(submit.rid);
  const int64_t received_us = options_.now_us();
  if (const auto refusal = Refusal()) {
    FailUnknown(submit.rid, *refusal);
    return {};
  }
  const Suspicion suspicion(status_, step_ + 1, submit.rid);
  auto admitted = Admit(*model_, options_.admission, submit.request);
  if (admitted && prompt_tokens_ + admitted->prompt_ids.size() > limits::kWorkerPromptTokensMax)
    admitted = Err(ErrorCode::overloaded, "the prompts that wait for this model are too long");
  if (!admitted) {
    FailUnknown(submit.rid, admitted.error());
    return {};
  }
  Request* const request = Open(submit.rid, &*admitted, submit.credit_bytes, submit.request);
  request->received_us = received_us;
  sink_->Send(protocol::Accepted{submit.rid, request->prompt_ids, "kv"});
  for (int i = 0; i < submit.request.choices; ++i) {
    Choice* const choice = AddChoice(request, submit.request, *admitted);
    if (admitted->answer_tokens_max > 0) Schedule(request, choice, submit.suspect);
    SendEcho(request, choice, admitted->echo);
    if (admitted->answer_tokens_max == 0) Finish(request, choice, protocol::FinishReason::kLength);
  }
  PublishCounts();
  return {};
}

Status Generator::Resume(const protocol::Resume& resume) {
  if (requests_.contains(resume.rid)) return InUse(resume.rid);
  if (resume.choices.size() != static_cast<size_t>(resume.request.choices))
    return Err(ErrorCode::protocol_error,
               fmt::format("request {:016x} has {} choices, {} are to go on", resume.rid,
                           resume.request.choices, resume.choices.size()));
  const int64_t received_us = options_.now_us();
  if (const auto refusal = Refusal()) {
    FailUnknown(resume.rid, *refusal);
    return {};
  }
  const Suspicion suspicion(status_, step_ + 1, resume.rid);
  auto admitted = Readmit(*model_, options_.admission, resume.request, resume.prompt_ids);
  if (const Status known = CheckVocabulary(resume, model_->engine->info().vocab_size); !known)
    admitted = Err(known.error());
  if (!admitted) {
    FailUnknown(resume.rid, admitted.error());
    return {};
  }
  Request* const request = Open(resume.rid, &*admitted, resume.credit_bytes, resume.request);
  request->received_us = received_us;
  for (const protocol::ChoiceSoFar& so_far : resume.choices) {
    Choice* const choice = AddChoice(request, resume.request, *admitted);
    choice->sent_seq = so_far.last_seq;
    choice->from_arena = so_far.from_arena;
    if (so_far.ended) {
      choice->ended = true;
      continue;
    }
    Replay(request, choice, *admitted, so_far);
    if (choice->unsent_end || choice->ended) continue;
    Schedule(request, choice, resume.suspect);
    const int64_t now_us = options_.now_us();
    choice->comeback = {.known = request->prompt_ids.size() + choice->ids.size(),
                        .readmit_us = now_us - received_us,
                        .begin_us = now_us};
  }
  Flush(request);
  PublishCounts();
  return {};
}

std::optional<Error> Generator::Refusal() const {
  if (!admitting_) return Error{ErrorCode::shutting_down, "this model is being shut down", {}, 0};
  if (live_ >= limits::kWorkerRequestsMax)
    return Error{ErrorCode::overloaded,
                 fmt::format("{} requests wait for this model already", live_),
                 {},
                 0};
  return std::nullopt;
}

Generator::Request* Generator::Open(RequestId rid, AdmittedRequest* admitted, uint32_t credit_bytes,
                                    const protocol::GenerationRequest& asked) {
  auto owned = std::make_unique<Request>();
  Request* const request = owned.get();
  requests_.emplace(rid, std::move(owned));
  ++live_;
  prompt_tokens_ += admitted->prompt_ids.size();
  request->rid = rid;
  request->prompt_ids = std::move(admitted->prompt_ids);
  request->credit_bytes = credit_bytes;
  request->top_logprobs = asked.top_logprobs;
  request->choices_wanted = static_cast<size_t>(asked.choices);
  request->choices.reserve(request->choices_wanted);
  return request;
}

Generator::Choice* Generator::AddChoice(Request* request, const protocol::GenerationRequest& asked,
                                        const AdmittedRequest& admitted) {
  text::OutputSettings output;
  output.stop = asked.stop;
  output.eos_ids = model_->eos_ids;
  output.ignore_eos = asked.ignore_eos;
  output.own_text = asked.kind == protocol::RequestKind::kChat;
  output.max_tokens = admitted.answer_tokens_max;
  const auto index = static_cast<int>(request->choices.size());
  Choice& choice = request->choices.emplace_back(
      index, text::OutputFold(model_->tokenizer.get(), std::move(output)));
  choice.sampling = admitted.sampling;
  choice.sampling.seed = SeedOfChoice(admitted.sampling.seed, index);
  return &choice;
}

void Generator::Schedule(Request* request, Choice* choice, bool suspect) {
  choice->sequence =
      scheduler_.Add(static_cast<int>(request->prompt_ids.size() + choice->ids.size()));
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
  if (choice->sequence != 0) {
    places_.erase(choice->sequence);
    scheduler_.Remove(choice->sequence);
    choice->sequence = 0;
  }
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
  end.usage.computed = end.usage.prompt_tokens - end.usage.from_arena;
  end.usage.queue_us = begin_us - request->received_us;
  end.usage.prefill_us = token_us - begin_us;
  end.usage.decode_us = now_us - token_us;
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
  const auto it = requests_.find(rid);
  if (it == requests_.end()) return;
  Request& request = *it->second;
  for (Choice& choice : request.choices) {
    if (choice.sequence == 0) continue;
    places_.erase(choice.sequence);
    scheduler_.Remove(choice.sequence);
  }
  if (request.live) {
    --live_;
    prompt_tokens_ -= request.prompt_ids.size();
  }
  requests_.erase(it);
}

void Generator::Cancel(RequestId rid) {
  Forget(rid);
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

// --- Steps -------------------------------------------------------------------------------------

Generator::Place Generator::PlaceOf(SequenceId id) const {
  const auto it = places_.find(id);
  CHECK(it != places_.end());
  return it->second;
}

void Generator::Step() {
  scheduler_.SetPrefillTokensPerStep(pace_.tokens());
  const StepPlan plan = scheduler_.PlanStep();
  for (SequenceId id : plan.preempted)
    LogInfo("request {:016x} gave its KV pages to an older one and will be computed again",
            PlaceOf(id).request->rid);
  std::vector<RequestId> lost;
  for (SequenceId id : plan.out_of_memory) {
    const Place place = PlaceOf(id);
    places_.erase(id);
    place.choice->sequence = 0;
    lost.push_back(place.request->rid);
  }
  if (!plan.entries.empty()) Compute(plan);
  for (RequestId rid : lost) {
    const auto it = requests_.find(rid);
    if (it == requests_.end()) continue;
    Fail(it->second.get(),
         Error{ErrorCode::out_of_memory,
               "the system has no memory for this request's KV cache, as the service's log tells; "
               "try again later, or a shorter one",
               {},
               0});
  }
  PublishCounts();
}

void Generator::Compute(const StepPlan& plan) {
  const int64_t begin_us = options_.now_us();
  std::vector<RequestId> rids;
  std::vector<engine::SequenceStep> steps(plan.entries.size());
  std::vector<std::vector<std::byte*>> views(plan.entries.size());
  std::vector<std::vector<TokenId>> joined(plan.entries.size());
  uint64_t prefilled = 0;
  for (size_t i = 0; i < plan.entries.size(); ++i) {
    const StepEntry& entry = plan.entries[i];
    const Place place = PlaceOf(entry.id);
    if (rids.empty() || rids.back() != place.request->rid) rids.push_back(place.request->rid);
    if (place.choice->first_step_us == 0) place.choice->first_step_us = begin_us;
    if (!place.choice->from_arena) {
      place.choice->from_arena = entry.start;
      sink_->Send(protocol::Begun{place.request->rid, place.choice->index, entry.start});
    }
    for (PageIndex page : scheduler_.pages(entry.id)) views[i].push_back(store_->address(page));
    steps[i].kv.pages = views[i];
    steps[i].start = entry.start;
    steps[i].tokens = TokensOf(place, entry, &joined[i]);
    steps[i].logits_from = entry.draws ? entry.count - 1 : entry.count;
    if (entry.count > 1) prefilled += static_cast<uint64_t>(entry.count);
  }
  const Place first = PlaceOf(plan.entries[0].id);
  ++step_;
  // The manifest stands until the step's events are out: sampling and folding can die as well.
  shm::BeginStep(*status_, step_, rids);
  const std::span<const float> logits = model_->engine->Step(steps);
  pace_.Note(static_cast<int>(prefilled), options_.now_us() - begin_us);
  scheduler_.FinishStep(plan);
  for (const StepEntry& entry : plan.entries) SealFullPages(entry, PlaceOf(entry.id));
  const auto vocab = static_cast<size_t>(model_->engine->info().vocab_size);
  size_t row = 0;
  for (const StepEntry& entry : plan.entries) {
    if (!entry.draws) continue;
    CHECK((row + 1) * vocab <= logits.size());
    Draw(PlaceOf(entry.id), logits.subspan(row * vocab, vocab));
    ++row;
  }
  status_->tokens_prefilled.fetch_add(prefilled, std::memory_order_relaxed);
  status_->tokens_generated.fetch_add(row, std::memory_order_relaxed);
  shm::EndStep(*status_);
  // Not before the step is over: folding can die as well.
  if (first.choice->suspect && plan.entries[0].draws) Clear(first);
}

// A step that this suspect had to itself has drawn its token.
void Generator::Clear(const Place& place) {
  place.choice->suspect = false;
  if (place.choice->sequence != 0) scheduler_.SetSuspect(place.choice->sequence, false);
  const std::vector<Choice>& choices = place.request->choices;
  if (std::none_of(choices.begin(), choices.end(), [](const Choice& c) { return c.suspect; }))
    sink_->Send(protocol::Cleared{place.request->rid});
}

std::vector<PageIndex> Generator::CachedPrefix(SequenceId id) {
  const Place place = PlaceOf(id);
  std::vector<TokenId> tokens = place.request->prompt_ids;
  tokens.insert(tokens.end(), place.choice->ids.begin(), place.choice->ids.end());
  const int64_t begin_us = options_.now_us();
  // The last token is computed in any case: its logits are wanted.
  std::vector<PageIndex> pages = store_->Acquire(options_.cache_root, tokens, tokens.size() - 1);
  place.choice->sealed_pages = pages.size();
  if (auto& comeback = place.choice->comeback) {
    comeback->verify_us += options_.now_us() - begin_us;
    comeback->cached = static_cast<int>(pages.size()) * engine::kPageTokens;
  }
  return pages;
}

// Pages that this step has filled become part of the cache.
void Generator::SealFullPages(const StepEntry& entry, const Place& place) {
  size_t& sealed = place.choice->sealed_pages;
  const auto full = static_cast<size_t>((entry.start + entry.count) / engine::kPageTokens);
  std::vector<TokenId> joined;
  for (; sealed < full; ++sealed) {
    const StepEntry page{entry.id, static_cast<int>(sealed) * engine::kPageTokens,
                         engine::kPageTokens, false};
    const std::vector<PageIndex>& pages = scheduler_.pages(entry.id);
    const PageIndex parent = sealed == 0 ? shm::kNoPage : pages[sealed - 1];
    scheduler_.SetPage(
        entry.id, sealed,
        store_->Seal(pages[sealed], parent, options_.cache_root, TokensOf(place, page, &joined)));
  }
}

// The known tokens at [start, start + count): of the prompt, of the answer, or of both.
std::span<const TokenId> Generator::TokensOf(const Place& place, const StepEntry& entry,
                                             std::vector<TokenId>* joined) {
  const std::vector<TokenId>& prompt = place.request->prompt_ids;
  const std::vector<TokenId>& answer = place.choice->ids;
  const auto start = static_cast<size_t>(entry.start);
  const auto count = static_cast<size_t>(entry.count);
  CHECK(start + count <= prompt.size() + answer.size());
  if (start + count <= prompt.size()) return std::span(prompt).subspan(start, count);
  if (start >= prompt.size()) return std::span(answer).subspan(start - prompt.size(), count);
  joined->assign(prompt.begin() + static_cast<ptrdiff_t>(start), prompt.end());
  const size_t of_answer = count - joined->size();
  joined->insert(joined->end(), answer.begin(), answer.begin() + static_cast<ptrdiff_t>(of_answer));
  return *joined;
}

void Generator::Draw(const Place& place, std::span<const float> logits) {
  Choice& choice = *place.choice;
  const engine::SampledToken token =
      sampler_.Sample(logits, choice.sampling, place.request->prompt_ids, choice.ids);
  if (choice.first_token_us == 0) choice.first_token_us = options_.now_us();
  if (choice.comeback) LogComeback(place);
  scheduler_.Append(choice.sequence);
  for (Choice& other : place.request->choices) {
    if (!std::exchange(other.follows, false)) continue;
    scheduler_.SetBlocked(other.sequence, !other.unsent.empty());
  }
  std::optional<protocol::TokenLogprobs> logprobs;
  if (place.request->top_logprobs)
    logprobs = LogprobsOf(choice, token, logits, *place.request->top_logprobs);
  Take(place, token.id, token.logprob, std::move(logprobs));
}

protocol::TokenLogprobs Generator::LogprobsOf(const Choice& choice,
                                              const engine::SampledToken& token,
                                              std::span<const float> logits, int top) {
  const auto told = [&](const engine::SampledToken& one) {
    const std::string_view bytes = choice.fold.BytesOfNext(one.id);
    return protocol::TokenLogprob{one.logprob,
                                  std::string(bytes.substr(0, limits::kLogprobBytesMax)),
                                  model_->tokenizer->IsSpecial(one.id)};
  };
  protocol::TokenLogprobs logprobs;
  logprobs.token = told(token);
  if (top > 0) {
    for (const engine::SampledToken& one : sampler_.Top(logits, top))
      logprobs.top.push_back(told(one));
  }
  logprobs.text_offset = static_cast<uint32_t>(choice.fold.characters());
  return logprobs;
}

void Generator::LogComeback(const Place& place) {
  const auto ms = [](int64_t us) { return static_cast<double>(us) / 1000; };
  const Comeback comeback = *std::exchange(place.choice->comeback, std::nullopt);
  LogInfo(
      "request {:016x} goes on after {} tokens, {} of them cached: {:.1f} ms to take it over, "
      "{:.1f} to verify, {:.1f} to compute",
      place.request->rid, comeback.known, comeback.cached, ms(comeback.readmit_us),
      ms(comeback.verify_us), ms(options_.now_us() - comeback.begin_us - comeback.verify_us));
}

// The next token of an answer, and what follows from it.
void Generator::Take(const Place& place, TokenId id, float logprob,
                     std::optional<protocol::TokenLogprobs> logprobs) {
  Choice& choice = *place.choice;
  choice.ids.push_back(id);
  choice.logprobs.push_back(logprob);
  text::OutputPiece piece = choice.fold.Push(id);
  protocol::Event event;
  event.token_ids = {id};
  event.text = std::move(piece.text);
  if (logprobs) {
    event.logprobs.push_back(std::move(*logprobs));
    event.tokens_out = static_cast<uint32_t>(piece.tokens_out);
  }
  Deliver(place.request, &choice, std::move(event));
  if (piece.finish)
    Finish(place.request, &choice,
           *piece.finish == text::OutputFinish::kStop ? protocol::FinishReason::kStop
                                                      : protocol::FinishReason::kLength);
}

void Generator::Scrub() {
  store_->Scrub(limits::kScrubBytes);
  PublishCounts();
}

void Generator::PublishCounts() {
  status_->sequences_running.store(static_cast<uint32_t>(scheduler_.resident()),
                                   std::memory_order_relaxed);
  status_->sequences_waiting.store(static_cast<uint32_t>(scheduler_.waiting()),
                                   std::memory_order_relaxed);
  status_->kv_bytes_used.store(uint64_t{store_->used()} * store_->page_bytes(),
                               std::memory_order_relaxed);
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
