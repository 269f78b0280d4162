// Tokens to the parts of an answer, with the built-in model's tokenizer.
#include "text/chat/answer_fold.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace perdure::text {
namespace {

class AnswerFoldTest : public testing::Test {
 protected:
  AnswerFoldTest() : tokenizer_(Tokenizer::Load(PERDURE_SOURCE_DIR "/models/nano").value()) {}

  std::vector<TokenId> Ids(const std::string& text) const { return *tokenizer_->Encode(text); }
  AnswerSettings Settings() const {
    AnswerSettings settings;
    settings.output.eos_ids = {*tokenizer_->IdOf("<|im_end|>")};
    settings.chat = ChatParserSettings{};
    settings.chat->form = {ToolFormat::kHermes, {"<think>", "</think>"}};
    settings.chat->tools = {{"find", {}}};
    return settings;
  }

  struct Whole {
    std::string content, reasoning, calls;
    std::optional<AnswerFinish> finish;
  };
  static void Add(const AnswerStep& step, Whole* whole) {
    for (const ChatPiece& piece : step.pieces) {
      switch (piece.kind) {
        case ChatPiece::Kind::kContent:
          whole->content += piece.text;
          break;
        case ChatPiece::Kind::kReasoning:
          whole->reasoning += piece.text;
          break;
        case ChatPiece::Kind::kCallBegin:
          whole->calls += piece.text + "(";
          break;
        case ChatPiece::Kind::kCallArguments:
          whole->calls += piece.text;
          break;
        case ChatPiece::Kind::kCallEnd:
          whole->calls += piece.complete ? ")" : "!";
          break;
      }
    }
    whole->finish = step.finish;
  }
  Whole Fold(AnswerFold fold, const std::string& text) const {
    Whole whole;
    for (const TokenId id : Ids(text)) {
      EXPECT_FALSE(fold.finished());
      Add(fold.Push(id), &whole);
    }
    return whole;
  }
  Whole Fold(const AnswerSettings& settings, const std::string& text) const {
    return Fold(AnswerFold(tokenizer_.get(), settings), text);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

constexpr char kCall[] =
    "<think>\nHm.\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"find\", \"arguments\": {\"a\": "
    "1}}\n</tool_call><|im_end|>";

TEST_F(AnswerFoldTest, AnAnswerThatCallsEndsWithItsCalls) {
  const Whole whole = Fold(Settings(), kCall);
  EXPECT_EQ(whole.reasoning, "Hm.");
  EXPECT_EQ(whole.content, "I look.");
  EXPECT_EQ(whole.calls, "find({\"a\": 1})");
  EXPECT_EQ(whole.finish, AnswerFinish::kToolCalls);
}

TEST_F(AnswerFoldTest, OneThatIsCutOffEndsByLength) {
  AnswerSettings settings = Settings();
  settings.output.max_tokens = static_cast<int>(Ids(kCall).size()) - 12;
  AnswerFold fold(tokenizer_.get(), settings);
  Whole whole;
  for (const TokenId id : Ids(kCall)) {
    if (!fold.finished()) Add(fold.Push(id), &whole);
  }
  EXPECT_EQ(whole.finish, AnswerFinish::kLength);
}

TEST_F(AnswerFoldTest, WithoutToolsMarkupIsContent) {
  AnswerSettings settings = Settings();
  settings.chat->tools.clear();
  const Whole whole = Fold(settings, kCall);
  EXPECT_EQ(whole.calls, "");
  EXPECT_NE(whole.content.find("<tool_call>"), std::string::npos);
  EXPECT_EQ(whole.finish, AnswerFinish::kStop);
}

TEST_F(AnswerFoldTest, PlainCompletionsAreContent) {
  AnswerSettings settings = Settings();
  settings.chat.reset();
  const Whole whole = Fold(settings, kCall);
  EXPECT_EQ(whole.content + "<|im_end|>", kCall);
  EXPECT_EQ(whole.finish, AnswerFinish::kStop);
}

TEST_F(AnswerFoldTest, ABoundForcesTheClosingTagOnce) {
  AnswerSettings settings = Settings();
  settings.reasoning_tokens_max = 3;
  settings.chat->reasoning = ReasoningStart::kOpen;
  AnswerFold fold(tokenizer_.get(), settings);
  Whole whole;
  const TokenId word = Ids("a")[0];
  int own = 0;
  std::vector<TokenId> forced;
  for (int i = 0; i < 40; ++i) {
    const std::optional<TokenId> must = fold.Forced();
    if (must) forced.push_back(*must);
    own += must ? 0 : 1;
    // A copy goes on as the original does.
    fold = AnswerFold(fold);
    Add(fold.Push(must.value_or(word)), &whole);
  }
  EXPECT_EQ(forced, Ids("\n</think>\n\n"));
  EXPECT_EQ(whole.reasoning, "aaa");
  EXPECT_EQ(whole.content, std::string(static_cast<size_t>(own) - 3, 'a'));
  EXPECT_GE(fold.reasoning_tokens(), 3);
}

TEST_F(AnswerFoldTest, NothingIsForcedThatTheModelCannotDraw) {
  AnswerSettings settings = Settings();
  settings.reasoning_tokens_max = 0;
  settings.chat->reasoning = ReasoningStart::kOpen;
  settings.drawable_ids = std::ranges::max(Ids("\n</think>\n\n"));
  AnswerFold fold(tokenizer_.get(), settings);
  for (int i = 0; i < 5; ++i) {
    EXPECT_FALSE(fold.Forced());
    fold.Push(Ids("a")[0]);
  }
}

TEST_F(AnswerFoldTest, NothingIsForcedWhereTheModelStopsItself) {
  AnswerSettings settings = Settings();
  settings.reasoning_tokens_max = 1000;
  AnswerFold fold(tokenizer_.get(), settings);
  for (const TokenId id : Ids(kCall)) {
    EXPECT_FALSE(fold.Forced());
    fold.Push(id);
  }
  EXPECT_FALSE(fold.Forced());
}

}  // namespace
}  // namespace perdure::text
