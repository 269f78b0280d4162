// In which form a model writes calls and reasoning: from its chat template, and from the prompt.
#include "text/chat/chat_form.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "base/file.h"

namespace perdure::text {
namespace {

std::string Family(const std::string& name) {
  const auto source = ReadFile(std::filesystem::path(PERDURE_SOURCE_DIR) /
                                   "tests/text/goldens/template/families" / (name + ".jinja"),
                               size_t{1} << 20);
  EXPECT_TRUE(source) << name;
  return source ? *source : "";
}

// Knows some tokens, all of them special.
class FewTokens : public Tokenizer {
 public:
  explicit FewTokens(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}
  Result<std::vector<TokenId>> Encode(std::string_view, std::span<const TextRange>) const override {
    return Err(ErrorCode::unsupported, "not needed here");
  }
  std::string_view TokenBytes(TokenId id) const override {
    return tokens_[static_cast<size_t>(id)];
  }
  bool IsSpecial(TokenId id) const override { return id > 0; }
  std::optional<TokenId> IdOf(std::string_view content) const override {
    const auto found = std::find(tokens_.begin(), tokens_.end(), content);
    if (found == tokens_.end()) return std::nullopt;
    return static_cast<TokenId>(found - tokens_.begin());
  }
  int vocab_size() const override { return static_cast<int>(tokens_.size()); }

 private:
  std::vector<std::string> tokens_;
};

TEST(ChatForm, OfFamilies) {
  struct Row {
    const char* family;
    const char* format;
    const char* reasoning;
  };
  const Row rows[] = {
      {"qwen25_tools", "hermes", ""},
      {"hermes_tool_use", "hermes", ""},
      {"qwen3_thinking", "hermes", "<think>"},
      {"qwen3_coder_xml", "qwen3_coder", ""},
      {"qwen3_next_vl", "qwen3_coder", "<think>"},
      {"mistral_nemo", "mistral", ""},
      {"mistral_v3_tools", "mistral", ""},
      {"devstral", "devstral", ""},
      {"ministral_reasoning", "devstral", "[THINK]"},
      {"llama31_tools", "llama3", ""},
      {"llama32", "llama3", ""},
      {"llama4", "llama3", ""},
      {"deepseek_r1", "none", "<think>"},
      {"deepseek_v31", "none", "<think>"},
      {"smollm3", "json", "<think>"},
      {"nemotron", "json", "<think>"},
      {"glm45", "json", "<think>"},
      {"minimax", "json", "<think>"},
      {"seed_oss", "json", ""},
      {"cohere2", "json", "<|START_THINKING|>"},
      {"chatml", "none", ""},
      {"llama3", "none", ""},
      {"gemma3", "none", ""},
      {"mistral_v7_tekken", "none", ""},
  };
  for (const Row& row : rows) {
    const ChatForm form = FindChatForm(Family(row.family), "", nullptr);
    EXPECT_EQ(ToolFormatName(form.tools), row.format) << row.family;
    EXPECT_EQ(form.reasoning.open, row.reasoning) << row.family;
  }
}

TEST(ChatForm, ByTokensWhereTheTemplateWritesNone) {
  const FewTokens old_tokens({"a", "[TOOL_CALLS]"});
  const FewTokens new_tokens({"a", "[TOOL_CALLS]", "[ARGS]"});
  const std::string source = Family("mistral_v7_tekken");
  EXPECT_EQ(FindChatForm(source, "mistral", &old_tokens).tools, ToolFormat::kMistral);
  EXPECT_EQ(FindChatForm(source, "mistral3", &new_tokens).tools, ToolFormat::kDevstral);
  EXPECT_EQ(FindChatForm(source, "llama", &new_tokens).tools, ToolFormat::kNone);
  // What the template writes goes before.
  EXPECT_EQ(FindChatForm(Family("qwen25_tools"), "mistral", &new_tokens).tools,
            ToolFormat::kHermes);
}

TEST(ChatForm, Names) {
  for (const char* name :
       {"none", "hermes", "qwen3_coder", "mistral", "devstral", "llama3", "json"}) {
    const auto format = ToolFormatNamed(name);
    ASSERT_TRUE(format) << name;
    EXPECT_EQ(ToolFormatName(*format), name);
  }
  const auto wrong = ToolFormatNamed("Hermes");
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().message,
            "'Hermes' is no format of tool calls; there are: none, hermes, qwen3_coder, mistral, "
            "devstral, llama3, json");
}

TEST(ChatForm, MarkupIsOfSpecialTokensThatTheParserLooksFor) {
  const FewTokens tokenizer(
      {"<tool_call>", "[TOOL_CALLS]", "[ARGS]", "<think>", "</think>", "</s>", "<|python_tag|>"});
  const ReasoningTags think = {"<think>", "</think>"};
  using Ids = std::vector<TokenId>;
  // <tool_call> is not special here.
  EXPECT_EQ(MarkupIds({ToolFormat::kHermes, think}, true, tokenizer), (Ids{3, 4}));
  EXPECT_EQ(MarkupIds({ToolFormat::kDevstral, think}, true, tokenizer), (Ids{3, 4, 1, 2}));
  EXPECT_EQ(MarkupIds({ToolFormat::kDevstral, think}, false, tokenizer), (Ids{3, 4}));
  EXPECT_EQ(MarkupIds({ToolFormat::kLlama3, {}}, true, tokenizer), (Ids{6}));
  EXPECT_EQ(MarkupIds({ToolFormat::kJson, {}}, true, tokenizer), Ids{});
}

TEST(ChatForm, WhetherThePromptHasBegunToReason) {
  const ChatForm form = {ToolFormat::kNone, {"<think>", "</think>"}};
  const auto start = [&form](const std::string& text, std::vector<TextRange> input = {}) {
    return ReasoningStartOf(form, {text, std::move(input)});
  };
  EXPECT_EQ(start("<|assistant|>\n"), ReasoningStart::kUndecided);
  EXPECT_EQ(start("<|assistant|>\n<think>\n"), ReasoningStart::kOpen);
  EXPECT_EQ(start("<|assistant|><think>"), ReasoningStart::kOpen);
  EXPECT_EQ(start("<|assistant|>\n<think>\n\n</think>\n\n"), ReasoningStart::kClosed);
  EXPECT_EQ(start("<|Assistant|></think>"), ReasoningStart::kClosed);
  EXPECT_EQ(start(""), ReasoningStart::kUndecided);
  EXPECT_EQ(start(" \n"), ReasoningStart::kUndecided);
  // What a client wrote does not count.
  EXPECT_EQ(start("User: <think>\n", {{6, 13}}), ReasoningStart::kUndecided);
  EXPECT_EQ(start("User: hi <think>\n", {{6, 9}}), ReasoningStart::kOpen);
  EXPECT_EQ(ReasoningStartOf({}, {"<think>\n", {}}), ReasoningStart::kUndecided);
}

}  // namespace
}  // namespace perdure::text
