// Characters as they stand in JSON strings in the one way that grammars use where they must know
// what a string says: only what must be escaped is (JsonQuoted).
#pragma once

#include <cstdint>
#include <vector>

#include "text/grammar/code_point_set.h"

namespace perdure::text {

// The members that stand for themselves, and those that are escaped.
CodePointSet UnescapedInJson(const CodePointSet& set);
std::vector<uint32_t> EscapedInJson(const CodePointSet& set);
}  // namespace perdure::text
