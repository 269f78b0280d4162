// Automata of text that some strings end, or may not stand in.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "text/grammar/automaton.h"

namespace perdure::text {

// Valid UTF-8 that ends with one of `strings`, each of which appears for the first time there.
// The strings are valid UTF-8 and not empty; errors (invalid_request) say so.
Result<AutomatonPtr> CompileTextUntil(const std::vector<std::string>& strings,
                                      AutomatonBudget* budget);
// Valid UTF-8 in which none of `strings` appears.
Result<AutomatonPtr> CompileTextWithout(const std::vector<std::string>& strings,
                                        AutomatonBudget* budget);

}  // namespace perdure::text
