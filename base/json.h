// JSON from outside: bounded in depth, strict UTF-8, duplicate keys refused; key order is kept.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace perdure {

using Json = nlohmann::ordered_json;

// `what` names the text in errors ("the request body", a path). Errors have the code `code` and say
// line and column. Numbers that no double can hold (1e999), NaN and lone surrogates are errors.
Result<Json> ParseJson(std::string_view text, std::string_view what, ErrorCode code,
                       int max_depth = 64);

// Compact, UTF-8 as it is; bytes that are not UTF-8 become U+FFFD, so it never throws.
std::string DumpJson(const Json& value);

// "null", "boolean", "integer", "number", "string", "array" or "object": for error messages.
std::string_view JsonTypeName(const Json& value);

}  // namespace perdure
