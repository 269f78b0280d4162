// The "decoder" of tokenizer.json, as far as it says what bytes a single token stands for.
//
// Some decoders treat the first token of a text differently (no blank before it); that is all that
// depends on a token's place. Where a run of byte tokens is no UTF-8, only its broken parts become
// U+FFFD, not each of its bytes: so characters can go out before the run is over.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"
#include "text/tokenizer/json_field.h"

namespace perdure::text {

// Immutable and thread-safe.
class Decoder {
 public:
  // Supported: ByteLevel, ByteFallback, Fuse, Replace (of a fixed string), Strip, Metaspace,
  // WordPiece, Sequence; null writes blanks between tokens.
  static Result<Decoder> FromJson(const std::optional<JsonField>& field, std::string_view file);

  // The bytes of a token. `added`: its content is text, never byte-level characters. `first`:
  // nothing stands before it. bad_model: they grow beyond all bounds.
  Result<std::string> BytesOf(std::string_view content, bool added, bool first) const;
  // Whether `first` makes a difference.
  bool first_differs() const { return first_differs_; }

 private:
  struct ByteLevel {};
  struct ByteFallback {};
  struct Replace {
    std::string pattern;
    std::string content;
  };
  struct Strip {
    std::string content;
    int start;  // at most so many are taken away at the start
    int stop;   // and at the end
    bool first_only;
  };
  struct Remove {  // from the first token only
    std::string content;
  };
  struct Separate {                    // by blanks
    std::optional<std::string> glued;  // tokens that begin with it lose it and get none
    bool cleanup;                      // no blanks before punctuation and English endings
  };
  using Step = std::variant<ByteLevel, ByteFallback, Replace, Strip, Remove, Separate>;

  Status Add(const JsonField& field);
  Status AddReplace(const JsonField& field);
  Status AddStrip(const JsonField& field);
  Status AddMetaspace(const JsonField& field);
  Status AddWordPiece(const JsonField& field);

  static std::string Do(const ByteLevel& step, std::string token, bool added, bool first);
  static std::string Do(const ByteFallback& step, std::string token, bool added, bool first);
  static std::string Do(const Replace& step, std::string token, bool added, bool first);
  static std::string Do(const Strip& step, std::string token, bool added, bool first);
  static std::string Do(const Remove& step, std::string token, bool added, bool first);
  static std::string Do(const Separate& step, std::string token, bool added, bool first);

  std::string where_;  // for errors
  std::vector<Step> steps_;
  bool fused_ = false;  // what follows Fuse sees the whole answer
  bool first_differs_ = false;
};

}  // namespace perdure::text
