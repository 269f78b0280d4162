// Text to token ids and back, as the model's own tokenizer does it (Hugging Face's `tokenizers`,
// mistral-common, SentencePiece) with the same files.
// Immutable after loading; all methods are thread-safe.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/prepared_folder.h"
#include "base/result.h"
#include "base/token.h"
#include "text/text_range.h"

namespace perdure::text {

class Tokenizer {
 public:
  // Reads <model_dir>/tokenizer.json, else tekken.json, else tokenizer.model. Errors (bad_model,
  // unsupported, io_error) name file and reason. With a folder, a large tokenizer.json or
  // tekken.json is kept there in a form that loads in milliseconds (docs/prepared_weights.md).
  static Result<std::unique_ptr<Tokenizer>> Load(const std::filesystem::path& model_dir,
                                                 const PreparedFolder& prepared = {});
  // A tokenizer.json from its text; `name` stands in errors.
  static Result<std::unique_ptr<Tokenizer>> Parse(std::string_view json, std::string_view name);
  virtual ~Tokenizer() = default;

  // Ids of `text`, without prefix_ids and suffix_ids. Added tokens are recognised except where a
  // match touches one of `literal` (sorted, disjoint byte ranges: text that users wrote). Elsewhere
  // the result equals encode(text, add_special_tokens=False) of `tokenizers`. Bytes that are not
  // UTF-8 are taken as U+FFFD.
  virtual Result<std::vector<TokenId>> Encode(std::string_view text,
                                              std::span<const TextRange> literal = {}) const = 0;
  // What the model expects before and behind a text of its own: BOS, or [CLS] and [SEP]. Chat
  // templates write theirs themselves.
  virtual std::span<const TokenId> prefix_ids() const { return {}; }
  virtual std::span<const TokenId> suffix_ids() const { return {}; }

  // The bytes that a token adds to an answer, which may end inside a UTF-8 character; an added
  // token's content for added tokens. Empty for ids that no token has.
  virtual std::string_view TokenBytes(TokenId id) const = 0;
  // The same for a token that begins a text of its own (a chat's answer) instead of continuing one:
  // without the blank that some tokenizers put before each word.
  virtual std::string_view FirstTokenBytes(TokenId id) const { return TokenBytes(id); }
  // Special tokens are left out of answers.
  virtual bool IsSpecial(TokenId id) const = 0;
  // The id of the token whose content is exactly `content` ("<|im_end|>").
  virtual std::optional<TokenId> IdOf(std::string_view content) const = 0;
  // Largest id + 1.
  virtual int vocab_size() const = 0;

  // Writes what loading makes of the big lists to a prepared file; loading writes the rest.
  virtual Status Prepare(PreparedWriter&) const {
    return Err(ErrorCode::unsupported, "this tokenizer has no prepared form");
  }
};

}  // namespace perdure::text
