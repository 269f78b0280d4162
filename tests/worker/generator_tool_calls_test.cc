// Calls of tools by the built-in model, and by workers that go on in the middle of one.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/json.h"
#include "base/limits.h"
#include "shm/status.h"
#include "tests/worker/recording_sink.h"
#include "tests/worker/test_store.h"
#include "worker/generator.h"

namespace perdure::worker {
namespace {

constexpr char kAsked[] = R"({"messages": [{"role": "user", "content": "What is 17 plus 25?"}],
  "tools": [{"type": "function", "function": {"name": "add", "description": "Add two numbers",
  "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
  "required": ["a", "b"]}}}]})";

class GeneratorToolCallsTest : public testing::Test {
 protected:
  GeneratorToolCallsTest() {
    engine::EngineOptions options;
    options.threads = 1;
    model_ = LoadModel("nano", PERDURE_SOURCE_DIR "/models/nano", "", options).value();
    StartOver();
  }

  // As a new process would.
  void StartOver() {
    generator_.reset();
    GeneratorOptions options;
    options.admission.max_context = 512;
    options.scheduler = {4, 64, limits::kSequencesMax};
    options.slow_client_timeout_us = 1'000'000'000;
    options.now_us = &MonotonicUs;
    options.unix_ms = &UnixMs;
    store_ = MakeStore(model_.engine->info().kv, 64);
    sink_ = RecordingSink();
    generator_ = std::make_unique<Generator>(&model_, options, store_.get(), &*status_, &sink_);
  }
  protocol::GenerationRequest Asked() const {
    protocol::GenerationRequest request;
    request.kind = protocol::RequestKind::kChat;
    request.chat_json = kAsked;
    request.sampling.temperature = 0;
    request.max_tokens = 100;
    return request;
  }
  void RunAll() {
    while (generator_->HasWork()) generator_->Step();
  }

  Model model_;
  shm::StatusBlock status_ = shm::StatusBlock::Create().value();
  std::unique_ptr<shm::PageStore> store_;
  RecordingSink sink_;
  std::unique_ptr<Generator> generator_;
};

// What these events told, in its order, however it is divided.
std::string Told(const std::vector<protocol::Event>& events) {
  std::string told;
  protocol::AnswerPart last;
  const auto tell = [&](const protocol::AnswerPart& part) {
    if (part.kind != last.kind || part.call != last.call ||
        part.kind == protocol::PartKind::kCallBegin)
      told += "\n" + std::to_string(static_cast<int>(part.kind)) + "." + std::to_string(part.call) +
              ": ";
    told += part.text;
    last = part;
  };
  for (const protocol::Event& event : events) {
    if (!event.text.empty()) tell({protocol::PartKind::kContent, 0, event.text});
    for (const protocol::AnswerPart& part : event.parts) tell(part);
  }
  return told;
}

TEST_F(GeneratorToolCallsTest, ACallGoesOnTheSameFromEveryToken) {
  ASSERT_TRUE(generator_->Submit({1, Asked(), limits::kCreditBytes, false}));
  RunAll();
  const RecordedChoice whole = sink_[1].choices[0];
  ASSERT_TRUE(whole.end);
  EXPECT_EQ(whole.end->reason, protocol::FinishReason::kToolCalls);
  ASSERT_EQ(whole.said.calls.size(), 1u);
  EXPECT_EQ(whole.said.calls[0].name, "add");
  EXPECT_EQ(Json::parse(whole.said.calls[0].arguments), Json({{"a", 17}, {"b", 25}}));
  EXPECT_EQ(whole.said.content, "");

  const protocol::Accepted accepted = *sink_[1].accepted;
  for (size_t known = 0; known <= whole.ids.size(); ++known) {
    StartOver();
    protocol::Resume resume;
    resume.rid = 1;
    resume.request = Asked();
    resume.prompt_ids = accepted.prompt_ids;
    resume.ticket = accepted.ticket;
    resume.choices.resize(1);
    resume.choices[0].last_seq = known;
    const auto end = whole.ids.begin() + static_cast<ptrdiff_t>(known);
    resume.choices[0].token_ids.assign(whole.ids.begin(), end);
    resume.credit_bytes = limits::kCreditBytes;
    sink_.Continue(1, accepted, resume.choices[0]);
    ASSERT_TRUE(generator_->Resume(resume));
    RunAll();
    const RecordedChoice& rest = sink_[1].choices[0];
    EXPECT_EQ(rest.ids, whole.ids) << known;
    std::vector<protocol::Event> events(whole.events.begin(),
                                        whole.events.begin() + static_cast<ptrdiff_t>(known));
    events.insert(events.end(), rest.events.begin(), rest.events.end());
    EXPECT_EQ(Told(events), Told(whole.events)) << known;
    ASSERT_TRUE(rest.end) << known;
    EXPECT_EQ(rest.end->reason, protocol::FinishReason::kToolCalls) << known;
  }
}

TEST_F(GeneratorToolCallsTest, WithoutToolsTheSameMarkupIsContent) {
  protocol::GenerationRequest request = Asked();
  request.chat_json = R"({"messages": [{"role": "user", "content": "What is 17 plus 25?"}]})";
  ASSERT_TRUE(generator_->Submit({1, request, limits::kCreditBytes, false}));
  RunAll();
  ASSERT_TRUE(sink_[1].choices[0].end);
  EXPECT_EQ(sink_[1].choices[0].end->reason, protocol::FinishReason::kStop);
  EXPECT_TRUE(sink_[1].choices[0].said.calls.empty());
  EXPECT_FALSE(sink_[1].choices[0].said.content.empty());
}

TEST_F(GeneratorToolCallsTest, AFormatThatIsToldGoesBeforeTheOneThatIsFound) {
  EXPECT_EQ(model_.chat_forms[0].tools, text::ToolFormat::kHermes);
  ASSERT_TRUE(FindChatForms(&model_, "none"));
  EXPECT_EQ(model_.chat_forms[0].tools, text::ToolFormat::kNone);
  EXPECT_FALSE(FindChatForms(&model_, "telepathy"));
}

}  // namespace
}  // namespace perdure::worker
