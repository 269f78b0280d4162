#include "text/tokenizer/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace perdure::text {
namespace {

constexpr int kAlphabetEnd = 0x100 + 68;

struct Alphabet {
  std::array<std::array<char, 2>, 256> utf8;
  std::array<uint8_t, 256> utf8_length;
  std::array<int16_t, kAlphabetEnd> byte_of;  // by code point; -1 = none

  Alphabet() {
    byte_of.fill(-1);
    int next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool itself = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const int code_point = itself ? b : next++;
      std::string text;
      AppendUtf8(static_cast<char32_t>(code_point), &text);
      utf8[b] = {text[0], text.size() > 1 ? text[1] : '\0'};
      utf8_length[b] = static_cast<uint8_t>(text.size());
      byte_of[code_point] = static_cast<int16_t>(b);
    }
  }
};

const Alphabet& TheAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

std::string_view ByteLevelChar(uint8_t byte) {
  const Alphabet& a = TheAlphabet();
  return {a.utf8[byte].data(), a.utf8_length[byte]};
}

void AppendByteLevel(std::string_view bytes, std::string* out) {
  for (const char c : bytes) out->append(ByteLevelChar(static_cast<uint8_t>(c)));
}

bool AppendFromByteLevel(std::string_view chars, std::string* out) {
  const Alphabet& a = TheAlphabet();
  const size_t old_size = out->size();
  for (size_t i = 0; i < chars.size();) {
    const Utf8Char c = DecodeUtf8(chars, i);
    if (!c.valid || c.code_point >= kAlphabetEnd || a.byte_of[c.code_point] < 0) {
      out->resize(old_size);
      return false;
    }
    out->push_back(static_cast<char>(a.byte_of[c.code_point]));
    i += c.length;
  }
  return true;
}

}  // namespace perdure::text
