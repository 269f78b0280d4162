// How texts stand in JSON strings in the one way that grammars use where they must know what a
// string says: only what must be escaped is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/grammar/code_point_set.h"

namespace perdure::text {

// The members that stand for themselves, and those that are escaped.
CodePointSet UnescapedInJson(const CodePointSet& set);
std::vector<uint32_t> EscapedInJson(const CodePointSet& set);
// "\n", "\u001f"; for a character that is escaped.
std::string JsonEscapeOf(uint32_t code_point);
// With its quotes; `text` is valid UTF-8.
std::string JsonSpellingOf(std::string_view text);

}  // namespace perdure::text
