// The byte-level alphabet of GPT-2: each byte stands as one printable character, so that a
// vocabulary over bytes can be written as text. Printable Latin-1 stands for itself, the other 68
// bytes are U+0100 upwards in their order (openai/gpt-2, encoder.py, bytes_to_unicode).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace perdure::text {

// The character of `byte`, UTF-8.
std::string_view ByteLevelChar(uint8_t byte);
// Appends the characters of all bytes of `bytes`.
void AppendByteLevel(std::string_view bytes, std::string* out);
// Appends the bytes that `chars` stands for; false, and nothing appended, if a character in it is
// none of the alphabet's.
bool AppendFromByteLevel(std::string_view chars, std::string* out);

}  // namespace perdure::text
