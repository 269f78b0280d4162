// How characters are spelled between the quotes of a JSON string, each as short as it can be. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace perdure::text {

// The two characters that stand for `c`, where there are such ("\n", "\""); else empty.
std::string_view ShortJsonEscape(char32_t c);
// Of a character that cannot stand for itself: the short one, or \u and four digits.
std::string JsonEscapeOf(uint32_t code_point);
// Appends what stands for a byte of UTF-8: itself, but for '"', '\' and control characters.
void AppendJsonEscaped(char c, std::string* out);
// `text`, UTF-8, as a JSON string with its quotes.
std::string JsonQuoted(std::string_view text);

}  // namespace perdure::text
