// Any text as part of a file's name.
#pragma once

#include <string>
#include <string_view>

namespace perdure {

// ASCII letters, digits, '-', '_' and what is in `also_kept` stay; other bytes become %XX.
std::string PercentEncode(std::string_view text, std::string_view also_kept);

}  // namespace perdure
