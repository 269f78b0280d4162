// Regular expressions of ECMA-262, as JSON Schema's "pattern" uses them, made into trees of our own
// kind. What an automaton cannot do is refused by name: lookaround, backreferences, \b, \p{…}.
// Lazy quantifiers match the same texts as greedy ones.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/grammar/automaton.h"
#include "text/grammar/regular.h"

namespace perdure::text {

// JSON strings, with their quotes, whose text has a match of `pattern` somewhere. Errors
// (invalid_request) begin with 'pattern "…"'.
Result<AutomatonPtr> CompilePatternInJson(std::string_view pattern, AutomatonBudget* budget);
// Texts that `pattern` matches as a whole, whether or not it says so with ^ and $.
Result<AutomatonPtr> CompilePattern(std::string_view pattern, AutomatonBudget* budget);

}  // namespace perdure::text
