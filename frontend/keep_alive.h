// A request's `keep_alive`: how long its model shall stay in memory after the answer, as Ollama's
// clients say it. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "base/json.h"
#include "base/result.h"

namespace perdure::frontend {

// Seconds as a number, or a text of numbers with units ("1h30m", "45s", "500ms"; "300" is seconds).
// -1, for ever, where it is below zero; nothing where the request does not say.
Result<std::optional<int32_t>> ReadKeepAlive(const Json& body);

}  // namespace perdure::frontend
