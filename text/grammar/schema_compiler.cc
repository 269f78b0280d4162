#include "text/grammar/schema_compiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/limits.h"

namespace perdure::text {
namespace {

// Keywords that would have to be kept and are not. All that stand nowhere in this compiler are
// annotations.
constexpr std::array<std::string_view, 14> kUnsupported = {"not",
                                                           "contains",
                                                           "minContains",
                                                           "maxContains",
                                                           "dependencies",
                                                           "dependentRequired",
                                                           "dependentSchemas",
                                                           "unevaluatedItems",
                                                           "$recursiveRef",
                                                           "$dynamicRef",
                                                           "unevaluatedProperties",
                                                           "propertyDependencies",
                                                           "contentEncoding",
                                                           "contentMediaType"};

// Which types a keyword is about. A schema that names no type means these.
struct KeywordTypes {
  std::string_view keyword;
  unsigned types;
};
constexpr std::array<KeywordTypes, 21> kKeywordTypes = {{
    {"properties", kObjectType},
    {"required", kObjectType},
    {"additionalProperties", kObjectType},
    {"patternProperties", kObjectType},
    {"propertyNames", kObjectType},
    {"minProperties", kObjectType},
    {"maxProperties", kObjectType},
    {"items", kArrayType},
    {"prefixItems", kArrayType},
    {"additionalItems", kArrayType},
    {"minItems", kArrayType},
    {"maxItems", kArrayType},
    {"uniqueItems", kArrayType},
    {"minLength", kStringType},
    {"maxLength", kStringType},
    {"pattern", kStringType},
    {"format", kStringType},
    {"minimum", kIntegerType | kFractionType},
    {"maximum", kIntegerType | kFractionType},
    {"exclusiveMinimum", kIntegerType | kFractionType},
    {"exclusiveMaximum", kIntegerType | kFractionType},
}};

}  // namespace

unsigned TypeOf(const Json& value) {
  switch (value.type()) {
    case Json::value_t::boolean:
      return kBooleanType;
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
      return kIntegerType;
    case Json::value_t::number_float:
      // 1.0 is an integer.
      return std::floor(value.get<double>()) == value.get<double>() ? kIntegerType : kFractionType;
    case Json::value_t::string:
      return kStringType;
    case Json::value_t::array:
      return kArrayType;
    case Json::value_t::object:
      return kObjectType;
    default:
      return kNullType;
  }
}

bool EqualJson(const Json& a, const Json& b) {
  if (a.is_object() && b.is_object()) {
    if (a.size() != b.size()) return false;
    return std::all_of(a.items().begin(), a.items().end(), [&](const auto& entry) {
      const auto found = b.find(entry.key());
      return found != b.end() && EqualJson(entry.value(), *found);
    });
  }
  if (a.is_array() && b.is_array())
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), EqualJson);
  return a == b;
}

const Json* SchemaCompiler::Find(const Subschema& schema, std::string_view keyword) {
  const auto found = schema.json->find(keyword);
  return found == schema.json->end() ? nullptr : &*found;
}

tl::unexpected<Error> SchemaCompiler::Wrap(const Subschema& at, std::string_view keyword,
                                           const Error& error) {
  return Err(error.code, fmt::format("schema keyword \"{}\" at {}: {}", keyword,
                                     source_.PointerOf(at), error.message));
}

Result<Expression> SchemaCompiler::Run() {
  const Expression root = RuleOf({source_.Root()});
  while (!open_.empty()) {
    auto [rule, conjunction] = std::move(open_.front());
    open_.pop_front();
    Flat flat;
    RETURN_IF_ERROR(Flatten(conjunction, &flat));
    ASSIGN_OR_RETURN(const Expression body, CompileUnions(std::move(flat), 0, 0));
    builder_.DefineRule(rule, body);
    RETURN_IF_ERROR(builder_.status());
    if (rules_.size() > limits::kGrammarRulesMax)
      return Err(ErrorCode::invalid_request,
                 fmt::format("the schema has more than {} subschemas and combinations of them",
                             limits::kGrammarRulesMax));
  }
  return root;
}

Expression SchemaCompiler::RuleOf(Conjunction conjunction) {
  const auto says_nothing = [](const Subschema& schema) {
    return schema.json->is_boolean() ? schema.json->get<bool>()
                                     : schema.json->is_object() && schema.json->empty();
  };
  std::erase_if(conjunction, says_nothing);
  if (conjunction.empty()) return builder_.JsonValue();
  std::vector<const Json*> key;
  for (const Subschema& schema : conjunction) key.push_back(schema.json);
  std::sort(key.begin(), key.end());
  key.erase(std::unique(key.begin(), key.end()), key.end());
  const auto known = rules_.find(key);
  if (known != rules_.end()) return known->second;
  const Expression rule = builder_.DeclareRule();
  rules_.emplace(std::move(key), rule);
  open_.emplace_back(rule, std::move(conjunction));
  return rule;
}

