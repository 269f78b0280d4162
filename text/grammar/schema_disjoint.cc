// Whether two schemas exclude each other. What is not seen to be so counts as overlapping.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "text/grammar/schema_compiler.h"

namespace perdure::text {
namespace {

// Schemas inside of required properties that are compared, and no deeper.
constexpr int kDepthMax = 4;

}  // namespace

Result<bool> SchemaCompiler::Disjoint(const Subschema& a, const Subschema& b, int depth) {
  Flat flats[2];
  RETURN_IF_ERROR(Flatten({a}, &flats[0]));
  RETURN_IF_ERROR(Flatten({b}, &flats[1]));
  if (flats[0].never || flats[1].never) return true;
  // What unions add is left out: without it, more values match.
  unsigned types[2] = {kAllTypes, kAllTypes};
  std::optional<std::vector<const Json*>> values[2];
  std::optional<double> min[2], max[2];
  for (int i = 0; i < 2; ++i) {
    const Conjunction& members = flats[i].members;
    for (const Subschema& schema : members) {
      ASSIGN_OR_RETURN(const unsigned stated, StatedTypes(schema));
      types[i] &= stated;
    }
    ASSIGN_OR_RETURN(values[i], ValuesOf(members));
    ASSIGN_OR_RETURN(const NumberBounds bounds, BoundsOf(members, false));
    min[i] = bounds.min;
    max[i] = bounds.max;
    if (values[i]) {
      unsigned of_values = 0;
      for (const Json* value : *values[i]) of_values |= TypeOf(*value);
      types[i] &= of_values;
    }
  }
  const unsigned common = types[0] & types[1];
  if (common == 0) return true;
  if (values[0] && values[1]) {
    RETURN_IF_ERROR(source_.Spend(values[0]->size() * values[1]->size() / 16));
    return std::none_of(values[0]->begin(), values[0]->end(), [&](const Json* left) {
      return std::any_of(values[1]->begin(), values[1]->end(),
                         [&](const Json* right) { return EqualJson(*left, *right); });
    });
  }
  const auto numbers = unsigned{kIntegerType | kFractionType};
  if ((common & ~numbers) == 0)
    return (max[0] && min[1] && *max[0] < *min[1]) || (max[1] && min[0] && *max[1] < *min[0]);
  if (common == kObjectType) return DisjointObjects(flats[0], flats[1], depth);
  return false;
}

// A property that both require, or one does and the other refuses.
Result<bool> SchemaCompiler::DisjointObjects(const Flat& a, const Flat& b, int depth) {
  const Flat* flats[2] = {&a, &b};
  std::set<std::string> required[2];
  for (int i = 0; i < 2; ++i)
    for (const Subschema& schema : flats[i]->members)
      if (const Json* names = Find(schema, "required"); names && names->is_array())
        for (const Json& name : *names)
          if (name.is_string()) required[i].insert(name.get<std::string>());
  for (int i = 0; i < 2; ++i) {
    for (const std::string& name : required[i]) {
      for (const Subschema& schema : flats[1 - i]->members) {
        RETURN_IF_ERROR(source_.Spend(1));
        const Json* others = Find(schema, "additionalProperties");
        const Json* properties = Find(schema, "properties");
        const bool declared = properties && properties->contains(name);
        if (others && *others == false && !declared && !Find(schema, "patternProperties"))
          return true;
        if (declared && (*properties)[name] == false) return true;
      }
    }
  }
  if (depth >= kDepthMax) return false;
  for (const std::string& name : required[0]) {
    if (!required[1].contains(name)) continue;
    for (const Subschema& left : a.members) {
      const Json* left_properties = Find(left, "properties");
      if (!left_properties || !left_properties->contains(name)) continue;
      for (const Subschema& right : b.members) {
        const Json* right_properties = Find(right, "properties");
        if (!right_properties || !right_properties->contains(name)) continue;
        RETURN_IF_ERROR(source_.Spend(left_properties->size() / 16 + 1));
        const auto in_left = left_properties->find(name), in_right = right_properties->find(name);
        ASSIGN_OR_RETURN(
            const bool disjoint,
            Disjoint(source_.Child(left, "properties", in_left.key(), *in_left),
                     source_.Child(right, "properties", in_right.key(), *in_right), depth + 1));
        if (disjoint) return true;
      }
    }
  }
  return false;
}

}  // namespace perdure::text
