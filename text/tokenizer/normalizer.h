// The "normalizer" of tokenizer.json: what is done to text before it is cut into words.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "text/text_range.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/regex.h"
#include "text/tokenizer/unicode_normalize.h"

namespace perdure::text {

struct MarkedText {
  std::string text;
  // The byte ranges (sorted, disjoint) that users wrote.
  std::vector<TextRange> literal;
  // Whether it begins where the whole text began; not if a step took its beginning away.
  bool at_start = false;
};

// Immutable and thread-safe.
class Normalizer {
 public:
  // nullopt for null. Supported: NFC, NFD, NFKC, NFKD, Lowercase, Replace, Prepend, Strip,
  // BertNormalizer, Sequence.
  static Result<Normalizer> FromJson(const std::optional<JsonField>& field);

  bool empty() const { return steps_.empty(); }

  // Marks move with their text; a character made of literal and other text becomes literal.
  Status Apply(MarkedText* text, RegexRunner& runner) const;

 private:
  struct Unicode {
    NormalizationForm form;
  };
  struct Characters {
    // Appends what becomes of one character.
    void (*append)(char32_t c, std::string_view utf8, std::string* out);
  };
  struct Replace {
    Regex pattern;
    std::string content;
  };
  struct Prepend {
    std::string content;
  };
  struct Strip {
    bool left;
    bool right;
  };
  using Step = std::variant<Unicode, Characters, Replace, Prepend, Strip>;

  Status Add(const JsonField& field);
  Status AddBert(const JsonField& field);

  static Status Do(const Unicode& step, MarkedText* text, RegexRunner& runner);
  static Status Do(const Characters& step, MarkedText* text, RegexRunner& runner);
  static Status Do(const Replace& step, MarkedText* text, RegexRunner& runner);
  static Status Do(const Prepend& step, MarkedText* text, RegexRunner& runner);
  static Status Do(const Strip& step, MarkedText* text, RegexRunner& runner);

  std::vector<Step> steps_;
};

// {"Regex": …} or {"String": …}, the form of all patterns in tokenizer.json.
Result<Regex> PatternFromJson(const JsonField& field);

}  // namespace perdure::text
