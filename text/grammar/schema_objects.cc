// Objects: declared properties in their order, then those that only have to fit.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_map>

#include "base/brief.h"
#include "base/limits.h"
#include "text/grammar/pattern.h"
#include "text/grammar/schema_compiler.h"
#include "text/json_escape.h"
#include "text/utf8.h"

namespace perdure::text {

struct SchemaCompiler::Property {
  std::string name;
  Conjunction values;
  bool required = false;
  bool never = false;
};

// Keys without names: those that a pattern matches, or all others.
struct SchemaCompiler::KeyGroup {
  std::string pattern;
  AutomatonPtr keys;
  Conjunction values;
};

struct SchemaCompiler::Object {
  std::vector<Property> properties;
  std::unordered_map<std::string, size_t> by_name;
  std::vector<KeyGroup> patterns;
  bool others = false;  // keys beyond names and patterns
  Conjunction other_values;
  AutomatonPtr allowed_keys;  // of propertyNames; null: all

  Property& Of(const std::string& name) {
    const auto [entry, is_new] = by_name.emplace(name, properties.size());
    if (is_new) properties.push_back({.name = name, .values = {}});
    return properties[entry->second];
  }
};

Status SchemaCompiler::FindPatterns(const Conjunction& members, Object* object) {
  for (const Subschema& schema : members) {
    const Json* patterns = Find(schema, "patternProperties");
    if (!patterns) continue;
    if (!patterns->is_object())
      return source_.Fail(schema, "patternProperties", "must be an object of schemas");
    for (auto entry = patterns->begin(); entry != patterns->end(); ++entry) {
      const std::string& pattern = entry.key();
      auto group = std::find_if(object->patterns.begin(), object->patterns.end(),
                                [&](const KeyGroup& known) { return known.pattern == pattern; });
      if (group == object->patterns.end()) {
        auto keys = CompilePatternInJson(pattern, builder_.budget());
        if (!keys) return Wrap(schema, "patternProperties", keys.error());
        for (const KeyGroup& other : object->patterns) {
          const auto both = Intersect(*other.keys, **keys, builder_.budget());
          if (!both) return Wrap(schema, "patternProperties", both.error());
          if (!(*both)->empty())
            return source_.Fail(schema, "patternProperties",
                                "is supported only with patterns that no key matches two of");
        }
        object->patterns.push_back({pattern, *keys, {}});
        group = object->patterns.end() - 1;
      }
      group->values.push_back(source_.Child(schema, "patternProperties", pattern, *entry));
    }
  }
  return {};
}

Status SchemaCompiler::FindProperties(const Conjunction& members, Object* object) {
  for (const Subschema& schema : members) {
    const Json* properties = Find(schema, "properties");
    if (!properties) continue;
    if (!properties->is_object())
      return source_.Fail(schema, "properties", "must be an object of schemas");
    RETURN_IF_ERROR(source_.Spend(properties->size()));
    for (const auto& [name, value] : properties->items()) {
      object->Of(name);
      if (object->properties.size() > limits::kGrammarPropertiesMax) break;
    }
  }
  for (const Subschema& schema : members) {
    const Json* required = Find(schema, "required");
    if (!required) continue;
    if (!required->is_array()) return source_.Fail(schema, "required", "must be a list of strings");
    RETURN_IF_ERROR(source_.Spend(required->size()));
    for (const Json& name : *required) {
      if (!name.is_string()) return source_.Fail(schema, "required", "must be a list of strings");
      object->Of(name.get_ref<const std::string&>()).required = true;
    }
  }
  if (object->properties.size() > limits::kGrammarPropertiesMax)
    return source_.Fail(
        members.front(), "properties",
        fmt::format("declares more than {} properties", limits::kGrammarPropertiesMax));
  // What each member says of each property: by its name, else by its pattern, else as of others.
  for (const Subschema& schema : members) {
    const Json* declared = Find(schema, "properties");
    const Json* patterns = Find(schema, "patternProperties");
    const Json* others = Find(schema, "additionalProperties");
    RETURN_IF_ERROR(source_.Spend(object->properties.size()));
    std::unordered_map<std::string_view, std::pair<std::string_view, const Json*>> values;
    if (declared)
      for (auto entry = declared->begin(); entry != declared->end(); ++entry)
        values.emplace(entry.key(), std::pair(std::string_view(entry.key()), &*entry));
    for (Property& property : object->properties) {
      bool said = false;
      const auto value = values.find(property.name);
      if (value != values.end()) {
        property.values.push_back(
            source_.Child(schema, "properties", value->second.first, *value->second.second));
        said = true;
      }
      for (const KeyGroup& group : object->patterns) {
        const auto found = patterns ? patterns->find(group.pattern) : Json::const_iterator();
        if (!patterns || found == patterns->end()) continue;
        if (!group.keys->Matches(JsonQuoted(property.name))) continue;
        property.values.push_back(source_.Child(schema, "patternProperties", found.key(), *found));
        said = true;
      }
      if (!said && others)
        property.values.push_back(source_.Child(schema, "additionalProperties", *others));
    }
  }
  for (Property& property : object->properties) {
    if (!IsValidUtf8(property.name))
      return source_.Fail(members.front(), "properties", "has a name that is not UTF-8");
    const bool refused = std::any_of(property.values.begin(), property.values.end(),
                                     [](const Subschema& value) { return *value.json == false; });
    property.never = refused || (object->allowed_keys &&
                                 !object->allowed_keys->Matches(JsonQuoted(property.name)));
  }
  return {};
}

Status SchemaCompiler::FindOtherKeys(const Conjunction& members, Object* object) {
  bool declares = false, stated = false, refused = false;
  for (const Subschema& schema : members) {
    const Json* patterns = Find(schema, "patternProperties");
    const Json* properties = Find(schema, "properties");
    declares |= (properties && !properties->empty()) || patterns != nullptr;
    const Json* others = Find(schema, "additionalProperties");
    for (KeyGroup& group : object->patterns)
      if (others && !(patterns && patterns->contains(group.pattern)))
        group.values.push_back(source_.Child(schema, "additionalProperties", *others));
    if (!others) continue;
    if (*others == false) {
      refused = true;
    } else {
      stated = true;
      object->other_values.push_back(source_.Child(schema, "additionalProperties", *others));
    }
  }
  object->others = !refused && (stated || !declares);
  return {};
}

Result<Expression> SchemaCompiler::CompileObject(const Conjunction& members) {
  Object object;
  for (const Subschema& schema : members) {
    const Json* names = Find(schema, "propertyNames");
    if (!names || *names == true) continue;
    // What it says of strings.
    Flat flat;
    RETURN_IF_ERROR(Flatten({source_.Child(schema, "propertyNames", *names)}, &flat));
    bool simple = !flat.never && flat.unions.empty();
    for (const Subschema& part : flat.members)
      for (const auto& [keyword, value] : part.json->items())
        simple = simple && (keyword == "pattern" || keyword == "format" || keyword == "type" ||
                            keyword == "description" || keyword == "$comment" ||
                            keyword == "$ref" || keyword == "enum");
    if (!simple)
      return source_.Fail(schema, "propertyNames",
                          "is supported with \"pattern\", \"format\" and \"enum\" only");
    ASSIGN_OR_RETURN(AutomatonPtr keys, TextAutomaton(flat.members));
    ASSIGN_OR_RETURN(const auto values, ValuesOf(flat.members));
    if (values) {
      std::vector<std::string> texts;
      for (const Json* value : *values)
        if (value->is_string()) texts.push_back(JsonQuoted(value->get_ref<const std::string&>()));
      if (texts.empty()) return source_.Fail(schema, "propertyNames", "allows no name at all");
      auto listed = Automaton::OfTexts(std::move(texts), builder_.budget());
      if (listed && keys) listed = Intersect(*keys, **listed, builder_.budget());
      if (!listed) return Wrap(schema, "propertyNames", listed.error());
      keys = *listed;
    }
    for (const Subschema& part : flat.members) {
      ASSIGN_OR_RETURN(const unsigned types, StatedTypes(part));
      if (!(types & kStringType))
        return source_.Fail(schema, "propertyNames", "allows no name at all");
    }
    if (!keys) continue;
    if (object.allowed_keys) {
      auto both = Intersect(*object.allowed_keys, *keys, builder_.budget());
      if (!both) return Wrap(schema, "propertyNames", both.error());
      keys = *both;
    }
    object.allowed_keys = keys;
  }
  RETURN_IF_ERROR(FindPatterns(members, &object));
  RETURN_IF_ERROR(FindProperties(members, &object));
  RETURN_IF_ERROR(FindOtherKeys(members, &object));
  return CompileMembers(members, object);
}

Result<Expression> SchemaCompiler::CompileMembers(const Conjunction& members,
                                                  const Object& object) {
  for (const Property& property : object.properties)
    if (property.never && property.required) return builder_.Never();
  std::vector<const Property*> properties;
  std::vector<std::string> names;
  uint32_t required = 0;
  for (const Property& property : object.properties) {
    names.push_back(JsonQuoted(property.name));
    if (property.never) continue;
    properties.push_back(&property);
    required += property.required ? 1 : 0;
  }

  // Keys without names: strings, of which those that mean something else are taken out.
  AutomatonPtr named;
  std::vector<Expression> unnamed;
  const auto fail = [&](const Error& error) { return Wrap(members.front(), "properties", error); };
  if (!names.empty() && (object.others || !object.patterns.empty())) {
    auto made = Automaton::OfTexts(std::move(names), builder_.budget());
    if (!made) return fail(made.error());
    named = *made;
  }
  const auto add_unnamed = [&](AutomatonPtr keys, Conjunction values) -> Status {
    if (object.allowed_keys) {
      auto both = keys ? Intersect(*keys, *object.allowed_keys, builder_.budget())
                       : Result<AutomatonPtr>(object.allowed_keys);
      if (!both) return fail(both.error());
      keys = *both;
    }
    if (named) {
      auto rest =
          Subtract(keys ? *keys : *JsonAutomata::Get().plain_string, *named, builder_.budget());
      if (!rest) return fail(rest.error());
      keys = *rest;
    }
    const Expression key = keys ? builder_.Match(keys) : builder_.JsonString();
    unnamed.push_back(
        builder_.Sequence({key, builder_.Literal(":"), Space(), RuleOf(std::move(values))}));
    return {};
  };
  for (const KeyGroup& group : object.patterns) {
    const bool refused = std::any_of(group.values.begin(), group.values.end(),
                                     [](const Subschema& value) { return *value.json == false; });
    if (!refused) RETURN_IF_ERROR(add_unnamed(group.keys, group.values));
  }
  if (object.others) {
    AutomatonPtr keys;
    for (const KeyGroup& group : object.patterns) {
      auto rest = Subtract(keys ? *keys : *JsonAutomata::Get().plain_string, *group.keys,
                           builder_.budget());
      if (!rest) return fail(rest.error());
      keys = *rest;
    }
    RETURN_IF_ERROR(add_unnamed(keys, object.other_values));
  }
  const Expression other = builder_.Choice(std::move(unnamed));
  const bool has_others = other.node != builder_.Never().node;

  // How many members there must be, and may be.
  ASSIGN_OR_RETURN(const Length size, LengthOf(members, "minProperties", "maxProperties"));
  const auto all_named = static_cast<uint32_t>(properties.size());
  const auto at_fault = [&](std::string_view keyword) {
    return *std::find_if(members.begin(), members.end(),
                         [&](const Subschema& schema) { return Find(schema, keyword) != nullptr; });
  };
  if (required > size.max) return builder_.Never();
  if (all_named > size.max)
    return source_.Fail(at_fault("maxProperties"), "maxProperties",
                        "is supported only where it allows all declared properties at once");
  const uint32_t others_max = size.max == Grammar::kNoBound ? size.max : size.max - all_named;
  uint32_t others_min = 0;
  bool may_be_empty = required == 0;
  if (size.min > required) {
    if (!has_others && size.min > all_named) return builder_.Never();
    // Two keys without names may be equal, and count once.
    if (required == 0 && size.min == 1)
      may_be_empty = false;
    else if (all_named == required && size.min == required + 1)
      others_min = 1;
    else
      return source_.Fail(at_fault("minProperties"), "minProperties",
                          "is supported only up to one more than the required properties");
  }

  const Expression comma = builder_.Sequence({builder_.Literal(","), Space()});
  // From the end. `first`: the members from here on, one at least; `behind`: with the comma before
  // them, or none.
  Expression first = builder_.Never(), behind = builder_.Empty();
  if (has_others) {
    const auto more = [&](uint32_t min, uint32_t max) {
      return builder_.Repeat(builder_.Sequence({comma, other}), min, max);
    };
    behind = more(others_min, others_max);
    if (others_max > 0)
      first = builder_.Sequence(
          {other, more(0, others_max == Grammar::kNoBound ? others_max : others_max - 1)});
  }
  bool all_optional = others_min == 0;  // those from here on
  for (size_t i = properties.size(); i-- > 0;) {
    const Property& property = *properties[i];
    const Expression member = builder_.Sequence(
        {builder_.Literal(JsonQuoted(property.name) + ":"), Space(), RuleOf(property.values)});
    const Expression with = builder_.Sequence({member, behind});
    first = property.required ? with : builder_.Choice({with, first});
    all_optional = all_optional && !property.required;
    behind = builder_.Sequence({comma, first});
    if (all_optional) behind = builder_.Optional(behind);
  }
  const Expression close = builder_.Literal("}");
  const Expression full = builder_.Sequence({first, Space(), close});
  return builder_.Sequence(
      {builder_.Literal("{"), Space(),
       may_be_empty && others_min == 0 ? builder_.Choice({close, full}) : full});
}

}  // namespace perdure::text
