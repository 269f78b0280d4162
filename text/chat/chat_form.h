// How a model writes what is more than content: its reasoning, and its calls of tools. Found in its
// chat template, or told by a person. docs/tool_calls.md describes the formats.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/token.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::text {

enum class ToolFormat {
  kNone,
  kHermes,      // <tool_call>{"name", "arguments"}</tool_call>
  kQwen3Coder,  // <tool_call><function=NAME><parameter=KEY>VALUE</parameter></function></tool_call>
  kMistral,     // [TOOL_CALLS][{"name", "arguments", "id"}, …]
  kDevstral,    // [TOOL_CALLS]NAME[ARGS]{…}, again for each call
  kLlama3,      // {"name", "parameters"}; …, perhaps behind <|python_tag|>
  kJson,        // {"name", "arguments"}, or a list of them, perhaps in a fence
};

// "none", "hermes", "qwen3_coder", …: as the config spells it.
std::string_view ToolFormatName(ToolFormat format);
// bad_config, with all names, where there is no such format.
Result<ToolFormat> ToolFormatNamed(std::string_view name);

// What stands around the reasoning that precedes an answer. Both empty: the model shows none.
struct ReasoningTags {
  std::string open;
  std::string close;
  bool none() const { return open.empty(); }
  bool operator==(const ReasoningTags&) const = default;
};

struct ChatForm {
  ToolFormat tools = ToolFormat::kNone;
  ReasoningTags reasoning;
};

// By what the template (its source) writes itself. Where it writes no calls, by the tokens that the
// tokenizer has, if one is given, and the model_type of config.json. A template that shows tools in
// a way that is not known here is taken for kJson, which is harmless where it is wrong.
ChatForm FindChatForm(std::string_view template_source, std::string_view model_type,
                      const Tokenizer* tokenizer);

// What of a form is markup in answers, the reasoning's without tools. Only what parsers look for.
std::vector<std::string> MarkupOf(const ChatForm& form, bool has_tools);
// Those of them that are special tokens: OutputSettings::markup_ids, so that a parser sees them.
std::vector<TokenId> MarkupIds(const ChatForm& form, bool has_tools, const Tokenizer& tokenizer);

// Where an answer stands when it begins.
enum class ReasoningStart {
  kUndecided,  // the model may begin to reason, or not
  kOpen,       // the prompt has begun it: the answer goes on with it
  kClosed,     // the prompt has ended it: none comes
};

// By the end of the rendered prompt, white space aside, where it is the template's own text.
ReasoningStart ReasoningStartOf(const ChatForm& form, const RenderedPrompt& prompt);

}  // namespace perdure::text
