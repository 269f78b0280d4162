// A schema as it is read: where its parts stand, and what references mean.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace perdure::text {

// A part of the schema with the way that led to it, by references or not.
struct Subschema {
  const Json* json = nullptr;
  uint32_t place = 0;     // where it stands: SchemaSource::PointerOf
  uint32_t ancestry = 0;  // which schemas it is applied for, to the same value
};

// Not thread-safe; `root` outlives it.
class SchemaSource {
 public:
  explicit SchemaSource(const Json& root);

  Subschema Root() const { return {&root_, 0, 0}; }
  // Of a keyword's value, or a part of it; for another value than the parent's.
  Subschema Child(const Subschema& parent, std::string_view keyword, const Json& json);
  Subschema Child(const Subschema& parent, std::string_view keyword, std::string_view key,
                  const Json& json);
  Subschema Child(const Subschema& parent, std::string_view keyword, size_t index,
                  const Json& json);
  // The same schema, applied to the same value as `parent`. An error if it already is on the way.
  Result<Subschema> Applied(const Subschema& parent, Subschema child);
  // What a "$ref" in `from` means, applied for it.
  Result<Subschema> Resolve(const Subschema& from, const Json& reference);

  // "#/properties/a".
  std::string PointerOf(const Subschema& schema) const;
  // 'schema keyword "…" at #/… <what>'.
  tl::unexpected<Error> Fail(const Subschema& at, std::string_view keyword,
                             std::string_view what) const;
  tl::unexpected<Error> Unsupported(const Subschema& at, std::string_view keyword) const;
  // Counts work; an error when it is too much.
  Status Spend(size_t steps);

 private:
  struct Place {
    uint32_t parent;
    std::string_view key;  // empty and `index` for the parts of a list
    int64_t index;
  };
  // The member of a large object; null if there is none. Searched by name each time, many
  // references to many definitions would take long.
  std::pair<std::string_view, const Json*> Member(const Json& object, const std::string& name);
  uint32_t AddPlace(uint32_t parent, std::string_view key, int64_t index);

  const Json& root_;
  std::vector<Place> places_;
  struct Ancestor {
    const Json* json;
    uint32_t parent;
  };
  std::vector<Ancestor> ancestry_;
  std::unordered_map<const Json*,
                     std::unordered_map<std::string_view, std::pair<std::string_view, const Json*>>>
      members_;
  int64_t steps_ = 0;
};

}  // namespace perdure::text
