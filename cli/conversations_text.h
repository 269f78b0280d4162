// Stored conversations for people. Whoever said what stands in them wrote it for a model, not for a
// terminal: control characters are shown, not obeyed. Pure.
#pragma once

#include <string>

#include "base/json.h"

namespace perdure::cli {

// Of a list, each with its "model".
std::string FormatConversations(const Json& list);
std::string FormatTenants(const Json& list);
// One with its messages.
std::string FormatConversation(const Json& conversation);
// "a of tenant 0123456789abcdef: 2 turns, 161 tokens"
std::string Summary(const Json& conversation);

// What was saved by name.
std::string FormatSaved(const Json& list);

}  // namespace perdure::cli
