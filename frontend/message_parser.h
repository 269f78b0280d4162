// Chat messages and tools of a request → the normalized JSON that chat templates are given. Pure.
//
// Normalized: "developer" is "system"; text parts are joined by line breaks; "reasoning" is
// "reasoning_content"; unknown fields are dropped. Arguments of tool calls stay as they are given.
#pragma once

#include "base/json.h"
#include "base/result.h"

namespace perdure::frontend {

// `messages` is consumed: its strings move into the result.
Result<Json> ParseMessages(Json messages);
// Checks an array of function tools; they are passed on as they are.
Status CheckTools(const Json& tools);

}  // namespace perdure::frontend
