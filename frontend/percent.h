// Percent-encoding of URLs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace perdure::frontend {

// "%2F" → "/"; empty where an escape is malformed.
std::optional<std::string> PercentDecode(std::string_view text);

}  // namespace perdure::frontend
