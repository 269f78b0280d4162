// A chat template, rendered for a conversation with tools.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "fuzz_target.h"
#include "text/template/chat_template.h"

namespace perdure::text {
namespace {

// U+10A5C7, of a private use area: only the conversation holds it.
constexpr std::string_view kMark = "\xF4\x8A\x97\x87";

// Every @ stands for the mark.
constexpr std::string_view kContext = R"({
  "messages": [
    {"role": "system", "content": "@sys "},
    {"role": "user", "content": "a <|x|>@ [INST]"},
    {"role": "assistant", "content": "", "reasoning_content": "r@", "tool_calls": [
      {"id": "c1@", "type": "function",
       "function": {"name": "f@", "arguments": {"x@": [1, -2.5, null, true, "@y"]}}}]},
    {"role": "tool", "tool_call_id": "c1@", "name": "f@", "content": "{\"r@\": 1}"},
    {"role": "assistant", "content": "<think>\n@t</think>\n\nend@"},
    {"role": "us@er", "content": [{"type": "text", "text": "part@"}]}],
  "tools": [{"type": "function", "function": {"name": "f@", "description": "d@",
    "parameters": {"type": "object", "properties": {"p@": {"type": ["string", "null"],
      "enum": ["@e", 2]}}, "required": ["p@"]}}}],
  "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": true,
  "enable_thinking": false, "kwarg": "k@", "empty": {}, "none": null})";

Json Context() {
  std::string json;
  for (const char c : kContext) {
    if (c == '@')
      json += kMark;
    else
      json += c;
  }
  auto context = ParseJson(json, "the context", ErrorCode::internal);
  CHECK(context.has_value());
  return std::move(*context);
}

// A template that writes the mark itself: as text, by an escape, by its number.
bool MayWriteTheMark(std::string source) {
  std::transform(source.begin(), source.end(), source.begin(),
                 [](unsigned char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  for (const std::string_view part : {kMark, std::string_view("10a5c7"), std::string_view("udbe9"),
                                      std::string_view("1091015"), std::string_view("\\x")}) {
    if (source.find(part) != std::string::npos) return true;
  }
  return false;
}

void CheckRendering(const RenderedPrompt& prompt, bool may_write_the_mark) {
  size_t end = 0;
  std::string outside;
  for (const TextRange& range : prompt.input) {
    CHECK(range.begin >= end && range.begin < range.end && range.end <= prompt.text.size());
    outside += prompt.text.substr(end, range.begin - end) + "\n";
    end = range.end;
  }
  outside += prompt.text.substr(end);
  // Nothing that a client wrote may pass for the template's own text.
  CHECK(may_write_the_mark || outside.find(kMark) == std::string::npos);
}

}  // namespace

FUZZ_TARGET(chat_template) {
  static const Json context = Context();
  const auto chat = ChatTemplate::Parse(input, "template");
  if (!chat) return fuzz::CheckError(chat.error());
  const auto prompt = (*chat)->Render(context, {"bos_token", "eos_token"}, 1'700'000'000);
  if (!prompt) {
    // What is not a template's raise_exception is told as an error of the template.
    CHECK(prompt.error().code == ErrorCode::bad_template);
    return;
  }
  CheckRendering(*prompt, MayWriteTheMark(std::string(input)));
}

}  // namespace perdure::text
