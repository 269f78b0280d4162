// The parts of the schema compiler. A value is described by all the schemas that apply to it at
// once (a conjunction): allOf and $ref add to them, anyOf and oneOf make alternatives of them, and
// what is left is sorted by types. The values inside of lists and objects have conjunctions of
// their own, each of which is a rule, made once.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/grammar/grammar.h"
#include "text/grammar/json_automata.h"
#include "text/grammar/json_schema.h"
#include "text/grammar/schema_source.h"

namespace perdure::text {

// Types of JSON Schema as bits; numbers that are no integers have their own.
enum SchemaType : unsigned {
  kNullType = 1,
  kBooleanType = 2,
  kIntegerType = 4,
  kFractionType = 8,
  kStringType = 16,
  kArrayType = 32,
  kObjectType = 64,
  kAllTypes = 127,
};

// The one bit of a value's type.
unsigned TypeOf(const Json& value);
// Equal as JSON Schema has it: 1 and 1.0 are, the order of an object's keys is not looked at.
bool EqualJson(const Json& a, const Json& b);

class SchemaCompiler {
 public:
  SchemaCompiler(const Json& schema, const JsonSchemaOptions& options, GrammarBuilder* builder)
      : source_(schema), options_(options), builder_(*builder) {}

  Result<Expression> Run();

 private:
  using Conjunction = std::vector<Subschema>;
  struct Union {
    Subschema holder;
    std::string_view keyword;  // anyOf or oneOf
  };
  // What applies to one value: schemas that are objects, without duplicates.
  struct Flat {
    Conjunction members;
    std::vector<Union> unions;  // of the members
    bool never = false;         // `false` is among them
  };

  // schema_compiler.cc
  Expression RuleOf(Conjunction conjunction);
  Status Flatten(const Conjunction& added, Flat* flat);
  Status CheckKeywords(const Subschema& schema);
  Result<Expression> CompileUnions(Flat flat, size_t next_union, int depth);
  Result<Expression> CompileTypes(const Conjunction& members);
  Result<unsigned> TypesOf(const Conjunction& members);
  Result<unsigned> StatedTypes(const Subschema& schema);
  Result<std::optional<std::vector<const Json*>>> ValuesOf(const Conjunction& members);

  // schema_values.cc
  Result<Expression> CompileValues(const Conjunction& members, unsigned types,
                                   const std::vector<const Json*>& values);
  Result<bool> Allows(const Conjunction& members, const Json& value);
  Expression Constant(const Json& value, int depth);

  // schema_scalars.cc
  struct Length {
    uint32_t min = 0;
    uint32_t max = Grammar::kNoBound;
  };
  // The bounds that two keywords set together.
  Result<Length> LengthOf(const Conjunction& members, std::string_view min_keyword,
                          std::string_view max_keyword);
  // Of patterns and formats; null if there are none.
  Result<AutomatonPtr> TextAutomaton(const Conjunction& members);
  Result<Expression> CompileString(const Conjunction& members);
  Result<NumberBounds> BoundsOf(const Conjunction& members, bool integer);
  // Of multipleOf; null if it is not there.
  Result<AutomatonPtr> MultiplesAutomaton(const Conjunction& members);
  Result<Expression> CompileNumber(const Conjunction& members, bool integer);

  // schema_arrays.cc
  Result<Expression> CompileArray(const Conjunction& members);
  Result<Conjunction> ItemsAt(const Conjunction& members, size_t index);

  // schema_objects.cc
  struct Property;
  struct Object;
  struct KeyGroup;
  Result<Expression> CompileObject(const Conjunction& members);
  Status FindProperties(const Conjunction& members, Object* object);
  Status FindPatterns(const Conjunction& members, Object* object);
  Status FindOtherKeys(const Conjunction& members, Object* object);
  Result<Expression> CompileMembers(const Conjunction& members, const Object& object);

  // schema_disjoint.cc
  // True if it is certain that no value satisfies both.
  Result<bool> Disjoint(const Subschema& a, const Subschema& b, int depth);
  Result<bool> DisjointObjects(const Flat& a, const Flat& b, int depth);

  Expression Space() { return options_.white_space ? builder_.WhiteSpace() : builder_.Empty(); }
  // What a schema says for a keyword; null if it does not.
  static const Json* Find(const Subschema& schema, std::string_view keyword);
  // An error of automata, with the keyword at fault.
  tl::unexpected<Error> Wrap(const Subschema& at, std::string_view keyword, const Error& error);

  SchemaSource source_;
  JsonSchemaOptions options_;
  GrammarBuilder& builder_;
  std::map<std::vector<const Json*>, Expression> rules_;
  std::deque<std::pair<Expression, Conjunction>> open_;
  std::map<std::pair<std::string, bool>, AutomatonPtr> texts_;  // by pattern, or format
};

}  // namespace perdure::text
