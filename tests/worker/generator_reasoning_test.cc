// Answers that begin with reasoning: what is told apart, how it is bounded, and that a worker which
// goes on with one reads it as the one before has.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/worker/generator_fixture.h"
#include "worker/said_answer.h"

namespace perdure::worker {
namespace {

constexpr char kHello[] = R"({"messages":[{"role":"user","content":"hello"}]})";

class GeneratorReasoningTest : public GeneratorTest {
 protected:
  GeneratorReasoningTest() {
    model_options_.eos_logit = -100;
    // The template's prompts end with the opening tag; the closing one is never drawn by chance.
    adapt_model_ = [](Model* model) {
      model->chat_forms[0].reasoning = {.open = "<end>", .close = "[/]"};
    };
  }

  protocol::Submit Asked(protocol::RequestId rid, std::optional<int> bound) {
    protocol::Submit submit = Chat(rid, kHello, 40);
    submit.request.reasoning_tokens_max = bound;
    return submit;
  }
  const RecordedChoice& Answer(protocol::RequestId rid) { return sink_[rid].choices[0]; }
};

TEST_F(GeneratorReasoningTest, WithoutABoundItGoesOn) {
  Start();
  Submit(Asked(1, std::nullopt));
  RunAll();
  const RecordedChoice& answer = Answer(1);
  ASSERT_TRUE(answer.end);
  EXPECT_EQ(answer.said.content, "");
  EXPECT_FALSE(answer.said.reasoning.empty());
  EXPECT_EQ(answer.end->usage.reasoning_tokens, answer.end->usage.completion_tokens);
}

TEST_F(GeneratorReasoningTest, ABoundClosesItAndContentFollows) {
  Start();
  Submit(Asked(1, std::nullopt));
  Submit(Asked(2, 7));
  Submit(Asked(3, 0));
  RunAll();
  const std::string free = Answer(1).said.reasoning;
  const RecordedChoice& bounded = Answer(2);
  ASSERT_TRUE(bounded.end);
  EXPECT_FALSE(bounded.said.content.empty());
  // What it thought until then is what it would have thought.
  EXPECT_TRUE(free.starts_with(bounded.said.reasoning)) << free << "\n" << bounded.said.reasoning;
  EXPECT_EQ(bounded.said.content.find("[/]"), std::string::npos);
  // Its line break and tag count: "\n[/]\n\n" has four tokens up to the tag's end.
  EXPECT_EQ(bounded.end->usage.reasoning_tokens, 7 + 4);
  EXPECT_EQ(bounded.end->usage.completion_tokens, 40);
  const RecordedChoice& none = Answer(3);
  EXPECT_LE(none.said.reasoning.size(), 1u);
  EXPECT_FALSE(none.said.content.empty());
}

TEST_F(GeneratorReasoningTest, GoesOnTheSameFromEveryToken) {
  Start();
  Submit(Asked(1, 7));
  RunAll();
  const RecordedChoice whole = Answer(1);
  const protocol::Accepted accepted = *sink_[1].accepted;
  for (size_t known = 0; known < whole.ids.size(); ++known) {
    Start();
    protocol::Resume resume;
    resume.rid = 1;
    resume.request = Asked(1, 7).request;
    resume.prompt_ids = accepted.prompt_ids;
    resume.ticket = accepted.ticket;
    resume.choices.resize(1);
    resume.choices[0].last_seq = known;
    resume.choices[0].token_ids.assign(whole.ids.begin(),
                                       whole.ids.begin() + static_cast<ptrdiff_t>(known));
    resume.credit_bytes = limits::kCreditBytes;
    sink_.Continue(1, accepted, resume.choices[0]);
    ASSERT_TRUE(generator_->Resume(resume));
    RunAll();
    const RecordedChoice& rest = Answer(1);
    EXPECT_EQ(rest.ids, whole.ids) << known;
    EXPECT_TRUE(whole.said.content.ends_with(rest.said.content)) << known;
    EXPECT_TRUE(whole.said.reasoning.ends_with(rest.said.reasoning)) << known;
    ASSERT_TRUE(rest.end) << known;
    EXPECT_EQ(rest.end->usage.reasoning_tokens, 7 + 4) << known;
  }
}

TEST_F(GeneratorReasoningTest, AFormThatThereIsNotIsABreachOfTheProtocol) {
  Start();
  protocol::Resume resume;
  resume.rid = 1;
  resume.request = Asked(1, 7).request;
  resume.prompt_ids = {1, 2, 3};
  resume.choices.resize(1);
  resume.ticket.form.tool_format = 77;
  EXPECT_FALSE(generator_->Resume(resume));
}

}  // namespace
}  // namespace perdure::worker
