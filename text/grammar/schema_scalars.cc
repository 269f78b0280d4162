// Strings and numbers.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/brief.h"
#include "base/limits.h"
#include "text/grammar/pattern.h"
#include "text/grammar/regular.h"
#include "text/grammar/schema_compiler.h"

namespace perdure::text {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The bytes of the longest match; nullopt if there is none.
std::optional<size_t> LongestMatch(const Automaton& automaton) {
  // Depth first; a state that is met while it is open lies on a cycle, and all lead to an end.
  enum : uint8_t { kNew, kOpen, kDone };
  const size_t count = automaton.states();
  std::vector<uint8_t> mark(count, kNew);
  std::vector<size_t> longest(count, 0);
  std::vector<std::pair<uint16_t, int>> stack = {{Automaton::kStart, 0}};
  mark[Automaton::kStart] = kOpen;
  while (!stack.empty()) {
    const uint16_t state = stack.back().first;
    if (stack.back().second == 256) {
      mark[state] = kDone;
      stack.pop_back();
      if (!stack.empty()) {
        size_t& before = longest[stack.back().first];
        before = std::max(before, longest[state] + 1);
      }
      continue;
    }
    const auto byte = static_cast<uint8_t>(stack.back().second++);
    const uint16_t to = automaton.Next(state, byte);
    if (to == Automaton::kDead) continue;
    if (mark[to] == kOpen) return std::nullopt;
    if (mark[to] == kDone) {
      longest[state] = std::max(longest[state], longest[to] + 1);
    } else {
      mark[to] = kOpen;
      stack.emplace_back(to, 0);
    }
  }
  return longest[Automaton::kStart];
}

// A number as a whole multiple of a power of ten; nullopt for what is not written so shortly.
struct Divisor {
  int64_t units;
  int decimals;
};
std::optional<Divisor> DivisorOf(double value) {
  for (int decimals = 0; decimals <= 9; ++decimals) {
    const double units = value * std::pow(10.0, decimals);
    const double whole = std::round(units);
    if (whole < 1 || whole > static_cast<double>(limits::kGrammarDivisorMax)) continue;
    // The shortest decimal that reads as this double is the one that was meant.
    if (whole / std::pow(10.0, decimals) == value) return Divisor{std::llround(whole), decimals};
  }
  return std::nullopt;
}

}  // namespace

Result<SchemaCompiler::Length> SchemaCompiler::LengthOf(const Conjunction& members,
                                                        std::string_view min_keyword,
                                                        std::string_view max_keyword) {
  Length length;
  const auto read = [&](const Subschema& schema, std::string_view keyword,
                        const Json& value) -> Result<uint32_t> {
    // 2.0 is an integer.
    if (!value.is_number() || TypeOf(value) != kIntegerType || value.get<double>() < 0)
      return source_.Fail(schema, keyword, "must be an integer of at least 0");
    const double number = value.get<double>();
    // No answer is as long as numbers beyond.
    return number < Grammar::kNoBound ? static_cast<uint32_t>(number) : Grammar::kNoBound;
  };
  for (const Subschema& schema : members) {
    if (const Json* min = Find(schema, min_keyword)) {
      ASSIGN_OR_RETURN(const uint32_t value, read(schema, min_keyword, *min));
      if (value > limits::kGrammarCountMinMax)
        return source_.Fail(
            schema, min_keyword,
            fmt::format("is above {}, the most that is supported", limits::kGrammarCountMinMax));
      length.min = std::max(length.min, value);
    }
    if (const Json* max = Find(schema, max_keyword)) {
      ASSIGN_OR_RETURN(const uint32_t value, read(schema, max_keyword, *max));
      length.max = std::min(length.max, value);
    }
  }
  return length;
}

Result<AutomatonPtr> SchemaCompiler::TextAutomaton(const Conjunction& members) {
  AutomatonPtr all;
  for (const Subschema& schema : members) {
    for (const bool is_pattern : {true, false}) {
      const std::string_view keyword = is_pattern ? "pattern" : "format";
      const Json* value = Find(schema, keyword);
      if (!value) continue;
      if (!value->is_string()) return source_.Fail(schema, keyword, "must be a string");
      const std::string& text = value->get_ref<const std::string&>();
      AutomatonPtr& automaton = texts_[{text, is_pattern}];
      if (!automaton && is_pattern) {
        auto made = CompilePatternInJson(text, builder_.budget());
        if (!made) return Wrap(schema, keyword, made.error());
        automaton = *made;
      } else if (!automaton) {
        const auto known = FindFormat(text);
        if (!known)
          return source_.Fail(schema, keyword,
                              fmt::format("\"{}\" is not supported", Brief(text, 100)));
        automaton = *known;
      }
      if (!all) {
        all = automaton;
        continue;
      }
      const auto both = Intersect(*all, *automaton, builder_.budget());
      if (!both) return Wrap(schema, keyword, both.error());
      all = *both;
    }
  }
  return all;
}

