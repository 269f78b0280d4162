#include "text/json_escape.h"

#include <fmt/format.h>

namespace perdure::text {

std::string_view ShortJsonEscape(char32_t c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      return {};
  }
}

std::string JsonEscapeOf(uint32_t code_point) {
  const std::string_view escape = ShortJsonEscape(code_point);
  return escape.empty() ? fmt::format("\\u{:04x}", code_point) : std::string(escape);
}

void AppendJsonEscaped(char c, std::string* out) {
  const auto byte = static_cast<uint8_t>(c);
  if (byte < 0x20 || c == '"' || c == '\\')
    *out += JsonEscapeOf(byte);
  else
    out->push_back(c);
}

std::string JsonQuoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) AppendJsonEscaped(c, &quoted);
  return quoted += '"';
}

}  // namespace perdure::text
