#include "text/grammar/json_spelling.h"

#include <fmt/format.h>

namespace perdure::text {

CodePointSet UnescapedInJson(const CodePointSet& set) {
  return set.Without(0, 0x1F).Without('"', '"').Without('\\', '\\');
}

std::vector<uint32_t> EscapedInJson(const CodePointSet& set) {
  std::vector<uint32_t> members;
  for (const auto& [first, last] : set.ranges()) {
    for (uint32_t c = first; c <= last && c < 0x20; ++c) members.push_back(c);
    for (const uint32_t c : {uint32_t{'"'}, uint32_t{'\\'}})
      if (c >= first && c <= last) members.push_back(c);
  }
  return members;
}

std::string JsonEscapeOf(uint32_t code_point) {
  switch (code_point) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return fmt::format("\\u{:04x}", code_point);
  }
}

std::string JsonSpellingOf(std::string_view text) {
  std::string spelled = "\"";
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || c == '"' || c == '\\')
      spelled += JsonEscapeOf(byte);
    else
      spelled += c;
  }
  return spelled += '"';
}

}  // namespace perdure::text
