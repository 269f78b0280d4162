// Conversations with a generator that remembers them: turns as token ids, cold runs to compare
// with, and successors that take over what a worker has left in its memory.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "shm/hashes.h"
#include "tests/shm/watched_memory.h"
#include "tests/worker/generator_fixture.h"
#include "tests/worker/ids.h"
#include "worker/cache_schedule.h"

namespace perdure::worker {

inline CacheChoice OfType(const std::string& type) {
  CacheChoice cache;
  cache.settings.type = type;
  return cache;
}
inline CacheChoice Quantized(int bits) {
  CacheChoice cache = OfType("quantized_kv");
  cache.settings.bits = bits;
  return cache;
}
inline CacheChoice Rotating(int max_size, int keep) {
  CacheChoice cache = OfType("rotating_kv");
  cache.settings.max_size = max_size;
  cache.settings.keep = keep;
  return cache;
}
inline CacheChoice Chunked(int chunk_size) {
  CacheChoice cache = OfType("chunked_kv");
  cache.settings.chunk_size = chunk_size;
  return cache;
}

class CacheTest : public GeneratorTest {
 protected:
  CacheTest() {
    model_options_.max_context = 2048;
    model_options_.on_step = [this](std::span<const engine::SequenceStep> sequences) {
      for (const engine::SequenceStep& step : sequences) computed_ += step.tokens.size();
    };
    options_.unix_ms = [this] { return now_ms_; };
  }

  void StartWith(PageIndex pages, uint32_t conversations = 20) {
    shm::ArenaShape shape;
    for (const shm::PageFormat format : shm::kAllFormats)
      shape.page_bytes[format] = kFakeKv.PageBytes(PrecisionOf(format));
    shape.pages_max = pages;
    shape.conversations_max = conversations;
    pages_ = pages;
    const uint64_t root = shm::RootHash(options_.fingerprint, options_.numerics);
    StartOver(std::make_unique<shm::PageStore>(shm::WatchedMemory::Make(shape, root), pages));
  }
  // A successor, with the memory as it is now.
  void Die() {
    auto left = static_cast<shm::WatchedMemory&>(store_->memory()).Copy();
    StartOver(std::make_unique<shm::PageStore>(std::move(left), pages_));
  }

  protocol::Submit Ask(const Ids& prompt, int answer, const CacheChoice& cache = {}) {
    protocol::Submit submit = Completion(++last_rid_, "", answer, 11);
    submit.request.prompt_ids = prompt;
    submit.request.ignore_eos = true;
    submit.request.cache = cache;
    submit.credit_bytes = 16 * limits::kCreditBytes;
    return submit;
  }
  // Asks, and waits for the answer.
  protocol::RequestId Say(const protocol::Submit& submit) {
    EXPECT_TRUE(generator_->Submit(submit));
    RunAll();
    EXPECT_TRUE(sink_[submit.rid].choices[0].end) << "no answer to " << submit.rid;
    return submit.rid;
  }
  protocol::RequestId Say(const Ids& prompt, int answer, const CacheChoice& cache = {}) {
    return Say(Ask(prompt, answer, cache));
  }

  const Ids& Answer(protocol::RequestId rid, int choice = 0) {
    return sink_[rid].choices[choice].ids;
  }
  // All tokens of the conversation after this request.
  Ids History(protocol::RequestId rid, int choice = 0) {
    return sink_[rid].accepted->prompt_ids + Answer(rid, choice);
  }
  const protocol::ConversationTicket& Ticket(protocol::RequestId rid) {
    return sink_[rid].accepted->ticket;
  }
  // Of the prompt, as the client is told.
  int Cached(protocol::RequestId rid, int choice = 0) {
    const RecordedChoice& told = sink_[rid].choices[choice];
    EXPECT_TRUE(told.from_arena && told.end);
    if (!told.from_arena || !told.end) return -1;
    EXPECT_EQ(told.end->usage.from_arena, *told.from_arena);
    return *told.from_arena;
  }

  // What a request, with `so_far` of its answer, is to a worker that begins with it.
  protocol::Resume Rest(const protocol::Submit& submit, const protocol::ConversationTicket& ticket,
                        const Ids& so_far) {
    protocol::Resume resume;
    resume.rid = submit.rid;
    resume.request = submit.request;
    resume.prompt_ids = *submit.request.prompt_ids;
    resume.ticket = ticket;
    resume.credit_bytes = submit.credit_bytes;
    resume.choices.resize(1);
    resume.choices[0].token_ids = so_far;
    resume.choices[0].last_seq = so_far.size();
    return resume;
  }
  static void Expect(RecordingSink* sink, const protocol::Resume& resume) {
    protocol::Accepted& accepted = (*sink)[resume.rid].accepted.emplace();
    accepted.prompt_ids = resume.prompt_ids;
    accepted.ticket = resume.ticket;
    RecordedChoice& choice = (*sink)[resume.rid].choices[0];
    choice.ids = resume.choices[0].token_ids;
    choice.last_seq = resume.choices[0].last_seq;
    choice.from_arena = resume.choices[0].from_arena;
  }

  // The answer of a generator that has nothing cached, under this schedule.
  Ids Cold(const protocol::Submit& submit, const CacheSchedule& schedule) {
    FakeModelOptions model_options = model_options_;
    model_options.on_step = nullptr;
    FakeModel fake = MakeFakeModel(model_options);
    GeneratorOptions options = options_;
    options.conversations.enabled = false;
    auto store = MakeStore(kFakeKv, 256);
    shm::StatusBlock status = shm::StatusBlock::Create().value();
    RecordingSink sink;
    Generator generator(&fake.model, options, store.get(), &*status, &sink);
    protocol::ConversationTicket ticket;
    ticket.cache = schedule;
    const protocol::Resume resume = Rest(submit, ticket, {});
    Expect(&sink, resume);
    EXPECT_TRUE(generator.Resume(resume));
    while (generator.HasWork()) generator.Step();
    EXPECT_TRUE(sink[submit.rid].choices[0].end);
    return sink[submit.rid].choices[0].ids;
  }

  std::vector<PageIndex> PagesOf(const std::string& id) {
    std::vector<PageIndex> path;
    for (const auto& conversation : generator_->conversations().all()) {
      if (conversation->id != id) continue;
      for (PageIndex page = conversation->tail; page != shm::kNoPage; page = store_->parent(page))
        path.insert(path.begin(), page);
    }
    return path;
  }

  int64_t now_ms_ = 1'000'000'000;
  size_t computed_ = 0;  // tokens, by the engine
  PageIndex pages_ = 0;
  protocol::RequestId last_rid_ = 0;
};

}  // namespace perdure::worker
