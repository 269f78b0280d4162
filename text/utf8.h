// UTF-8 as the Unicode standard recommends it: what is not a character is replaced by one U+FFFD
// per maximal subpart (Unicode 15, table 3-8), which is also what Python's errors="replace" does.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace perdure::text {

inline constexpr char32_t kReplacementChar = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

struct Utf8Char {
  char32_t code_point = kReplacementChar;
  int length = 0;  // bytes of the character, or of the maximal subpart that is none
  bool valid = false;
  bool incomplete = false;  // not valid, but further bytes behind the text's end could make it so
};

// The character at text[pos]; pos < text.size().
Utf8Char DecodeUtf8(std::string_view text, size_t pos);
// The character that ends right before text[end]; `text` is valid UTF-8 and 0 < end <= text.size().
Utf8Char DecodeUtf8Before(std::string_view text, size_t end);
void AppendUtf8(char32_t code_point, std::string* out);
bool IsValidUtf8(std::string_view text);
// Of valid UTF-8.
bool IsOneCharacter(std::string_view text);

// Unicode's White_Space property.
bool IsWhiteSpace(char32_t code_point);

}  // namespace perdure::text
