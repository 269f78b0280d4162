// Bytes of tokens to whole characters: a token may end inside a character.
#pragma once

#include <string>
#include <string_view>

namespace perdure::text {

// A value: copying it copies at most three pending bytes.
class Utf8Assembler {
 public:
  // Appends the characters that `bytes` completes, and U+FFFD for what can no longer become one.
  void Push(std::string_view bytes, std::string* out);
  // The end of the text: an unfinished character becomes U+FFFD.
  void Finish(std::string* out);
  // A character has begun and is not complete.
  bool pending() const { return !pending_.empty(); }

 private:
  std::string pending_;  // the beginning of a character
};

}  // namespace perdure::text
