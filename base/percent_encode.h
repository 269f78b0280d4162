// Any text as part of a file's name, and of URLs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace perdure {

// ASCII letters, digits, '-', '_' and what is in `also_kept` stay; other bytes become %XX.
std::string PercentEncode(std::string_view text, std::string_view also_kept);

// "%2F" → "/"; empty where an escape is malformed.
std::optional<std::string> PercentDecode(std::string_view text);

}  // namespace perdure