Status SchemaCompiler::CheckKeywords(const Subschema& schema) {
  RETURN_IF_ERROR(source_.Spend(schema.json->size() + 1));
  for (const std::string_view keyword : kUnsupported) {
    const Json* value = Find(schema, keyword);
    if (value && !(value->is_object() && value->empty() && keyword.starts_with("depend")))
      return source_.Unsupported(schema, keyword);
  }
  if (Find(schema, "if") && (Find(schema, "then") || Find(schema, "else")))
    return source_.Unsupported(schema, "if");
  // References below it would mean other places.
  const Json* id = Find(schema, "$id");
  if (id && schema.place != 0 &&
      !(id->is_string() && id->get_ref<const std::string&>().starts_with('#')))
    return source_.Fail(schema, "$id", "is supported at the root only");
  return {};
}

Status SchemaCompiler::Flatten(const Conjunction& added, Flat* flat) {
  std::unordered_set<const Json*> seen;
  for (const Subschema& member : flat->members) seen.insert(member.json);
  std::vector<Subschema> open(added.rbegin(), added.rend());
  while (!open.empty()) {
    const Subschema schema = open.back();
    open.pop_back();
    RETURN_IF_ERROR(source_.Spend(1));
    if (schema.json->is_boolean()) {
      if (!schema.json->get<bool>()) flat->never = true;
      continue;
    }
    if (!schema.json->is_object())
      return Err(ErrorCode::invalid_request,
                 fmt::format("the schema at {} must be an object or a boolean",
                             source_.PointerOf(schema)));
    if (!seen.insert(schema.json).second) continue;
    RETURN_IF_ERROR(CheckKeywords(schema));
    flat->members.push_back(schema);
    for (const std::string_view keyword : {std::string_view("anyOf"), std::string_view("oneOf")}) {
      const Json* branches = Find(schema, keyword);
      if (!branches) continue;
      if (!branches->is_array() || branches->empty())
        return source_.Fail(schema, keyword, "must be a list of schemas");
      flat->unions.push_back({schema, keyword});
    }
    // Behind what is open, so that members come in the order in which they stand.
    if (const Json* all = Find(schema, "allOf")) {
      if (!all->is_array()) return source_.Fail(schema, "allOf", "must be a list of schemas");
      for (size_t i = all->size(); i-- > 0;) {
        ASSIGN_OR_RETURN(const Subschema part,
                         source_.Applied(schema, source_.Child(schema, "allOf", i, (*all)[i])));
        open.push_back(part);
      }
    }
    if (const Json* reference = Find(schema, "$ref")) {
      ASSIGN_OR_RETURN(const Subschema target, source_.Resolve(schema, *reference));
      open.push_back(target);
    }
  }
  return {};
}

Result<Expression> SchemaCompiler::CompileUnions(Flat flat, size_t next_union, int depth) {
  if (flat.never) return builder_.Never();
  if (next_union == flat.unions.size()) return CompileTypes(flat.members);
  if (depth > limits::kGrammarUnionDepthMax)
    return Err(ErrorCode::invalid_request,
               fmt::format("the schema has more than {} alternatives inside each other",
                           limits::kGrammarUnionDepthMax));
  const Union all = flat.unions[next_union];
  const Json& branches = *Find(all.holder, all.keyword);
  std::vector<Subschema> schemas;
  for (size_t i = 0; i < branches.size(); ++i) {
    ASSIGN_OR_RETURN(
        const Subschema branch,
        source_.Applied(all.holder, source_.Child(all.holder, all.keyword, i, branches[i])));
    schemas.push_back(branch);
  }
  if (all.keyword == "oneOf") {
    for (size_t i = 0; i < schemas.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        ASSIGN_OR_RETURN(const bool disjoint, Disjoint(schemas[j], schemas[i], 0));
        if (!disjoint)
          return source_.Fail(
              all.holder, "oneOf",
              fmt::format("is supported only where no value can match two of its schemas, and {} "
                          "and {} may both match; use \"anyOf\", or tell them apart by a required "
                          "property with different constants",
                          j, i));
      }
    }
  }
  std::vector<Expression> ways;
  for (const Subschema& branch : schemas) {
    Flat with_branch = flat;
    RETURN_IF_ERROR(source_.Spend(flat.members.size()));
    RETURN_IF_ERROR(Flatten({branch}, &with_branch));
    ASSIGN_OR_RETURN(const Expression way,
                     CompileUnions(std::move(with_branch), next_union + 1, depth + 1));
    ways.push_back(way);
  }
  return builder_.Choice(std::move(ways));
}

