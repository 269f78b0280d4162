// Tables of methods, a file each.
#pragma once

#include <string_view>

#include "text/template/value.h"

namespace perdure::text::jinja {

Function FindStringMethod(std::string_view name);                         // string_methods.cc
Function FindCollectionMethod(const Value& self, std::string_view name);  // collection_methods.cc

// str.isupper or str.islower.
bool HasCase(std::string_view text, bool upper);

}  // namespace perdure::text::jinja
