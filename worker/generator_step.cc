// A step of the generator: the forward pass, and what each token leads to.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "engine/kv_view.h"
#include "shm/status.h"
#include "worker/cache_schedule.h"
#include "worker/generator_state.h"

namespace perdure::worker {

using protocol::RequestId;

namespace {

void AddPieces(std::vector<text::ChatPiece> pieces, protocol::Event* event) {
  using Kind = text::ChatPiece::Kind;
  for (text::ChatPiece& piece : pieces) {
    if (piece.kind == Kind::kCallEnd) continue;  // the next call, or the answer's end, tells it
    if (piece.kind == Kind::kContent && event->parts.empty()) {
      event->text += piece.text;
      continue;
    }
    const protocol::PartKind kind =
        piece.kind == Kind::kContent     ? protocol::PartKind::kContent
        : piece.kind == Kind::kReasoning ? protocol::PartKind::kReasoning
        : piece.kind == Kind::kCallBegin ? protocol::PartKind::kCallBegin
                                         : protocol::PartKind::kCallArguments;
    event->parts.push_back({kind, piece.index, std::move(piece.text)});
  }
}

protocol::FinishReason ReasonOf(text::AnswerFinish finish) {
  return finish == text::AnswerFinish::kToolCalls ? protocol::FinishReason::kToolCalls
         : finish == text::AnswerFinish::kLength  ? protocol::FinishReason::kLength
                                                  : protocol::FinishReason::kStop;
}

}  // namespace

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
  // Who is next needs the memory of pages that are being read (GiveWay).
  else if (filling_ > 0)
    options_.persistence->Wait(limits::kKvGrowPollMs);
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
  std::vector<std::vector<engine::KvPrecision>> precisions(plan.entries.size());
  std::vector<std::vector<TokenId>> joined(plan.entries.size());
  uint64_t prefilled = 0;
  for (size_t i = 0; i < plan.entries.size(); ++i) {
    const StepEntry& entry = plan.entries[i];
    const Place place = PlaceOf(entry.id);
    if (std::ranges::find(rids, place.request->rid) == rids.end())
      rids.push_back(place.request->rid);
    if (place.choice->first_step_us == 0) place.choice->first_step_us = begin_us;
    if (!place.choice->from_arena) {
      const Request& request = *place.request;
      const int from_snapshot =
          request.usable_before
              ? std::max(0, std::min(entry.start, request.usable_after) - *request.usable_before)
              : 0;
      const int from_arena = entry.start - from_snapshot;
      place.choice->from_arena = from_arena;
      place.choice->from_snapshot = from_snapshot;
      sink_->Send(protocol::Begun{place.request->rid, place.choice->index, from_arena,
                                  place.choice->from_snapshot});
    }
    for (PageIndex page : scheduler_.pages(entry.id)) {
      const bool is_there = page != shm::kNoPage;
      views[i].push_back(is_there ? store_->address(page) : nullptr);
      precisions[i].push_back(is_there ? PrecisionOf(store_->format(page))
                                       : engine::KvPrecision::kF16);
    }
    steps[i].kv.pages = views[i];
    steps[i].kv.precisions = precisions[i];
    steps[i].kv.retentions = place.request->retentions;
    steps[i].start = entry.start;
    steps[i].tokens = TokensOf(place, static_cast<size_t>(entry.start),
                               static_cast<size_t>(entry.count), &joined[i]);
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

// The known tokens at [start, start + count): of the prompt, of the answer, or of both.
std::span<const TokenId> Generator::TokensOf(const Place& place, size_t start, size_t count,
                                             std::vector<TokenId>* joined) {
  const std::vector<TokenId>& prompt = place.request->prompt_ids;
  const std::vector<TokenId>& answer = place.choice->ids;
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
  const std::optional<TokenId> forced = choice.fold.Forced();
  const engine::SampledToken token =
      forced ? sampler_.Score(logits, *forced)
             : sampler_.Sample(logits, choice.sampling, place.request->prompt_ids, choice.ids);
  if (choice.first_token_us == 0) choice.first_token_us = options_.now_us();
  if (choice.comeback) LogComeback(place);
  ShareTail(place);
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
  text::AnswerStep step = choice.fold.Push(id);
  protocol::Event event;
  event.token_ids = {id};
  AddPieces(std::move(step.pieces), &event);
  if (logprobs) {
    event.logprobs.push_back(std::move(*logprobs));
    event.tokens_out = static_cast<uint32_t>(step.tokens_out);
  }
  if (!place.request->ticket.conversation_id.empty()) choice.said.Add(event);
  Deliver(place.request, &choice, std::move(event));
  if (step.finish) Finish(place.request, &choice, ReasonOf(*step.finish));
}

}  // namespace perdure::worker
