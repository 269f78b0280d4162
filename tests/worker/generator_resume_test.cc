// Answers that another worker began.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/worker/generator_fixture.h"

namespace perdure::worker {
namespace {

class GeneratorResumeTest : public GeneratorTest {
 protected:
  // As after a worker that had sent that much of `whole`.
  void Resume(const protocol::Resume& resume, const RecordedRequest& whole) {
    RecordedRequest& rest = sink_[resume.rid];
    rest.accepted = whole.accepted;
    for (size_t i = 0; i < resume.choices.size(); ++i) {
      const auto& so_far = resume.choices[i];
      if (so_far.ended) continue;
      RecordedChoice& choice = rest.choices[static_cast<int>(i)];
      choice.last_seq = so_far.last_seq;  // the sink expects the next one
      choice.ids = so_far.token_ids;
    }
    ASSERT_TRUE(generator_->Resume(resume));
  }
};

// What the frontend has of a request after it has received the first `events` events of each
// choice.
protocol::Resume ResumeAfter(const protocol::Submit& submit, const RecordedRequest& whole,
                             size_t events) {
  protocol::Resume resume;
  resume.rid = submit.rid;
  resume.request = submit.request;
  resume.prompt_ids = whole.accepted->prompt_ids;
  resume.ticket = whole.accepted->ticket;
  resume.credit_bytes = limits::kCreditBytes;
  for (const auto& [index, choice] : whole.choices) {
    const size_t echoes = choice.last_seq - choice.ids.size();
    const size_t got = std::min<size_t>(events, choice.last_seq);
    protocol::ChoiceSoFar so_far;
    so_far.last_seq = got;
    so_far.token_ids.assign(
        choice.ids.begin(),
        choice.ids.begin() + static_cast<ptrdiff_t>(got - std::min(got, echoes)));
    // Choices end one after the other; some ends have arrived and some have not.
    so_far.ended = events > choice.last_seq;
    if (so_far.ended) so_far.last_seq = choice.last_seq + 1;
    resume.choices.push_back(std::move(so_far));
  }
  return resume;
}

TEST_F(GeneratorResumeTest, AStreamGoesOnAfterAnyEventAsIfNothingHadHappened) {
  model_options_.eos_logit = -2.0f;
  for (int kind = 0; kind < 8; ++kind) {
    SCOPED_TRACE(testing::Message() << "kind " << kind);
    protocol::Submit submit = Completion(7, std::string(static_cast<size_t>(20 + 9 * kind), 'p'),
                                         40, static_cast<uint64_t>(kind));
    if (kind % 2 == 1) submit.request.stop = {"ab", "e", "xyz"};
    if (kind % 3 == 1) submit.request.echo = true;
    if (kind % 4 == 1) submit.request.choices = 3;
    if (kind == 7) submit.request.max_tokens = 0;
    if (kind % 3 != 1) submit.request.top_logprobs = kind % 3;
    Start();
    Submit(submit);
    RunAll();
    const RecordedRequest whole = sink_[7];
    uint64_t longest = 0;
    for (const auto& [index, choice] : whole.choices) longest = std::max(longest, choice.last_seq);
    for (uint64_t events = 0; events <= longest; ++events) {
      SCOPED_TRACE(testing::Message() << "after " << events << " events");
      Start();
      const protocol::Resume resume = ResumeAfter(submit, whole, events);
      Resume(resume, whole);
      RecordedRequest& rest = sink_[7];
      RunAll();
      for (const auto& [index, choice] : whole.choices) {
        if (resume.choices[static_cast<size_t>(index)].ended) {
          EXPECT_FALSE(rest.choices.contains(index)) << "nothing follows an end";
          continue;
        }
        const RecordedChoice& got = rest.choices[index];
        EXPECT_EQ(got.ids, choice.ids);
        EXPECT_TRUE(choice.text.ends_with(got.text));
        std::vector<std::string> told = BitsOf(choice.logprobs);
        const std::vector<std::string> told_now = BitsOf(got.logprobs);
        ASSERT_LE(told_now.size(), told.size());
        told.erase(told.begin(), told.end() - static_cast<ptrdiff_t>(told_now.size()));
        EXPECT_EQ(told_now, told);
        ASSERT_TRUE(got.end);
        EXPECT_EQ(got.end->seq, choice.end->seq);
        EXPECT_EQ(got.end->reason, choice.end->reason);
        EXPECT_EQ(got.end->usage.completion_tokens, choice.end->usage.completion_tokens);
      }
      EXPECT_EQ(generator_->live(), 0u);
      if (HasFailure()) return;
    }
  }
}

// Where nothing is left of the cache, one choice computes the prompt for all.
TEST_F(GeneratorResumeTest, APromptIsComputedOnce) {
  size_t computed = 0;
  model_options_.on_step = [&](std::span<const engine::SequenceStep> sequences) {
    for (const engine::SequenceStep& step : sequences) computed += step.tokens.size();
  };
  Start();
  protocol::Submit submit = Completion(1, std::string(3 * kPage + 5, 'p'), 4);
  submit.request.choices = 5;
  Submit(submit);
  RunAll();
  const RecordedRequest whole = sink_[1];
  Start();
  computed = 0;
  Resume(ResumeAfter(submit, whole, 1), whole);
  RunAll();
  // Of the others only the last token known; then two tokens of each.
  EXPECT_EQ(computed, 3 * kPage + 6 + 4 * 1 + 5 * 2);
  EXPECT_EQ(generator_->live(), 0u);
}

TEST_F(GeneratorResumeTest, ASuspectIsComputedAloneUntilItHasPassed) {
  std::vector<std::vector<size_t>> steps;  // how many sequences, and the manifest's size
  std::vector<protocol::RequestId> alone;
  model_options_.on_step = [&](std::span<const engine::SequenceStep> sequences) {
    const shm::LastWords words = shm::ReadLastWords(*status_);
    steps.push_back({sequences.size(), words.step_rids.size()});
    if (words.step_rids.size() == 1) alone.push_back(words.step_rids[0]);
  };
  Start();
  const protocol::Submit innocent = Completion(1, "innocent", 30);
  protocol::Submit suspect = Completion(2, std::string(150, 's'), 30);
  suspect.suspect = true;
  Submit(innocent);
  Submit(suspect);
  EXPECT_TRUE(sink_.cleared.empty());
  while (sink_.cleared.empty() && generator_->HasWork()) {
    steps.clear();
    generator_->Step();
    ASSERT_EQ(steps.size(), 1u);
    EXPECT_EQ(steps[0][0], 1u);
    EXPECT_EQ(steps[0][1], 1u);
  }
  EXPECT_EQ(sink_.cleared, (std::vector<protocol::RequestId>{2}));
  EXPECT_EQ(alone.back(), 2u);
  EXPECT_FALSE(sink_[1].choices[0].ids.empty()) << "others go on in between";
  steps.clear();
  generator_->Step();
  EXPECT_EQ(steps[0][0], 2u) << "and then it is one of them";
  RunAll();
  EXPECT_EQ(sink_.cleared.size(), 1u);
}

// What stands in the manifest while an event is sent.
class WatchingSink final : public RecordingSink {
 public:
  explicit WatchingSink(const shm::StatusShm* status) : status_(status) {}
  using RecordingSink::Send;
  void Send(const protocol::Event& message) override {
    suspects.push_back(shm::ReadLastWords(*status_).step_rids);
    RecordingSink::Send(message);
  }
  std::vector<std::vector<uint64_t>> suspects;

