// Whom what is cached is of use to: conversations as clients have them, edited, named, several at
// once, of several tenants.
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/worker/cache_fixture.h"
#include "tests/worker/pair_tokenizer.h"

namespace perdure::worker {
namespace {

// "<user>content<end>" for a question, "content<end>" for an answer: it stands as it was drawn.
class TurnTemplate : public text::ChatTemplate {
 public:
  Result<text::RenderedPrompt> Render(const Json& context, const std::vector<std::string>&,
                                      const text::TemplateTime&) const override {
    text::RenderedPrompt prompt;
    for (const Json& message : context["messages"]) {
      if (message["role"] == "user") prompt.text += "<user>";
      prompt.text += message["content"].get<std::string>() + "<end>";
    }
    return prompt;
  }
};

class GeneratorConversationsTest : public CacheTest {
 protected:
  protocol::Submit AskAs(const std::string& tenant, const Ids& prompt, int answer) {
    protocol::Submit submit = Ask(prompt, answer);
    submit.request.tenant = tenant;
    return submit;
  }
  protocol::Submit AskChat(const Json& messages, int answer) {
    protocol::Submit submit = Ask({}, answer);
    submit.request.prompt_ids.reset();
    submit.request.kind = protocol::RequestKind::kChat;
    submit.request.chat_json = Json({{"messages", messages}}).dump();
    return submit;
  }
  const auto& Conversations() const { return generator_->conversations().all(); }
};

// --- Histories ---------------------------------------------------------------------------------

TEST_F(GeneratorConversationsTest, AnEditedHistoryIsOfUseUpToTheEdit) {
  StartWith(64);
  Ids history = History(Say(Text(100, 1), 40));
  history[70] = '!';
  const auto edited = Ask(history + Text(20, 2), 20);
  Say(edited);
  EXPECT_EQ(Cached(edited.rid), 70);
  EXPECT_EQ(Answer(edited.rid), Cold(edited, {}));
}

TEST_F(GeneratorConversationsTest, AnAnswerThatIsAskedForAgainIsComputedFromTheQuestion) {
  StartWith(64);
  const Ids prompt = Text(100, 1);
  Say(prompt, 40);
  auto again = Ask(prompt, 40);
  again.request.seed = 99;
  Say(again);
  EXPECT_EQ(Cached(again.rid), 99);
  EXPECT_EQ(Answer(again.rid), Cold(again, {}));
  EXPECT_NE(Answer(again.rid), Answer(1));
}

TEST_F(GeneratorConversationsTest, AHistoryWithoutItsReasoningIsOfUseAsFarAsItAgrees) {
  adapt_model_ = [](Model* model) {
    model->chat.templates[0].chat = std::make_unique<TurnTemplate>();
  };
  StartWith(64);
  const std::string question(80, 'q'), answer = "Forty-two";
  const std::string thought = "<think>" + std::string(70, 'h') + "</think>\n\n";
  Json messages = {{{"role", "user"}, {"content", question}}};
  auto submit = AskChat(messages, static_cast<int>(thought.size() + answer.size()) + 1);
  Submit(submit);
  const protocol::Accepted accepted = *sink_[submit.rid].accepted;
  generator_->Cancel(submit.rid);
  // A predecessor has drawn all of the answer but its last token.
  submit.request.prompt_ids = accepted.prompt_ids;
  Ids drawn;
  for (const char c : thought + answer) drawn.push_back(c);
  const auto resume = Rest(submit, accepted.ticket, drawn);
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  RunAll();
  const std::string told = answer + sink_[submit.rid].choices[0].text;
  messages.push_back({{"role", "assistant"}, {"content", told}});
  messages.push_back({{"role", "user"}, {"content", "And how do you know?"}});
  const auto next = AskChat(messages, 10);
  Say(next);
  EXPECT_EQ(Ticket(next.rid).conversation_id, accepted.ticket.conversation_id);
  EXPECT_EQ(Cached(next.rid), static_cast<int>(accepted.prompt_ids.size()));
  // With the reasoning all of it is of use.
  messages[1]["content"] = thought + told;
  const auto whole = AskChat(messages, 10);
  Say(whole);
  EXPECT_GE(Cached(whole.rid), static_cast<int>(accepted.prompt_ids.size() + drawn.size()));
}

TEST_F(GeneratorConversationsTest, AnAnswerTokenizedOtherwiseIsFoundAsItWasDrawn) {
  model_options_.vocab_size = PairTokenizer::kVocabSize;
  adapt_model_ = [](Model* model) { model->tokenizer = std::make_unique<PairTokenizer>(); };
  StartWith(64);
  auto first = Completion(1, "tell me all that you know about the sea, and be quick.", 60);
  first.request.ignore_eos = true;
  Say(first);
  const Ids history = History(1);
  auto second = Completion(2, first.request.prompt + sink_[1].choices[0].text + " Why?", 20);
  second.request.ignore_eos = true;
  auto of_another = second;
  of_another.rid = 3;
  of_another.request.tenant = "another one";
  Say(second);
  const protocol::Accepted& accepted = *sink_[2].accepted;
  EXPECT_GT(accepted.spliced, 10);
  EXPECT_EQ(First(accepted.prompt_ids, history.size()), history);
  EXPECT_EQ(Cached(2), static_cast<int>(history.size()) - 1);
  second.request.prompt_ids = accepted.prompt_ids;
  EXPECT_EQ(Answer(2), Cold(second, {}));
  // Who does not know how it was drawn has other tokens.
  Say(of_another);
  EXPECT_EQ(sink_[3].accepted->spliced, 0);
  EXPECT_LT(sink_[3].accepted->prompt_ids.size(), accepted.prompt_ids.size());
}

TEST_F(GeneratorConversationsTest, TokensOfAClientsOwnStayAsTheyAre) {
  model_options_.vocab_size = PairTokenizer::kVocabSize;
  adapt_model_ = [](Model* model) { model->tokenizer = std::make_unique<PairTokenizer>(); };
  StartWith(64);
  auto first = Completion(1, "tell me all that you know about the sea, and be quick.", 60);
  first.request.ignore_eos = true;
  Say(first);
  const std::string text = first.request.prompt + sink_[1].choices[0].text + " Why?";
  auto second = Completion(2, "", 20);
  second.request.prompt_ids = *PairTokenizer().Encode(text, {});
  second.request.ignore_eos = true;
  Say(second);
  EXPECT_EQ(sink_[2].accepted->prompt_ids, *second.request.prompt_ids);
  EXPECT_EQ(sink_[2].accepted->spliced, 0);
  EXPECT_EQ(Answer(2), Cold(second, {}));
}

TEST_F(GeneratorConversationsTest, HowAnOldAnswerWasDrawnIsKnownAfterADeath) {
  model_options_.vocab_size = PairTokenizer::kVocabSize;
  adapt_model_ = [](Model* model) { model->tokenizer = std::make_unique<PairTokenizer>(); };
  StartWith(64);
  std::string text = "tell me all that you know about the sea, and be quick.";
  // Each turn ends within a page, which the next one fills.
  for (protocol::RequestId rid = 1; rid <= 2; ++rid) {
    auto submit = Completion(rid, text, 40);
    submit.request.ignore_eos = true;
    Say(submit);
    text += sink_[rid].choices[0].text + " Why?";
  }
  const Ids history = History(2);
  Die();
  auto third = Completion(3, text, 10);
  third.request.ignore_eos = true;
  Say(third);
  EXPECT_EQ(First(sink_[3].accepted->prompt_ids, history.size()), history);
  EXPECT_EQ(Cached(3), static_cast<int>(history.size()) - 1);
}

// The worker before has read the conversation from the disk, say, and left nothing of it in memory.
TEST_F(GeneratorConversationsTest, HowAnOldAnswerWasDrawnComesWithTheRequest) {
  model_options_.vocab_size = PairTokenizer::kVocabSize;
  adapt_model_ = [](Model* model) { model->tokenizer = std::make_unique<PairTokenizer>(); };
  StartWith(64);
  std::string text = "tell me all that you know about the sea, and be quick.";
  auto first = Completion(1, text, 40);
  first.request.ignore_eos = true;
  Say(first);
  text += sink_[1].choices[0].text + " Why?";
  auto second = Completion(2, text, 40);
  second.request.ignore_eos = true;
  Say(second);
  text += sink_[2].choices[0].text + " And?";
  const Ids history = History(2);
  const Ids prompt = sink_[2].accepted->prompt_ids;
  ASSERT_FALSE(Ticket(2).drawn.empty());

  protocol::Resume resume;
  resume.rid = 2;
  resume.request = second.request;
  resume.prompt_ids = prompt;
  resume.ticket = Ticket(2);
  resume.ticket.drawn.push_back(~uint64_t{0});  // more than there is
  resume.credit_bytes = second.credit_bytes;
  resume.choices.resize(1);
  sink_ = {};
  StartWith(64);
  Expect(&sink_, resume);
  ASSERT_TRUE(generator_->Resume(resume));
  while (generator_->HasWork()) generator_->Step();
  generator_->Release(2);
  EXPECT_EQ(History(2), history);
  auto third = Completion(3, text, 10);
  third.request.ignore_eos = true;
  Say(third);
  EXPECT_EQ(First(sink_[3].accepted->prompt_ids, history.size()), history);
}

TEST_F(GeneratorConversationsTest, EveryChoiceCanBeGoneOnWith) {
  StartWith(128);
  auto submit = Ask(Text(100, 1), 40);
  submit.request.choices = 3;
  Say(submit);
  EXPECT_EQ(Cached(submit.rid, 0), 0);
  EXPECT_EQ(Cached(submit.rid, 1), 99) << "the prompt is computed once";
  EXPECT_EQ(Cached(submit.rid, 2), 99);
  ASSERT_EQ(Conversations().size(), 3u);
  for (int choice = 2; choice >= 0; --choice) {
    const auto next = Ask(History(submit.rid, choice) + Text(20, 2), 20);
    Say(next);
    EXPECT_EQ(Cached(next.rid), 139) << "choice " << choice;
    const std::string id = Ticket(submit.rid).conversation_id;
    EXPECT_EQ(Ticket(next.rid).conversation_id,
              choice == 0 ? id : id + "_" + std::to_string(choice));
    EXPECT_EQ(Answer(next.rid), Cold(next, {}));
  }
  EXPECT_EQ(Conversations().size(), 3u);
}

// --- Settings ----------------------------------------------------------------------------------

TEST_F(GeneratorConversationsTest, DisabledNothingIsKept) {
  options_.conversations.enabled = false;
  StartWith(64);
  const auto first = Say(Text(100, 1), 40);
  EXPECT_EQ(Ticket(first).conversation_id, "");
  EXPECT_EQ(store_->used(), 0u);
  const auto second = Say(History(first) + Text(20, 2), 20);
  EXPECT_EQ(Cached(second), 0);
  EXPECT_EQ(Conversations().size(), 0u);
  // Nor are two that run side by side of use to each other.
  const Ids prompt = Text(100, 3);
  const auto one = Ask(prompt, 20), two = Ask(prompt, 20);
  Submit(one);
  Submit(two);
  RunAll();
  EXPECT_EQ(Cached(one.rid) + Cached(two.rid), 0);
}

TEST_F(GeneratorConversationsTest, DisabledNothingIsKeptOfWhatEndsOtherwise) {
  options_.conversations.enabled = false;
  StartWith(64);
  auto rotating = Ask(Text(100, 1), 200, Rotating(69, 5));
  Say(rotating);
  EXPECT_EQ(store_->used() + store_->hollow(), 0u);
  auto several = Ask(Text(100, 2), 20);
  several.request.choices = 3;
  Say(several);
  EXPECT_EQ(store_->used() + store_->hollow(), 0u);
  const auto cancelled = Ask(Text(200, 3), 100);
  Submit(cancelled);
  for (int i = 0; i < 10; ++i) generator_->Step();
  generator_->Cancel(cancelled.rid);
  EXPECT_EQ(store_->used() + store_->hollow(), 0u);
}

TEST_F(GeneratorConversationsTest, DisabledWhatAllShareIsKept) {
  const Ids system = Text(70, 1);
  options_.shared_prefixes = {system};
  options_.conversations.enabled = false;
  StartWith(64);
  Say(system + Text(60, 2), 20);
  EXPECT_EQ(store_->used(), 2u);
  EXPECT_EQ(Cached(Say(system + Text(60, 3), 20)), 2 * kPage);
}

TEST_F(GeneratorConversationsTest, WithoutDetectionOnlyNamedConversationsAreRemembered) {
  options_.conversations.auto_detect = false;
  StartWith(64);
  const auto first = Say(Text(100, 1), 40);
  EXPECT_EQ(Ticket(first).conversation_id, "");
  EXPECT_EQ(Conversations().size(), 0u);
  const auto second = Say(History(first) + Text(20, 2), 20);
  EXPECT_EQ(Cached(second), 139) << "what is found is a matter of tokens";
  auto named = Ask(Text(100, 3), 20, Quantized(8));
  named.request.conversation_id = "mine";
  Say(named);
  ASSERT_EQ(Conversations().size(), 1u);
  EXPECT_EQ(Conversations()[0]->id, "mine");
  auto next = Ask(History(named.rid) + Text(20, 2), 20);
  next.request.conversation_id = "mine";
  Say(next);
  EXPECT_EQ(Ticket(next.rid).cache.type, "quantized_kv");
  EXPECT_EQ(Cached(next.rid), 119);
}

TEST_F(GeneratorConversationsTest, AnIdleConversationLeavesNothing) {
  options_.conversations.idle_timeout_s = 60;
  StartWith(64);
  const Ids history = History(Say(Text(100, 1), 40, OfType("concatenate_kv")));
  now_ms_ += 60'001;
  clock_us += 60'001'000;
  generator_->Tick();
  EXPECT_EQ(Conversations().size(), 0u);
  EXPECT_EQ(store_->used(), 0u);
  EXPECT_EQ(Cached(Say(history + Text(20, 2), 20)), 0);
}

TEST_F(GeneratorConversationsTest, ARequestThatWaitsKeepsItsConversation) {
  options_.conversations.idle_timeout_s = 60;
  StartWith(64);
  const auto first = Say(Text(100, 1), 40);
  const auto next = Ask(History(first) + Text(20, 2), 20);
  Submit(next);
  now_ms_ += 100'000;
  clock_us += 100'000'000;
  generator_->Tick();
  EXPECT_EQ(Conversations().size(), 1u);
  RunAll();
  EXPECT_EQ(Cached(next.rid), 139);
  ASSERT_EQ(Conversations().size(), 1u);
  EXPECT_EQ(Conversations()[0]->turns, 2u);
}

TEST_F(GeneratorConversationsTest, ACancelledRequestLeavesItsConversationAsItWas) {
  StartWith(64);
  const auto first = Say(Text(100, 1), 40);
  const auto next = Ask(History(first) + Text(20, 2), 20);
  Submit(next);
  for (int i = 0; i < 10; ++i) generator_->Step();
  generator_->Cancel(next.rid);
  ASSERT_EQ(Conversations().size(), 1u);
  EXPECT_EQ(Conversations()[0]->turns, 1u);
  EXPECT_EQ(Conversations()[0]->running, 0);
  EXPECT_EQ(Conversations()[0]->ids, History(first));
  const auto again = Say(History(first) + Text(20, 2), 20);
  EXPECT_EQ(Cached(again), 159) << "what was computed of it is of use";
}

TEST_F(GeneratorConversationsTest, OfTwoThatGoOnAtOnceTheLaterOneIsToldThatItIsABranch) {
  StartWith(64);
  const auto first = Say(Text(100, 1), 40);
  const auto one = Ask(History(first) + Text(20, 2), 20);
  const auto other = Ask(History(first) + Text(20, 3), 20);
  Submit(one);
  Submit(other);
  RunAll();
  EXPECT_EQ(Ticket(one.rid).conversation_id, Ticket(first).conversation_id);
  EXPECT_NE(Ticket(other.rid).conversation_id, Ticket(first).conversation_id);
  EXPECT_EQ(Cached(other.rid), 139) << "what they have in common is of use to both";
  for (const auto& told : {one.rid, other.rid}) {
    const auto& id = Ticket(told).conversation_id;
    const auto next = Say(History(told) + Text(20, 4), 20);
    EXPECT_EQ(Ticket(next).conversation_id, id) << "as it was told";
  }
  EXPECT_EQ(Conversations().size(), 2u);
}

// --- Tenants -----------------------------------------------------------------------------------

TEST_F(GeneratorConversationsTest, TenantsShareNothing) {
  StartWith(64);
  const auto first = AskAs("one", Text(100, 1), 40);
  Say(first);
  const size_t pages = store_->used();
  const auto other = AskAs("other", Text(100, 1), 40);
  Say(other);
  EXPECT_EQ(Cached(other.rid), 0);
  EXPECT_EQ(store_->used(), 2 * pages) << "a copy each";
  EXPECT_EQ(Answer(other.rid), Answer(first.rid));
  const auto thief = AskAs("third", History(first.rid) + Text(20, 2), 10);
  Say(thief);
  EXPECT_EQ(Cached(thief.rid), 0);
  EXPECT_NE(Ticket(thief.rid).conversation_id, Ticket(first.rid).conversation_id);
  // Not even by its id.
  auto named = AskAs("fourth", History(first.rid) + Text(20, 3), 10);
  named.request.conversation_id = Ticket(first.rid).conversation_id;
  Say(named);
  EXPECT_EQ(Cached(named.rid), 0);
  const auto own = AskAs("one", History(first.rid) + Text(20, 2), 10);
  Say(own);
  EXPECT_EQ(Cached(own.rid), 139);
}

TEST_F(GeneratorConversationsTest, SharedBeginningsAreSharedByAllTenants) {
  const Ids system = Text(70, 1);
  options_.shared_prefixes = {system};
  StartWith(64);
  const Ids prompt = system + Text(60, 2);
  Say(AskAs("one", prompt, 10));
  const size_t pages = store_->used();
  const auto other = AskAs("other", prompt, 10);
  Say(other);
  EXPECT_EQ(Cached(other.rid), 2 * kPage) << "the whole pages of the shared beginning alone";
  EXPECT_EQ(store_->used(), 2 * pages - 2);
  EXPECT_EQ(Answer(other.rid), Cold(other, {}));
  const auto third = AskAs("third", First(system, 40), 10);
  Say(third);
  EXPECT_EQ(Cached(third.rid), kPage) << "as much of it as the prompt has";
}

TEST_F(GeneratorConversationsTest, TenantsAreOthersAfterADeathToo) {
  StartWith(64);
  const auto first = AskAs("one", Text(100, 1), 40);
  Say(first);
  const Ids history = History(first.rid);
  Die();
  const auto other = AskAs("other", history + Text(20, 2), 10);
  Say(other);
  EXPECT_EQ(Cached(other.rid), 0);
  const auto own = AskAs("one", history + Text(20, 2), 10);
  Say(own);
  EXPECT_EQ(Cached(own.rid), 139);
}

}  // namespace
}  // namespace perdure::worker
