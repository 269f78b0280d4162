#include "text/grammar/json_spelling.h"

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

}  // namespace perdure::text
