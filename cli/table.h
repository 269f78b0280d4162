// Figures for people: tables, sizes, numbers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace perdure::cli {

// Lines of left-aligned columns, two blanks apart. Widths count characters, not bytes.
std::string Table(const std::vector<std::vector<std::string>>& rows);

std::string Bytes(uint64_t bytes);     // "57.0 GiB", "512 B"
std::string Grouped(uint64_t number);  // "40,960"

// The member of an object, seconds since 1970, as local time; "never" where it is 0 or missing.
std::string TimeOf(const Json& object, const char* key);

// As one line, or (with `lines`) as several: control characters, which a terminal would obey, are
// shown as U+FFFD.
std::string Printable(std::string_view text, bool lines = false);

// The member of an object as text: "-" where it is missing, null or empty.
std::string TextOf(const Json& object, const char* key);

}  // namespace perdure::cli