Result<unsigned> SchemaCompiler::StatedTypes(const Subschema& schema) {
  const Json* type = Find(schema, "type");
  if (!type) return unsigned{kAllTypes};
  const auto bits = [&](const Json& name) -> Result<unsigned> {
    if (name == "null") return unsigned{kNullType};
    if (name == "boolean") return unsigned{kBooleanType};
    if (name == "integer") return unsigned{kIntegerType};
    if (name == "number") return unsigned{kIntegerType | kFractionType};
    if (name == "string") return unsigned{kStringType};
    if (name == "array") return unsigned{kArrayType};
    if (name == "object") return unsigned{kObjectType};
    return source_.Fail(schema, "type", "must be one of the seven types, or a list of them");
  };
  if (!type->is_array()) return bits(*type);
  unsigned types = 0;
  for (const Json& name : *type) {
    ASSIGN_OR_RETURN(const unsigned bit, bits(name));
    types |= bit;
  }
  return types;
}

Result<unsigned> SchemaCompiler::TypesOf(const Conjunction& members) {
  unsigned stated = kAllTypes;
  unsigned implied = 0;
  bool is_stated = false;
  for (const Subschema& schema : members) {
    ASSIGN_OR_RETURN(const unsigned types, StatedTypes(schema));
    stated &= types;
    is_stated |= Find(schema, "type") != nullptr;
    for (const auto& [keyword, about] : kKeywordTypes)
      if (Find(schema, keyword)) implied |= about;
    if (Find(schema, "multipleOf")) implied |= kIntegerType | kFractionType;
  }
  // {"properties": …} alone means an object to those who write it; strings would be valid, too.
  if (!is_stated && implied != 0) return implied;
  return stated;
}

Result<std::optional<std::vector<const Json*>>> SchemaCompiler::ValuesOf(
    const Conjunction& members) {
  std::optional<std::vector<const Json*>> values;
  const auto restrict_to = [&](std::vector<const Json*> more) -> Status {
    if (!values) {
      values = std::move(more);
      return {};
    }
    RETURN_IF_ERROR(source_.Spend(values->size() * more.size() / 16));
    std::erase_if(*values, [&](const Json* value) {
      return std::none_of(more.begin(), more.end(),
                          [&](const Json* other) { return EqualJson(*value, *other); });
    });
    return {};
  };
  for (const Subschema& schema : members) {
    if (const Json* constant = Find(schema, "const")) RETURN_IF_ERROR(restrict_to({constant}));
    const Json* list = Find(schema, "enum");
    if (!list) continue;
    if (!list->is_array()) return source_.Fail(schema, "enum", "must be a list");
    if (list->size() > limits::kGrammarEnumMax)
      return source_.Fail(schema, "enum",
                          fmt::format("has more than {} values", limits::kGrammarEnumMax));
    std::vector<const Json*> all;
    for (const Json& value : *list) all.push_back(&value);
    RETURN_IF_ERROR(restrict_to(std::move(all)));
  }
  return values;
}

Result<Expression> SchemaCompiler::CompileTypes(const Conjunction& members) {
  RETURN_IF_ERROR(source_.Spend(members.size() * 4));
  ASSIGN_OR_RETURN(const auto values, ValuesOf(members));
  if (values) {
    unsigned stated = kAllTypes;
    for (const Subschema& schema : members) {
      ASSIGN_OR_RETURN(const unsigned types, StatedTypes(schema));
      stated &= types;
    }
    return CompileValues(members, stated, *values);
  }
  ASSIGN_OR_RETURN(const unsigned types, TypesOf(members));
  std::vector<Expression> ways;
  if (types & kObjectType) {
    ASSIGN_OR_RETURN(const Expression way, CompileObject(members));
    ways.push_back(way);
  }
  if (types & kArrayType) {
    ASSIGN_OR_RETURN(const Expression way, CompileArray(members));
    ways.push_back(way);
  }
  if (types & kStringType) {
    ASSIGN_OR_RETURN(const Expression way, CompileString(members));
    ways.push_back(way);
  }
  if (types & (kIntegerType | kFractionType)) {
    ASSIGN_OR_RETURN(const Expression way, CompileNumber(members, !(types & kFractionType)));
    ways.push_back(way);
  }
  std::vector<std::string> words;
  if (types & kBooleanType) words.insert(words.end(), {"true", "false"});
  if (types & kNullType) words.push_back("null");
  if (!words.empty()) ways.push_back(builder_.Texts(std::move(words)));
  return builder_.Choice(std::move(ways));
}

Result<Expression> AddJsonSchema(const Json& schema, const JsonSchemaOptions& options,
                                 GrammarBuilder* builder) {
  return SchemaCompiler(schema, options, builder).Run();
}

Result<GrammarPtr> CompileJsonSchema(const Json& schema, const JsonSchemaOptions& options) {
  GrammarBuilder builder;
  ASSIGN_OR_RETURN(const Expression root, AddJsonSchema(schema, options, &builder));
  auto grammar = builder.Build(root);
  if (!grammar) return Err(grammar.error().code, "the schema " + grammar.error().message);
  return grammar;
}

}  // namespace perdure::text