 private:
  const shm::StatusShm* const status_;
};

TEST_F(GeneratorResumeTest, IsASuspectAlsoWhileItsAnswerIsFoldedAgain) {
  Start();
  WatchingSink sink(&*status_);
  GeneratorOptions options;
  options.admission.max_context = model_options_.max_context;
  options.scheduler = {8, 64, limits::kSequencesMax};
  options.now_us = [] { return clock_us; };
  Generator generator(&fake_.model, options, store_.get(), &*status_, &sink);
  protocol::Resume resume;
  resume.rid = 5;
  resume.prompt_ids = {'a', 'b'};
  resume.request = Completion(5, "ab", 3).request;
  resume.request.echo = true;
  resume.credit_bytes = 1000;
  resume.choices.resize(1);
  sink[5].accepted.emplace();
  ASSERT_TRUE(generator.Resume(resume));
  EXPECT_EQ(sink.suspects, (std::vector<std::vector<uint64_t>>{{5}}));
  EXPECT_TRUE(shm::ReadLastWords(*status_).step_rids.empty());
}

TEST_F(GeneratorResumeTest, RefusesToGoOnWithWhatIsNotItsOwn) {
  Start();
  protocol::Resume resume;
  resume.rid = 5;
  resume.prompt_ids = {'a'};
  resume.request.kind = protocol::RequestKind::kCompletion;
  EXPECT_FALSE(generator_->Resume(resume)) << "no choices";
  resume.choices.resize(1);
  resume.choices[0].token_ids = {'b', 9999};
  resume.choices[0].last_seq = 2;
  ASSERT_TRUE(generator_->Resume(resume));
  ExpectFailed(5, ErrorCode::worker_lost, "");
  resume.rid = 6;
  resume.choices[0].token_ids.clear();
  resume.prompt_ids.assign(600, 'a');
  ASSERT_TRUE(generator_->Resume(resume));
  ExpectFailed(6, ErrorCode::context_length_exceeded, "prompt");
  Submit(Completion(7, "x", 5));
  resume.rid = 7;
  EXPECT_FALSE(generator_->Resume(resume)) << "the id is in use";
}

TEST_F(GeneratorResumeTest, ASmallerContextEndsAnAnswerWhereItIs) {
  model_options_.max_context = 16;
  Start();
  protocol::Resume resume;
  resume.rid = 5;
  resume.prompt_ids = {'a', 'b'};
  resume.request.kind = protocol::RequestKind::kCompletion;
  resume.request.ignore_eos = true;
  resume.credit_bytes = 1000;
  resume.choices.resize(1);
  resume.choices[0].token_ids.assign(50, 'c');
  resume.choices[0].last_seq = 50;
  sink_[5].choices[0].last_seq = 50;
  sink_[5].choices[0].ids.assign(14, 'c');
  ASSERT_TRUE(generator_->Resume(resume));
  RunAll();
  ASSERT_TRUE(sink_[5].choices[0].end);
  EXPECT_EQ(sink_[5].choices[0].end->seq, 51u);
  EXPECT_EQ(sink_[5].choices[0].end->reason, protocol::FinishReason::kLength);
}

TEST_F(GeneratorResumeTest, AStreamThatHadBegunComesBeforeThoseThatWaited) {
  Start();
  const protocol::Submit submit = Completion(7, "a stream", 8);
  Submit(submit);
  RunAll();
  const RecordedRequest whole = sink_[7];
  Start(256, 1);
  for (protocol::RequestId rid = 1; rid <= 3; ++rid) Submit(Completion(rid, "waits", 5));
  protocol::Resume resume = ResumeAfter(submit, whole, 2);
  resume.choices[0].from_arena = 0;
  Resume(resume, whole);
  generator_->Step();
  EXPECT_GT(sink_[7].choices[0].last_seq, 2u);
  EXPECT_TRUE(sink_[1].choices[0].ids.empty());
  RunAll();
  EXPECT_EQ(sink_[7].choices[0].ids, whole.choices.at(0).ids);
  EXPECT_TRUE(sink_[3].choices[0].end);
}

}  // namespace
}  // namespace perdure::worker
