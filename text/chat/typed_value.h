// Values that a model writes as plain text, made JSON by the types that a schema allows.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/chat/tool_signature.h"

namespace perdure::text {

// `text`, without the white space around it, as JSON of one of the types, strings aside; nullopt
// where it is none. Python's True, False and None are read, too: templates show them to models.
std::optional<std::string> TypedValue(std::string_view text, JsonTypes types);

}  // namespace perdure::text
