// Chat messages and tools of a request → the normalized JSON that chat templates are given. Pure.
//
// Normalized: "developer" is "system"; text parts are joined by line breaks; arguments of tool
// calls are objects where they parse (templates print them as JSON again); unknown fields are
// dropped.
#pragma once

#include "base/json.h"
#include "base/result.h"

namespace perdure::frontend {

// `messages` is consumed: its strings move into the result.
Result<Json> ParseMessages(Json messages);
// Checks an array of function tools; they are passed on as they are.
Status CheckTools(const Json& tools);

}  // namespace perdure::frontend
