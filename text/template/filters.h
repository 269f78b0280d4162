// Tables of filters, a file each.
#pragma once

#include <string_view>

#include "text/template/value.h"

namespace perdure::text::jinja {

Function FindStringFilter(std::string_view name);    // string_filters.cc
Function FindSequenceFilter(std::string_view name);  // sequence_filters.cc
Function FindSelectFilter(std::string_view name);    // select_filters.cc
Function FindNumberFilter(std::string_view name);    // number_filters.cc
Function FindMarkupFilter(std::string_view name);    // markup_filters.cc
Function FindJsonFilter(std::string_view name);      // json_filters.cc

struct FilterEntry {
  std::string_view name;
  Function function;
};

// The error for a name that FindFilter does not know.
tl::unexpected<Error> UnknownFilter(std::string_view name);

// "a.b.0": each part an attribute or index; what environment.getitem finds, `fallback` where it is
// undefined (unless absent).
Result<Value> GetPath(Runtime& rt, Value value, const Value& path, const Value& fallback);
// Lower case where the value is a string.
Result<Value> IgnoreCase(Runtime& rt, const Value& value);

}  // namespace perdure::text::jinja
