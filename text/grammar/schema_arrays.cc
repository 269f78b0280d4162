// Lists: positions with schemas of their own, and those that share one.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/grammar/schema_compiler.h"

namespace perdure::text {
namespace {

struct ItemKeywords {
  const Json* positions = nullptr;  // a list of schemas
  std::string_view positions_keyword;
  const Json* others = nullptr;  // one for those behind
  std::string_view others_keyword;
};

// prefixItems and items are draft 2020-12's; items as a list and additionalItems are draft 7's.
ItemKeywords KeywordsOf(const Json& schema) {
  ItemKeywords keywords;
  const auto find = [&](std::string_view name) {
    const auto found = schema.find(name);
    return found == schema.end() ? nullptr : &*found;
  };
  keywords.positions = find("prefixItems");
  keywords.positions_keyword = "prefixItems";
  keywords.others = find("items");
  keywords.others_keyword = "items";
  if (!keywords.positions && keywords.others && keywords.others->is_array()) {
    keywords.positions = keywords.others;
    keywords.positions_keyword = "items";
    keywords.others = find("additionalItems");
    keywords.others_keyword = "additionalItems";
  }
  return keywords;
}

}  // namespace

Result<SchemaCompiler::Conjunction> SchemaCompiler::ItemsAt(const Conjunction& members,
                                                            size_t index) {
  Conjunction items;
  for (const Subschema& schema : members) {
    const ItemKeywords keywords = KeywordsOf(*schema.json);
    if (keywords.positions && index < keywords.positions->size())
      items.push_back(
          source_.Child(schema, keywords.positions_keyword, index, (*keywords.positions)[index]));
    else if (keywords.others)
      items.push_back(source_.Child(schema, keywords.others_keyword, *keywords.others));
  }
  RETURN_IF_ERROR(source_.Spend(members.size()));
  return items;
}

Result<Expression> SchemaCompiler::CompileArray(const Conjunction& members) {
  ASSIGN_OR_RETURN(Length length, LengthOf(members, "minItems", "maxItems"));
  uint32_t positions = 0;
  bool others = true;  // there may be more than have positions
  for (const Subschema& schema : members) {
    const ItemKeywords keywords = KeywordsOf(*schema.json);
    if (keywords.positions && !keywords.positions->is_array())
      return source_.Fail(schema, keywords.positions_keyword, "must be a list of schemas");
    if (keywords.positions) {
      positions = std::max(positions, static_cast<uint32_t>(keywords.positions->size()));
      others = others && keywords.others != nullptr;
    }
    const Json* unique = Find(schema, "uniqueItems");
    if (unique && *unique != false && length.max > 1)
      return source_.Unsupported(schema, "uniqueItems");
  }
  // Those without a schema are left out, unless there must be some.
  if (positions > 0 && !others && length.min <= positions)
    length.max = std::min(length.max, positions);
  if (length.min > length.max) return builder_.Never();

  const Expression comma = builder_.Sequence({builder_.Literal(","), Space()});
  const Expression close = builder_.Sequence({Space(), builder_.Literal("]")});
  // From the end: what may follow so many items, then what may stand instead of the rest.
  Expression rest = builder_.Empty();
  if (length.max > positions) {
    ASSIGN_OR_RETURN(Conjunction items, ItemsAt(members, positions));
    const Expression item = RuleOf(std::move(items));
    const uint32_t least = length.min > positions ? length.min - positions : 0;
    const uint32_t most = length.max == Grammar::kNoBound ? length.max : length.max - positions;
    const auto behind = [&](uint32_t min, uint32_t max) {
      return builder_.Repeat(builder_.Sequence({comma, item}), min, max);
    };
    if (positions > 0) {
      rest = behind(least, most);
    } else {
      const uint32_t more = most == Grammar::kNoBound ? most : most - 1;
      rest = builder_.Sequence({item, behind(least > 0 ? least - 1 : 0, more)});
      if (least == 0) rest = builder_.Choice({builder_.Empty(), rest});
    }
  }
  for (uint32_t i = std::min(positions, length.max); i-- > 0;) {
    ASSIGN_OR_RETURN(Conjunction items, ItemsAt(members, i));
    const Expression item = RuleOf(std::move(items));
    rest = i == 0 ? builder_.Sequence({item, rest}) : builder_.Sequence({comma, item, rest});
    if (i >= length.min) rest = builder_.Choice({builder_.Empty(), rest});
  }
  if (length.max == 0) rest = builder_.Empty();
  return builder_.Sequence({builder_.Literal("["), Space(), rest, close});
}

}  // namespace perdure::text
