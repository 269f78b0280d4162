// Token contents by id and ids by content, in memory of its own or in a prepared file. Immutable
// and thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/prepared_file.h"
#include "base/result.h"
#include "base/token.h"
#include "text/tokenizer/json_field.h"

namespace perdure::text {

class Vocabulary {
 public:
  // {"content": id, …}. bad_model: ids that are no integers in [0, limits::kVocabMax), or stand
  // twice.
  static Result<Vocabulary> FromJson(const JsonField& field);
  // Contents by id; empty ones are holes. bad_model: a content that stands twice. `where` names the
  // list in errors.
  static Result<Vocabulary> FromContents(std::span<const std::string> contents,
                                         std::string_view where);

  // As Prepare has written it; `file` outlives the vocabulary.
  static Result<Vocabulary> FromPrepared(const PreparedFile& file);
  Status Prepare(PreparedWriter& writer) const;

  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;  // views of its own memory stay good
  Vocabulary& operator=(Vocabulary&&) = default;

  std::optional<TokenId> Find(std::string_view content) const;
  bool Has(TokenId id) const;
  // Empty for ids that no token has.
  std::string_view ContentOf(TokenId id) const;
  // Largest id + 1; there may be holes.
  int size() const { return static_cast<int>(entries_view_.size()); }
  // Bytes of the longest content.
  size_t longest() const { return longest_; }

 private:
  struct Entry {
    uint32_t begin = 0;
    uint32_t length = kHole;
  };
  static constexpr uint32_t kHole = UINT32_MAX;

  void Reserve(size_t ids, size_t tokens, size_t bytes);
  // `id` is free; nothing is added if the content is taken.
  bool Add(TokenId id, std::string_view content);
  // Where `content` is, or the free slot where it would be.
  size_t SlotOf(std::string_view content) const;

  // Empty where the views are of a prepared file.
  std::vector<char> contents_;
  std::vector<Entry> entries_;
  std::vector<TokenId> slots_;

  const char* contents_view_ = nullptr;
  std::span<const Entry> entries_view_;
  std::span<const TokenId> slots_view_;  // open addressing by content, -1 = free; a power of two
  size_t longest_ = 0;
};

}  // namespace perdure::text
