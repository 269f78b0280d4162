// A generator whose conversations are stored, and machines that begin anew with what is stored.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/worker/cache_fixture.h"
#include "tests/worker/memory_persistence.h"

namespace perdure::worker {

// "<user>content<end>" for a question, "content<end>" for an answer: it stands as it was drawn.
class SpeechTemplate : public text::ChatTemplate {
 public:
  Result<text::RenderedPrompt> Render(const Json& context, const std::vector<std::string>&,
                                      const text::TemplateTime&) const override {
    text::RenderedPrompt prompt;
    for (const Json& message : context["messages"]) {
      if (message["role"] != "assistant") prompt.text += "<user>";
      prompt.text += message["content"].get<std::string>() + "<end>";
    }
    return prompt;
  }
};

class SnapshotTest : public CacheTest {
 protected:
  SnapshotTest() {
    options_.persistence = &disk_;
    options_.stored_bytes_max = uint64_t{1} << 30;
    options_.fingerprint = 0xf1;
    options_.numerics = 0xf2;
    adapt_model_ = [](Model* model) {
      model->chat.templates[0].chat = std::make_unique<SpeechTemplate>();
    };
  }
  ~SnapshotTest() override { generator_.reset(); }

  // --- Machines ---

  void TakeStored() {
    options_.stored_conversations = disk_.Conversations();
    options_.stored_pages = disk_.Pages();
  }
  void Boot(PageIndex pages, uint32_t conversations = 20) {
    TakeStored();
    StartWith(pages, conversations);
  }
  // Memory is lost, and what was not done on the disk.
  void Reboot() {
    generator_.reset();
    disk_.Crash();
    Boot(pages_);
    computed_ = 0;
  }
  // A successor: memory is as it was.
  void DieWithDisk(size_t turn_jobs_done = 0, size_t page_jobs_done = 0) {
    disk_.Crash(turn_jobs_done, page_jobs_done);
    TakeStored();
    Die();
    computed_ = 0;
  }

  // --- Time ---

  void Steps() {
    for (int i = 0; i < 100'000 && generator_->HasWork(); ++i) {
      clock_us += 1000;
      generator_->Step();
    }
    EXPECT_FALSE(generator_->HasWork());
  }
  void Deliver() {
    disk_.DoAll();
    generator_->TakeAnswers();
  }
  void DeliverTurn() {
    EXPECT_TRUE(disk_.DoTurnJob());
    generator_->TakeAnswers();
  }
  void DeliverPage() {
    EXPECT_TRUE(disk_.DoPageJob());
    generator_->TakeAnswers();
  }
  // Until nothing is left to be done, of requests, upkeep and disk.
  void Run() {
    for (int i = 0; i < 100'000; ++i) {
      clock_us += 1000;
      // A disk is slow, but gets on beside work, which may wait for it.
      if (generator_->HasWork() && (i % 100 != 99 || (disk_.jobs() == 0 && !disk_.has_answers()))) {
        generator_->Step();
      } else if (disk_.jobs() > 0 || disk_.has_answers()) {
        Deliver();
      } else if (generator_->HasUpkeep()) {
        generator_->Upkeep();
      } else {
        return;
      }
    }
    ADD_FAILURE() << "it does not come to an end";
  }

  // --- Requests ---

  protocol::RequestId Say(const protocol::Submit& submit) {
    EXPECT_TRUE(generator_->Submit(submit));
    Run();
    EXPECT_TRUE(HasEnded(submit.rid)) << "no answer to " << submit.rid;
    return submit.rid;
  }
  protocol::RequestId Say(const Ids& prompt, int answer, const CacheChoice& cache = {}) {
    return Say(Ask(prompt, answer, cache));
  }
  protocol::Submit AskIn(const std::string& id, const Ids& prompt, int answer,
                         const CacheChoice& cache = {}) {
    protocol::Submit submit = Ask(prompt, answer, cache);
    submit.request.conversation_id = id;
    return submit;
  }
  // Answers that a history repeats as they were drawn: letters alone.
  protocol::Submit AskChat(const Json& messages, int answer, const CacheChoice& cache = {}) {
    protocol::Submit submit = Ask({}, answer, cache);
    submit.request.prompt_ids.reset();
    submit.request.kind = protocol::RequestKind::kChat;
    submit.request.chat_json = Json({{"messages", messages}}).dump();
    submit.request.sampling.temperature = 0;
    return submit;
  }
  static Json Question(const std::string& text) { return {{"role", "user"}, {"content", text}}; }
  static std::string Letters(size_t count, int seed) {
    std::string text;
    for (const TokenId id : Text(count, seed)) text += static_cast<char>(id);
    return text;
  }
  // The history with the answer to it.
  Json Heard(Json messages, protocol::RequestId rid) {
    messages.push_back({{"role", "assistant"}, {"content", sink_[rid].choices[0].text}});
    return messages;
  }
  static Json With(Json messages, const Json& message) {
    messages.push_back(message);
    return messages;
  }

  bool HasEnded(protocol::RequestId rid, int choice = 0) {
    return sink_[rid].choices[choice].end.has_value();
  }
  bool Persisted(protocol::RequestId rid, int choice = 0) {
    EXPECT_TRUE(HasEnded(rid, choice));
    return HasEnded(rid, choice) && sink_[rid].choices[choice].end->persisted;
  }
  protocol::Usage UsageOf(protocol::RequestId rid, int choice = 0) {
    EXPECT_TRUE(HasEnded(rid, choice));
    if (!HasEnded(rid, choice)) return {};
    const protocol::Usage usage = sink_[rid].choices[choice].end->usage;
    EXPECT_EQ(usage.from_arena + usage.from_snapshot + usage.computed, usage.prompt_tokens);
    return usage;
  }
  int FromDisk(protocol::RequestId rid, int choice = 0) {
    return UsageOf(rid, choice).from_snapshot;
  }

  // Without cache and disk.
  Ids Cold(protocol::Submit submit, const CacheSchedule& schedule) {
    if (!submit.request.prompt_ids)
      submit.request.prompt_ids = sink_[submit.rid].accepted->prompt_ids;
    GeneratorOptions options = options_;
    options_.persistence = nullptr;
    options_.stored_conversations.clear();
    options_.stored_pages.clear();
    Ids answer = CacheTest::Cold(submit, schedule);
    options_ = std::move(options);
    return answer;
  }
  Ids Cold(const protocol::Submit& submit) { return Cold(submit, Ticket(submit.rid).cache); }

  // --- What is left ---

  const auto& Conversations() const { return generator_->conversations().all(); }
  int Running() const {
    int running = 0;
    for (const auto& conversation : Conversations()) running += conversation->running;
    return running;
  }
  void ExpectNothingHeld() {
    EXPECT_EQ(generator_->live(), 0u);
    EXPECT_EQ(store_->referenced(), 0u);
    EXPECT_EQ(Running(), 0);
  }
  // Without conversations nothing needs a page: a claim or a reference too many would keep it.
  void ExpectNothingLeft() {
    EXPECT_EQ(generator_->live(), 0u);
    EXPECT_EQ(Running(), 0);
    protocol::CacheCommand command;
    command.operation = protocol::CacheOperation::kClear;
    generator_->Command(command);
    EXPECT_EQ(Conversations().size(), 0u);
    EXPECT_EQ(store_->referenced(), 0u);
    EXPECT_EQ(store_->used(), 0u);
    EXPECT_EQ(store_->hollow(), 0u);
  }

  MemoryPersistence disk_;
};

}  // namespace perdure::worker
