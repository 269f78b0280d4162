// What a parser of calls has to know of a request's tools.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace perdure::text {

// Types that a parameter's schema allows, as bits.
using JsonTypes = uint8_t;
inline constexpr JsonTypes kJsonString = 1 << 0;
inline constexpr JsonTypes kJsonInteger = 1 << 1;
inline constexpr JsonTypes kJsonNumber = 1 << 2;
inline constexpr JsonTypes kJsonBoolean = 1 << 3;
inline constexpr JsonTypes kJsonObject = 1 << 4;
inline constexpr JsonTypes kJsonArray = 1 << 5;
inline constexpr JsonTypes kJsonNull = 1 << 6;

struct ToolSignature {
  std::string name;
  // Those whose schema tells a type; others are strings.
  std::map<std::string, JsonTypes, std::less<>> parameters;
};

// Of a request's `tools`, [{type, function: {name, parameters}}] or the same without `function`.
// What is no function with a name is left out: requests are checked elsewhere.
std::vector<ToolSignature> ToolSignatures(const Json& tools);

// nullptr where none has the name.
const ToolSignature* FindTool(const std::vector<ToolSignature>& tools, std::string_view name);
// One of the names begins so.
bool AnyToolBegins(const std::vector<ToolSignature>& tools, std::string_view beginning);

}  // namespace perdure::text
