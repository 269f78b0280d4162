// The "decoder" of tokenizer.json, as far as it says what bytes a single token stands for.
//
// What depends on a token's place in the answer is left out: an answer continues a text, so the
// blank that Strip or Metaspace would take from its very beginning stays. And where a run of byte
// tokens is no UTF-8, only its broken parts become U+FFFD, not each of its bytes.
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
  // Sequence.
  static Result<Decoder> FromJson(const JsonField& field);

  // The bytes of a token of the model's vocabulary. bad_model: they grow beyond all bounds.
  Result<std::string> BytesOf(std::string_view content) const { return Apply(content, false); }
  // The bytes of an added token: its content is text, never byte-level characters.
  Result<std::string> BytesOfAdded(std::string_view content) const { return Apply(content, true); }

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
  };
  using Step = std::variant<ByteLevel, ByteFallback, Replace, Strip>;

  Status Add(const JsonField& field);
  Status AddReplace(const JsonField& field);
  Status AddStrip(const JsonField& field);
  Result<std::string> Apply(std::string_view content, bool added) const;

  std::string where_;  // for errors
  std::vector<Step> steps_;
  bool fused_ = false;  // what follows Fuse sees the whole answer
};

}  // namespace perdure::text
