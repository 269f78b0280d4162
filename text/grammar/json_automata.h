// Automata of what JSON texts are made of.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/grammar/automaton.h"

namespace perdure::text {

// Those that every schema needs: made once, shared by all. Thread-safe.
struct JsonAutomata {
  AutomatonPtr string;        // any, with every escape that JSON has but lone surrogates
  AutomatonPtr plain_string;  // as JsonQuoted writes them
  AutomatonPtr integer;       // within kGrammarIntegerDigits
  AutomatonPtr number;
  AutomatonPtr white_space;  // none, a blank, or a newline and some indentation

  static const JsonAutomata& Get();
};

// The state of a string's automaton between two characters; both have one.
uint16_t InsideState(const Automaton& string);

// JsonAutomata::plain_string with that many characters; max may be RegularTree::kNoBound.
Result<AutomatonPtr> PlainStringsOfLength(uint32_t min, uint32_t max, AutomatonBudget* budget);

// JSON strings of a format of JSON Schema, as its RFC or the standard tells; those that are left
// out (long host names, leap seconds) are told in docs/structured_output.md. nullopt for unknown
// ones. Each is made once, for all. Thread-safe.
std::optional<AutomatonPtr> FindFormat(std::string_view format);

// Bounds of numbers, as JSON writes them; all are inclusive.
struct NumberBounds {
  std::optional<double> min;
  std::optional<double> max;
};
// Integers within the bounds and kGrammarIntegerDigits.
Result<AutomatonPtr> CompileIntegers(const NumberBounds& bounds, AutomatonBudget* budget);
// Numbers without exponents within the bounds, so written that no rounding brings them out.
Result<AutomatonPtr> CompileNumbers(const NumberBounds& bounds, AutomatonBudget* budget);
// Decimals of any length that are whole multiples of `units` / 10^`decimals`, with no more than so
// many decimals.
Result<AutomatonPtr> CompileMultiples(int64_t units, int decimals, AutomatonBudget* budget);

}  // namespace perdure::text
