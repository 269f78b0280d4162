#include "text/chat/typed_value.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/chat/json_scanner.h"

namespace perdure::text {
namespace {

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && IsJsonSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsJsonSpace(text.back())) text.remove_suffix(1);
  return text;
}

bool IsJson(std::string_view text) {
  JsonScanner scanner;
  for (size_t i = 0; i < text.size(); ++i) {
    const JsonStep step = scanner.Step(text[i]);
    if (step == JsonStep::kBad) return false;
    if (step == JsonStep::kDone) return !scanner.done_before() && i + 1 == text.size();
  }
  // A number ends where white space follows.
  return !text.empty() && scanner.Step(' ') == JsonStep::kDone;
}

// Also 5.0, which JSON Schema counts among them.
bool IsInteger(std::string_view number) {
  const size_t point = number.find('.');
  if (number.find_first_of("eE") != std::string_view::npos) return false;
  return point == std::string_view::npos ||
         number.find_first_not_of('0', point + 1) == std::string_view::npos;
}

JsonTypes TypesOfJson(std::string_view json) {
  switch (json.front()) {
    case '{':
      return kJsonObject;
    case '[':
      return kJsonArray;
    case 't':
    case 'f':
      return kJsonBoolean;
    case 'n':
      return kJsonNull;
    case '"':
      return kJsonString;
    default:
      return IsInteger(json) ? kJsonInteger | kJsonNumber : kJsonNumber;
  }
}

}  // namespace

std::optional<std::string> TypedValue(std::string_view text, JsonTypes types) {
  std::string_view value = Trimmed(text);
  if (value == "True") value = "true";
  if (value == "False") value = "false";
  if (value == "None") value = "null";
  if (!IsJson(value) || (TypesOfJson(value) & types & ~kJsonString) == 0) return std::nullopt;
  return std::string(value);
}

}  // namespace perdure::text