Result<Expression> SchemaCompiler::CompileString(const Conjunction& members) {
  ASSIGN_OR_RETURN(const Length length, LengthOf(members, "minLength", "maxLength"));
  ASSIGN_OR_RETURN(AutomatonPtr automaton, TextAutomaton(members));
  if (length.min > length.max) return builder_.Never();
  if (!automaton) return builder_.JsonString(length.min, length.max);
  if (automaton->empty()) return builder_.Never();
  // A character has one byte at least, and the quotes are two.
  const auto longest = LongestMatch(*automaton);
  const bool max_matters =
      length.max != Grammar::kNoBound && (!longest || *longest > size_t{length.max} + 2);
  if (length.min > 0 || max_matters) {
    const auto lengths = PlainStringsOfLength(
        length.min, max_matters ? length.max : Grammar::kNoBound, builder_.budget());
    auto both = lengths ? Intersect(*automaton, **lengths, builder_.budget()) : lengths;
    if (!both) {
      const auto has_text = [](const Subschema& schema) {
        return Find(schema, "pattern") || Find(schema, "format");
      };
      const auto at = std::find_if(members.begin(), members.end(), has_text);
      return source_.Fail(*at, Find(*at, "pattern") ? "pattern" : "format",
                          "is too large together with minLength and maxLength");
    }
    automaton = *both;
  }
  return builder_.Match(automaton);
}

Result<NumberBounds> SchemaCompiler::BoundsOf(const Conjunction& members, bool integer) {
  NumberBounds bounds;
  for (const Subschema& schema : members) {
    for (const auto& [keyword, is_min, exclusive] :
         {std::tuple("minimum", true, false), std::tuple("exclusiveMinimum", true, true),
          std::tuple("maximum", false, false), std::tuple("exclusiveMaximum", false, true)}) {
      const Json* value = Find(schema, keyword);
      if (!value) continue;
      if (!value->is_number()) return source_.Fail(schema, keyword, "must be a number");
      double bound = value->get<double>();
      const double inward = is_min ? kInfinity : -kInfinity;
      if (exclusive && integer)
        bound = is_min ? std::floor(bound) + 1 : std::ceil(bound) - 1;
      else if (exclusive)
        bound = std::nextafter(bound, inward);
      // An integer that no double holds may have been rounded outward.
      if (std::fabs(bound) >= 9007199254740992.0) bound = std::nextafter(bound, inward);
      std::optional<double>& limit = is_min ? bounds.min : bounds.max;
      if (!limit || (is_min ? bound > *limit : bound < *limit)) limit = bound;
    }
  }
  return bounds;
}

Result<AutomatonPtr> SchemaCompiler::MultiplesAutomaton(const Conjunction& members) {
  AutomatonPtr all;
  for (const Subschema& schema : members) {
    const Json* value = Find(schema, "multipleOf");
    if (!value) continue;
    if (!value->is_number() || value->get<double>() <= 0)
      return source_.Fail(schema, "multipleOf", "must be a number above 0");
    const auto divisor = DivisorOf(value->get<double>());
    if (!divisor)
      return source_.Fail(
          schema, "multipleOf",
          fmt::format("is supported for numbers up to {} and their tenths, hundredths …",
                      limits::kGrammarDivisorMax));
    auto made = CompileMultiples(divisor->units, divisor->decimals, builder_.budget());
    if (made && all) made = Intersect(*all, **made, builder_.budget());
    if (!made) return Wrap(schema, "multipleOf", made.error());
    all = *made;
  }
  return all;
}

Result<Expression> SchemaCompiler::CompileNumber(const Conjunction& members, bool integer) {
  ASSIGN_OR_RETURN(const NumberBounds bounds, BoundsOf(members, integer));
  ASSIGN_OR_RETURN(const AutomatonPtr multiples, MultiplesAutomaton(members));
  const JsonAutomata& json = JsonAutomata::Get();
  AutomatonPtr numbers = integer ? json.integer : json.number;
  if (bounds.min || bounds.max) {
    const auto within = integer ? CompileIntegers(bounds, builder_.budget())
                                : CompileNumbers(bounds, builder_.budget());
    if (!within) return Wrap(members.front(), "minimum", within.error());
    numbers = *within;
  }
  if (multiples) {
    const auto both = Intersect(*numbers, *multiples, builder_.budget());
    if (!both) return Wrap(members.front(), "multipleOf", both.error());
    numbers = *both;
  }
  return builder_.Match(numbers);
}

}  // namespace perdure::text
