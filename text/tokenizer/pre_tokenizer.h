// The "pre_tokenizer" of tokenizer.json: cuts text into the words that the model sees one by one.
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

namespace perdure::text {

struct Words {
  std::string text;               // as the model's vocabulary writes it (byte-level, "▁", …)
  std::vector<TextRange> ranges;  // the words in `text`, in order
};

// Immutable and thread-safe.
class PreTokenizer {
 public:
  // Supported: Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit,
  // BertPreTokenizer, Sequence; null makes one word of everything.
  static Result<PreTokenizer> FromJson(const std::optional<JsonField>& field);
  // The words are what `pattern` matches, in the byte-level alphabet; other text is dropped. So
  // tiktoken does it.
  static PreTokenizer BytesOfMatches(Regex pattern);

  // `text` is valid UTF-8; `at_start` says that nothing stands before it in the whole text.
  Status Apply(std::string text, bool at_start, RegexRunner& runner, Words* words) const;

 private:
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Split {
    Regex pattern;
    Behavior behavior;
    bool invert;  // the pattern describes the words, not what is between them
  };
  struct Prefix {
    std::string prefix;  // put before words that do not begin with it
    bool only_first;     // only before the first word of the whole text
  };
  struct ReplaceSpaces {
    std::string replacement;
  };
  struct MapBytes {};  // to the byte-level alphabet
  using Step = std::variant<Split, Prefix, ReplaceSpaces, MapBytes>;

  Status Add(const JsonField& field);
  Status AddSplit(std::string_view pattern, Behavior behavior, bool invert, const JsonField& field);
  Status AddMetaspace(const JsonField& field);
  static Result<Behavior> BehaviorFromJson(const JsonField& field);

  static Status Do(const Split& step, bool at_start, RegexRunner& runner, Words* words);
  static Status Do(const Prefix& step, bool at_start, RegexRunner& runner, Words* words);
  static Status Do(const ReplaceSpaces& step, bool at_start, RegexRunner& runner, Words* words);
  static Status Do(const MapBytes& step, bool at_start, RegexRunner& runner, Words* words);

  std::vector<Step> steps_;
};

}  // namespace perdure::text
