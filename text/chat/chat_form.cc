#include "text/chat/chat_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "base/tool_format_names.h"
#include "text/text_range.h"

namespace perdure::text {
namespace {

static_assert(std::size(kToolFormatNames) == static_cast<size_t>(ToolFormat::kJson) + 1);

struct TagsRow {
  std::string_view open;
  std::string_view close;
};

// In this order: templates of the later ones are rewritten for others, which then hold both.
constexpr TagsRow kReasoning[] = {
    {"[THINK]", "[/THINK]"},           {"<|START_THINKING|>", "<|END_THINKING|>"},
    {"<seed:think>", "</seed:think>"}, {"<think>", "</think>"},
    {"<reasoning>", "</reasoning>"},
};

bool Has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// What the template itself writes; nullopt where that is nothing known.
std::optional<ToolFormat> WrittenBy(std::string_view source) {
  if (Has(source, "[TOOL_CALLS]"))
    return Has(source, "[ARGS]") ? ToolFormat::kDevstral : ToolFormat::kMistral;
  if (Has(source, "<tool_call>")) {
    if (Has(source, "<function=") && Has(source, "<parameter=")) return ToolFormat::kQwen3Coder;
    // GLM writes keys and values as markup of its own between the same tags.
    if (!Has(source, "<arg_key>")) return ToolFormat::kHermes;
  }
  const bool ipython = Has(source, "ipython") && Has(source, "\"parameters\": ");
  if (Has(source, "<|python_tag|>") || ipython) return ToolFormat::kLlama3;
  return std::nullopt;
}

std::optional<ToolFormat> ByTokens(std::string_view model_type, const Tokenizer& tokenizer) {
  if (model_type.starts_with("mistral") || model_type.starts_with("ministral")) {
    if (tokenizer.IdOf("[ARGS]")) return ToolFormat::kDevstral;
    if (tokenizer.IdOf("[TOOL_CALLS]")) return ToolFormat::kMistral;
  }
  return std::nullopt;
}

ReasoningTags ReasoningOf(std::string_view source) {
  for (const auto& [open, close] : kReasoning) {
    // Some only take old reasoning out, up to its end; the model opens it.
    if (Has(source, close)) return {std::string(open), std::string(close)};
  }
  return {};
}

bool Overlaps(const std::vector<TextRange>& ranges, TextRange with) {
  return std::any_of(ranges.begin(), ranges.end(), [with](const TextRange& range) {
    return range.begin < with.end && with.begin < range.end;
  });
}

}  // namespace

std::string_view ToolFormatName(ToolFormat format) {
  return kToolFormatNames[static_cast<size_t>(format)];
}

Result<ToolFormat> ToolFormatNamed(std::string_view name) {
  const auto* found = std::ranges::find(kToolFormatNames, name);
  if (found != std::end(kToolFormatNames))
    return static_cast<ToolFormat>(found - std::begin(kToolFormatNames));
  return Err(ErrorCode::bad_config, fmt::format("'{}' is no format of tool calls; there are: {}",
                                                name, fmt::join(kToolFormatNames, ", ")));
}

ChatForm FindChatForm(std::string_view template_source, std::string_view model_type,
                      const Tokenizer* tokenizer) {
  ChatForm form;
  form.reasoning = ReasoningOf(template_source);
  auto found = WrittenBy(template_source);
  if (!found && tokenizer != nullptr) found = ByTokens(model_type, *tokenizer);
  if (!found && Has(template_source, "tools")) found = ToolFormat::kJson;
  form.tools = found.value_or(ToolFormat::kNone);
  return form;
}

std::vector<std::string> MarkupOf(const ChatForm& form, bool has_tools) {
  std::vector<std::string> markup;
  if (!form.reasoning.none()) markup = {form.reasoning.open, form.reasoning.close};
  if (!has_tools) return markup;
  const auto add = [&markup](std::initializer_list<const char*> more) {
    markup.insert(markup.end(), more.begin(), more.end());
  };
  switch (form.tools) {
    case ToolFormat::kHermes:
      add({"<tool_call>", "</tool_call>"});
      break;
    case ToolFormat::kQwen3Coder:
      add({"<tool_call>", "</tool_call>", "<function=", "</function>",
           "<parameter=", "</parameter>"});
      break;
    case ToolFormat::kMistral:
    case ToolFormat::kDevstral:
      add({"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"});
      break;
    case ToolFormat::kLlama3:
      add({"<|python_tag|>"});
      break;
    case ToolFormat::kNone:
    case ToolFormat::kJson:
      break;
  }
  return markup;
}

std::vector<TokenId> MarkupIds(const ChatForm& form, bool has_tools, const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  for (const std::string& text : MarkupOf(form, has_tools)) {
    const auto id = tokenizer.IdOf(text);
    if (id && tokenizer.IsSpecial(*id)) ids.push_back(*id);
  }
  return ids;
}

ReasoningStart ReasoningStartOf(const ChatForm& form, const RenderedPrompt& prompt) {
  const size_t last = prompt.text.find_last_not_of(" \t\r\n");
  if (form.reasoning.none() || last == std::string::npos) return ReasoningStart::kUndecided;
  const std::string_view text = std::string_view(prompt.text).substr(0, last + 1);
  const auto ends_with = [&](std::string_view tag) {
    return text.ends_with(tag) && !Overlaps(prompt.input, {text.size() - tag.size(), text.size()});
  };
  if (ends_with(form.reasoning.open)) return ReasoningStart::kOpen;
  return ends_with(form.reasoning.close) ? ReasoningStart::kClosed : ReasoningStart::kUndecided;
}

}  // namespace perdure::text
