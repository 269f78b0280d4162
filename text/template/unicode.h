// Characters as Python's str sees them: code points, their classes and case mappings.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "text/template/marked_string.h"

namespace perdure::text::jinja {

// The code point at `*at`, which moves behind it. A byte that is not UTF-8 gives U+FFFD.
char32_t NextCodePoint(std::string_view text, size_t* at);
void AppendCodePoint(std::string* out, char32_t c);
bool IsValidUtf8(std::string_view text);
bool IsAscii(std::string_view text);
size_t CountCodePoints(std::string_view text);
// The byte offset of code point number `index`; the size when there are fewer.
size_t OffsetOfCodePoint(std::string_view text, size_t index);

bool IsSpace(char32_t c);      // str.isspace, str.strip
bool IsLineBreak(char32_t c);  // str.splitlines
bool IsAlpha(char32_t c);
bool IsDecimal(char32_t c);
bool IsDigit(char32_t c);
bool IsNumeric(char32_t c);
bool IsUpper(char32_t c);
bool IsLower(char32_t c);
bool IsTitle(char32_t c);
bool IsPrintable(char32_t c);
bool IsIdentifier(std::string_view text);

enum class Case { kLower, kUpper, kTitle, kCapitalize, kSwap, kFold };
// str.lower and its like, by the full mappings ("ß" becomes "SS"); marks follow each character.
MarkedString MapCase(const MarkedString& text, Case mode);
std::string MapCase(std::string_view text, Case mode);

}  // namespace perdure::text::jinja
