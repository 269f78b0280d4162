// The query of a request's target. Pure.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace perdure::frontend {

// The path alone.
std::string_view PathOf(std::string_view target);

// Names and values in their order, decoded; empty names are left out. invalid_request where it is
// not percent-encoded properly.
Result<std::vector<std::pair<std::string, std::string>>> QueryOf(std::string_view target);

// For a name that is not known here.
tl::unexpected<Error> UnknownParameter(std::string_view name);

// A whole number from min to max.
Result<int64_t> NumberOf(std::string_view name, std::string_view text, int64_t min, int64_t max);

}  // namespace perdure::frontend
