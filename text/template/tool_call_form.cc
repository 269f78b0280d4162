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
constexpr std::string_view kSecondArgument = "garden_wall";
constexpr const char* kShortIds[] = {"abcdef123", "ghijkl456"};
// As OpenAI's API draws them.
constexpr const char* kLongIds[] = {"call_abcdefghijklmnopqrstuvwx",
                                    "call_bcdefghijklmnopqrstuvwxy"};

// What one probe is about.
struct Probe {
  EmptyContent content = EmptyContent::kText;
  bool arguments_as_text = false;
  const char* const* ids = kShortIds;
  int calls = 1;
  bool apart = false;  // each call in a message of its own
};

Json Call(const Probe& probe, int index) {
  const Json arguments = {{"query", index == 0 ? kArgument : kSecondArgument}};
  Json call = {{"id", probe.ids[index]}, {"type", "function"}};
  call["function"] = {{"name", kName}};
  call["function"]["arguments"] = probe.arguments_as_text ? Json(arguments.dump()) : arguments;
  return call;
}

Json Calling(const Probe& probe, Json calls) {
  Json assistant = {{"role", "assistant"}};
  if (probe.content == EmptyContent::kNull) assistant["content"] = nullptr;
  if (probe.content == EmptyContent::kText) assistant["content"] = "";
  assistant["tool_calls"] = std::move(calls);
  return assistant;
}

Json Conversation(const Probe& probe) {
  Json messages = Json::array({{{"role", "user"}, {"content", "Where?"}}});
  const auto result = [&probe](int index) {
    return Json{{"role", "tool"}, {"tool_call_id", probe.ids[index]}, {"content", "There."}};
  };
  if (probe.apart) {
    for (int i = 0; i < probe.calls; ++i) {
      messages.push_back(Calling(probe, Json::array({Call(probe, i)})));
      messages.push_back(result(i));
    }
    return messages;
  }
  Json calls = Json::array();
  for (int i = 0; i < probe.calls; ++i) calls.push_back(Call(probe, i));
  messages.push_back(Calling(probe, std::move(calls)));
  for (int i = 0; i < probe.calls; ++i) messages.push_back(result(i));
  return messages;
}

Json Tools() {
  Json function = {{"name", kName}, {"description", "Finds a place."}};
  function["parameters"] = {{"type", "object"}, {"properties", Json::object()}};
  function["parameters"]["properties"]["query"] = {{"type", "string"}, {"description", "Which"}};
  return Json::array({{{"type", "function"}, {"function", std::move(function)}}});
}

// The rendering, where it shows the calls and their arguments as JSON.
std::optional<std::string> Shown(const ChatTemplate& chat, const Tokens& special_tokens,
                                 const Probe& probe) {
  Json context = Json::object();
  for (const auto& [key, token] : special_tokens) context[key] = token;
  context["messages"] = Conversation(probe);
  context["tools"] = Tools();
  context["documents"] = nullptr;
  context["add_generation_prompt"] = true;
  const auto prompt = chat.Render(context, {}, TemplateTime(0));
  if (!prompt) return std::nullopt;
  const bool shown = prompt->text.find(kArgument) != std::string::npos &&
                     (probe.calls == 1 || prompt->text.find(kSecondArgument) != std::string::npos);
  // A dict pasted as text has Python's quotes.
  const bool as_python = prompt->text.find("'" + std::string(kArgument)) != std::string::npos;
  if (!shown || as_python) return std::nullopt;
  return prompt->text;
}

bool SaysNone(const std::string& text) { return text.find("None") != std::string::npos; }

}  // namespace

ToolCallForm FindToolCallForm(const ChatTemplate& chat, const Tokens& special_tokens) {
  for (const bool arguments_as_text : {false, true}) {
    const auto shown = [&](EmptyContent content) {
      return Shown(chat, special_tokens, {content, arguments_as_text});
    };
    const auto with_text = shown(EmptyContent::kText);
    for (const EmptyContent content :
         {EmptyContent::kAbsent, EmptyContent::kNull, EmptyContent::kText}) {
      const auto text = content == EmptyContent::kText ? with_text : shown(content);
      // A template that prints what is missing: unless it says so anyway.
      if (!text || (SaysNone(*text) && with_text && !SaysNone(*with_text))) continue;
      ToolCallForm form;
      form.empty_content = content;
      form.takes_empty_text = with_text.has_value();
      form.arguments_as_text = arguments_as_text;
      form.short_ids = !Shown(chat, special_tokens, {content, arguments_as_text, kLongIds});
      Probe two = {content, arguments_as_text, kShortIds, 2};
      if (!Shown(chat, special_tokens, two)) {
        two.apart = true;
        form.one_call_a_message = Shown(chat, special_tokens, two).has_value();
      }
      return form;
    }
  }
  return {};
}

}  // namespace perdure::text
