// enum and const.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "text/grammar/schema_compiler.h"
#include "text/json_escape.h"
#include "text/utf8.h"

namespace perdure::text {
namespace {

bool IsContainer(const Json& value) { return value.is_object() || value.is_array(); }

std::string SpellingOf(const Json& scalar) {
  return scalar.is_string() ? JsonQuoted(scalar.get_ref<const std::string&>()) : DumpJson(scalar);
}

// Of what JSON texts from outside have, this is what matters to a grammar.
bool IsSound(const Json& value, int depth) {
  if (depth > limits::kGrammarConstDepthMax) return false;
  if (value.is_string()) return IsValidUtf8(value.get_ref<const std::string&>());
  if (value.is_number_float()) return std::isfinite(value.get<double>());
  if (value.is_object())
    return std::all_of(value.items().begin(), value.items().end(), [&](const auto& entry) {
      return IsValidUtf8(entry.key()) && IsSound(entry.value(), depth + 1);
    });
  if (value.is_array())
    return std::all_of(value.begin(), value.end(),
                       [&](const Json& item) { return IsSound(item, depth + 1); });
  return true;
}

}  // namespace

// The value is of a type that is allowed. Lists and objects are not looked into.
Result<bool> SchemaCompiler::Allows(const Conjunction& members, const Json& value) {
  const unsigned type = TypeOf(value);
  if (type == kStringType) {
    ASSIGN_OR_RETURN(const Length length, LengthOf(members, "minLength", "maxLength"));
    const std::string& text = value.get_ref<const std::string&>();
    const auto characters =
        std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
    if (static_cast<size_t>(characters) < length.min ||
        static_cast<size_t>(characters) > length.max)
      return false;
    ASSIGN_OR_RETURN(const AutomatonPtr automaton, TextAutomaton(members));
    return !automaton || automaton->Matches(JsonQuoted(text));
  }
  if (type == kIntegerType || type == kFractionType) {
    ASSIGN_OR_RETURN(const NumberBounds bounds, BoundsOf(members, false));
    const double number = value.get<double>();
    if ((bounds.min && number < *bounds.min) || (bounds.max && number > *bounds.max)) return false;
    ASSIGN_OR_RETURN(const AutomatonPtr multiples, MultiplesAutomaton(members));
    return !multiples || multiples->Matches(DumpJson(value));
  }
  return true;
}

Result<Expression> SchemaCompiler::CompileValues(const Conjunction& members, unsigned types,
                                                 const std::vector<const Json*>& values) {
  std::vector<std::string> texts;
  std::vector<Expression> ways;
  size_t bytes = 0;
  for (const Json* value : values) {
    RETURN_IF_ERROR(source_.Spend(1));
    if (!(types & TypeOf(*value))) continue;
    if (!IsSound(*value, 0))
      return source_.Fail(members.front(), "enum",
                          fmt::format("has a value that is not UTF-8, or nested deeper than {} "
                                      "levels",
                                      limits::kGrammarConstDepthMax));
    if (!IsContainer(*value)) {
      ASSIGN_OR_RETURN(const bool allowed, Allows(members, *value));
      if (!allowed) continue;
      texts.push_back(SpellingOf(*value));
      bytes += texts.back().size();
      continue;
    }
    // Whether it satisfies them is not decided here.
    for (const Subschema& schema : members)
      for (const std::string_view keyword :
           {"properties", "required", "additionalProperties", "patternProperties", "propertyNames",
            "minProperties", "maxProperties", "items", "prefixItems", "additionalItems", "minItems",
            "maxItems", "uniqueItems"})
        if (Find(schema, keyword))
          return source_.Fail(schema, keyword, "is not supported beside constant lists or objects");
    if (ways.size() >= limits::kGrammarBeginningsMax)
      return source_.Fail(
          members.front(), "enum",
          fmt::format("has more than {} lists and objects", limits::kGrammarBeginningsMax));
    ways.push_back(Constant(*value, 0));
  }
  if (!texts.empty()) {
    const Expression scalars = builder_.Texts(std::move(texts));
    if (!builder_.status())
      return source_.Fail(members.front(), "enum",
                          fmt::format("is too large: its values have {} bytes", bytes));
    ways.push_back(scalars);
  }
  return builder_.Choice(std::move(ways));
}

Expression SchemaCompiler::Constant(const Json& value, int depth) {
  if (!IsContainer(value)) return builder_.Literal(SpellingOf(value));
  std::vector<Expression> parts = {builder_.Literal(value.is_object() ? "{" : "["), Space()};
  bool first = true;
  for (const auto& [key, item] : value.items()) {
    if (!first) parts.insert(parts.end(), {builder_.Literal(","), Space()});
    first = false;
    if (value.is_object())
      parts.insert(parts.end(), {builder_.Literal(JsonQuoted(key) + ":"), Space()});
    parts.push_back(Constant(item, depth + 1));
  }
  if (!first) parts.push_back(Space());
  parts.push_back(builder_.Literal(value.is_object() ? "}" : "]"));
  return builder_.Sequence(std::move(parts));
}

}  // namespace perdure::text
