// Added tokens: contents that are found in text before anything else and become one token each
// ("<|im_start|>"), as Hugging Face's `tokenizers` finds them.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/token.h"
#include "text/text_range.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/regex.h"

namespace perdure::text {

struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space behind it along
  bool normalized = false;   // is looked for in normalized text
  bool special = false;
};

// bad_model: no content, ids out of range, one content or id for two tokens.
Result<std::vector<AddedToken>> AddedTokensFromJson(const JsonField& document);

// A part of a text: an added token's, or ordinary text (id < 0).
struct TextPart {
  TextRange range;
  TokenId id = -1;
};

// Finds a fixed set of added tokens: leftmost first, of those the longest. Immutable, thread-safe.
class AddedTokenFinder {
 public:
  struct Pattern {
    std::string text;  // what is looked for: the content, normalized where that is asked for
    TokenId id = 0;
    bool single_word = false;
    bool lstrip = false;
    bool rstrip = false;
  };
  // Empty patterns are never found; of equal ones the first counts.
  static Result<AddedTokenFinder> Build(std::vector<Pattern> patterns);

  bool empty() const { return patterns_.empty(); }

  // The parts of `text` (valid UTF-8), in order; none are empty. Bytes in `literal` belong to no
  // token's content. (White space that lstrip or rstrip takes along may be literal: it is dropped
  // beside a token wherever it comes from, as models were trained.)
  Status Find(std::string_view text, std::span<const TextRange> literal, RegexRunner& runner,
              std::vector<TextPart>* parts) const;

 private:
  explicit AddedTokenFinder(Regex word_character) : word_character_(std::move(word_character)) {}
  // The longest pattern at text[begin, …, end), or nullptr.
  const Pattern* MatchAt(std::string_view text) const;
  Result<bool> IsWordCharacter(std::string_view character, RegexRunner& runner) const;
  Result<bool> StandsAlone(std::string_view text, size_t begin, size_t end,
                           RegexRunner& runner) const;

  struct Span {
    uint32_t begin = 0;
    uint32_t end = 0;
  };
  std::vector<Pattern> patterns_;        // sorted by text
  std::array<Span, 256> by_first_byte_;  // in patterns_
  Regex word_character_;
};

}  // namespace perdure::text
