#include "text/template/tool_call_form.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace perdure::text {
namespace {

using EmptyContent = ToolCallForm::EmptyContent;
using Tokens = std::map<std::string, std::string>;

constexpr std::string_view kName = "find_place";
constexpr std::string_view kArgument = "harbour_gate";

Json Conversation(EmptyContent content, bool arguments_as_text) {
  const Json arguments = {{"query", kArgument}};
  Json call = {{"id", "abcdef123"}, {"type", "function"}};
  call["function"] = {{"name", kName}};
  call["function"]["arguments"] = arguments_as_text ? Json(arguments.dump()) : arguments;
  Json assistant = {{"role", "assistant"}};
  if (content == EmptyContent::kNull) assistant["content"] = nullptr;
  if (content == EmptyContent::kText) assistant["content"] = "";
  assistant["tool_calls"] = Json::array({std::move(call)});
  return Json::array({{{"role", "user"}, {"content", "Where?"}},
                      std::move(assistant),
                      {{"role", "tool"}, {"tool_call_id", "abcdef123"}, {"content", "There."}}});
}

Json Tools() {
  Json function = {{"name", kName}, {"description", "Finds a place."}};
  function["parameters"] = {{"type", "object"}, {"properties", Json::object()}};
  function["parameters"]["properties"]["query"] = {{"type", "string"}, {"description", "Which"}};
  return Json::array({{{"type", "function"}, {"function", std::move(function)}}});
}

// The rendering, where it shows the call and its arguments as JSON.
std::optional<std::string> Shown(const ChatTemplate& chat, const Tokens& special_tokens,
                                 EmptyContent content, bool arguments_as_text) {
  Json context = Json::object();
  for (const auto& [key, token] : special_tokens) context[key] = token;
  context["messages"] = Conversation(content, arguments_as_text);
  context["tools"] = Tools();
  context["documents"] = nullptr;
  context["add_generation_prompt"] = true;
  const auto prompt = chat.Render(context, {}, TemplateTime(0));
  if (!prompt) return std::nullopt;
  const bool shown = prompt->text.find(kArgument) != std::string::npos;
  // A dict pasted as text has Python's quotes.
  const bool as_python = prompt->text.find("'" + std::string(kArgument)) != std::string::npos;
  if (!shown || as_python) return std::nullopt;
  return prompt->text;
}

bool SaysNone(const std::string& text) { return text.find("None") != std::string::npos; }

}  // namespace

ToolCallForm FindToolCallForm(const ChatTemplate& chat, const Tokens& special_tokens) {
  for (const bool arguments_as_text : {false, true}) {
    const auto with_text = Shown(chat, special_tokens, EmptyContent::kText, arguments_as_text);
    for (const EmptyContent content :
         {EmptyContent::kAbsent, EmptyContent::kNull, EmptyContent::kText}) {
      const auto text = content == EmptyContent::kText
                            ? with_text
                            : Shown(chat, special_tokens, content, arguments_as_text);
      // A template that prints what is missing: unless it says so anyway.
      if (!text || (SaysNone(*text) && with_text && !SaysNone(*with_text))) continue;
      ToolCallForm form;
      form.empty_content = content;
      form.takes_empty_text = with_text.has_value();
      form.arguments_as_text = arguments_as_text;
      return form;
    }
  }
  return {};
}

}  // namespace perdure::text
