// Several answers to one request, and the logprobs of their tokens.
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

class GeneratorChoicesTest : public GeneratorTest {};

TEST_F(GeneratorChoicesTest, SeveralChoicesDifferAndTheFirstIsTheOnlyOnes) {
  Start();
  Submit(Completion(1, "hello", 30));
  protocol::Submit submit = Completion(2, "hello", 30);
  submit.request.choices = 3;
  Submit(submit);
  RunAll();
  ASSERT_EQ(sink_[2].choices.size(), 3u);
  EXPECT_EQ(sink_[2].choices[0].ids, sink_[1].choices[0].ids);
  EXPECT_NE(sink_[2].choices[0].ids, sink_[2].choices[1].ids);
  EXPECT_NE(sink_[2].choices[1].ids, sink_[2].choices[2].ids);
  for (const auto& [index, choice] : sink_[2].choices) EXPECT_TRUE(choice.end);
  EXPECT_EQ(generator_->live(), 0u);
}

// One computes the prompt, and the others find it in the cache.
TEST_F(GeneratorChoicesTest, APromptIsComputedOnce) {
  size_t computed = 0;
  model_options_.on_step = [&](std::span<const engine::SequenceStep> sequences) {
    for (const engine::SequenceStep& step : sequences) computed += step.tokens.size();
  };
  Start();
  const std::string prompt(3 * kPage + 5, 'p');
  protocol::Submit submit = Completion(1, prompt, 4);
  submit.request.choices = 5;
  Submit(submit);
  RunAll();
  // The others compute the prompt's last token, and all their own tokens but the last.
  EXPECT_EQ(computed, prompt.size() + 4 * 1 + 5 * 3);
  ASSERT_EQ(sink_[1].choices.size(), 5u);
  for (const auto& [index, choice] : sink_[1].choices) EXPECT_EQ(choice.ids.size(), 4u);
  EXPECT_EQ(sink_[1].choices[4].end->usage.from_arena, 3 * kPage + 4);
}

TEST_F(GeneratorChoicesTest, TellsLogprobsWhereTheyAreWanted) {
  Start();
  protocol::Submit submit = Completion(1, "hello", 30);
  submit.request.top_logprobs = 3;
  Submit(submit);
  submit.rid = 2;
  submit.request.top_logprobs = 0;
  Submit(submit);
  Submit(Completion(3, "hello", 30));
  RunAll();
  const RecordedChoice& with = sink_[1].choices[0];
  const RecordedChoice& own = sink_[2].choices[0];
  ASSERT_EQ(with.logprobs.size(), 30u);
  ASSERT_EQ(own.logprobs.size(), 30u);
  EXPECT_TRUE(sink_[3].choices[0].logprobs.empty());
  EXPECT_EQ(sink_[3].choices[0].tokens_out, 0u);
  EXPECT_EQ(with.ids, sink_[3].choices[0].ids);
  EXPECT_EQ(with.tokens_out, 30u);
  const auto drawn = generator_->answer(1, 0)->logprobs;
  bool other_than_likeliest = false;
  for (size_t i = 0; i < 30; ++i) {
    const protocol::TokenLogprobs& told = with.logprobs[i];
    EXPECT_EQ(told.token.logprob, drawn[i]);
    EXPECT_EQ(told.token.bytes, std::string(1, static_cast<char>(with.ids[i])));
    EXPECT_FALSE(told.token.special);
    EXPECT_EQ(told.text_offset, i);
    ASSERT_EQ(told.top.size(), 3u);
    EXPECT_GE(told.top[0].logprob, told.top[1].logprob);
    EXPECT_GE(told.top[1].logprob, told.top[2].logprob);
    EXPECT_GE(told.top[0].logprob, told.token.logprob);
    if (told.top[0].bytes == told.token.bytes) {
      EXPECT_EQ(told.top[0].logprob, told.token.logprob);
    } else {
      other_than_likeliest = true;
    }
    EXPECT_TRUE(own.logprobs[i].top.empty());
    EXPECT_EQ(own.logprobs[i].token.logprob, drawn[i]);
  }
  EXPECT_TRUE(other_than_likeliest);
}

TEST_F(GeneratorChoicesTest, AnEndTokenIsNoPartOfTheLogprobs) {
  model_options_.eos_logit = 10.0f;
  Start();
  protocol::Submit submit = Completion(1, "hello", 50);
  submit.request.top_logprobs = 1;
  Submit(submit);
  submit.rid = 2;
  submit.request.ignore_eos = true;
  Submit(submit);
  RunAll();
  const RecordedChoice& answer = sink_[1].choices[0];
  EXPECT_EQ(answer.ids.back(), model_options_.eos);
  EXPECT_EQ(answer.tokens_out + 1, answer.ids.size());
  const RecordedChoice& on = sink_[2].choices[0];
  EXPECT_EQ(on.tokens_out, 50u);
  const protocol::TokenLogprob& end = on.logprobs[answer.ids.size() - 1].token;
  EXPECT_TRUE(end.special);
  EXPECT_EQ(end.bytes, "<eos>");
}

TEST_F(GeneratorChoicesTest, AFirstTokensLogprobsAreOfATextOfItsOwn) {
  model_options_.first_mark = "^";
  Start();
  protocol::Submit submit = Chat(1, R"({"messages":[{"role":"user","content":"a"}]})", 5);
  submit.request.top_logprobs = 1;
  Submit(submit);
  RunAll();
  std::string text;
  for (const protocol::TokenLogprobs& token : sink_[1].choices[0].logprobs) {
    EXPECT_EQ(token.top[0].bytes.starts_with('^'), text.empty());
    text += token.token.bytes;
  }
  EXPECT_EQ(text, sink_[1].choices[0].text);
}

TEST_F(GeneratorChoicesTest, AnEventWithAllAlternativesIsSmall) {
  Start();
  protocol::Submit submit = Completion(1, "hello", 10);
  submit.request.top_logprobs = limits::kTopLogprobsMax;
  Submit(submit);
  RunAll();
  const RecordedChoice& answer = sink_[1].choices[0];
  EXPECT_EQ(answer.logprobs[0].top.size(), 20u);
  EXPECT_LT(answer.payload_bytes / 10, 400u);
  // The largest there can be fits a window.
  static_assert((limits::kTopLogprobsMax + 1) * (limits::kLogprobBytesMax + 16) +
                    limits::kTokenBytesMax + limits::kStopStringBytesMax + 64 <
                limits::kCreditBytes);
}

}  // namespace
}  // namespace perdure::worker
