// The BPE model of tokenizer.json: a vocabulary, and merges of neighbouring tokens in the order of
// their rank (Sennrich et al. 2016, as Hugging Face's `tokenizers` implements it).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/token.h"
#include "text/tokenizer/json_field.h"

namespace perdure::text {

// Token contents by id and ids by content.
class Vocabulary {
 public:
  // bad_model: ids that are no integers in [0, limits::kVocabMax), or stand twice.
  static Result<Vocabulary> FromJson(const JsonField& field);

  std::optional<TokenId> Find(std::string_view content) const;
  bool Has(TokenId id) const;
  // Empty for ids that no token has.
  std::string_view ContentOf(TokenId id) const;
  // Largest id + 1; there may be holes.
  int size() const { return static_cast<int>(entries_.size()); }

 private:
  struct Entry {
    uint32_t begin = 0;
    uint32_t length = kHole;
  };
  static constexpr uint32_t kHole = UINT32_MAX;

  std::string contents_;
  std::vector<Entry> entries_;
  std::vector<TokenId> slots_;  // open addressing by content, -1 = free; a power of two
};

// Working memory of Bpe::Encode, for one thread at a time.
struct BpeScratch {
  struct Symbol {
    TokenId id;  // kGone = merged into its left neighbour
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint64_t rank_and_position;  // rank << 32 | index of the left symbol
    TokenId merged;
  };
  static constexpr TokenId kGone = -1;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

// Immutable apart from a cache; thread-safe.
class Bpe {
 public:
  static Result<Bpe> FromJson(const JsonField& model);

  // Appends the ids of `word` (valid UTF-8, as the pre-tokenizer writes it) to `out`. Takes
  // O(n log n) time for n characters.
  void Encode(std::string_view word, BpeScratch* scratch, std::vector<TokenId>* out) const;

  // The token is never taken for a whole word by ignore_merges: a special token's content in what a
  // user wrote is ordinary text. Call before the first Encode.
  void NeverWhole(TokenId id);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Whether characters outside the vocabulary are written as byte tokens <0x00> to <0xFF>.
  bool byte_fallback() const { return byte_fallback_; }

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left id << 32 | right id
    uint32_t rank = 0;
    TokenId merged = 0;
  };
  static constexpr uint64_t kNoPair = UINT64_MAX;
  // What is known of a token's content when it is encoded as a word of its own.
  enum Whole : uint8_t { kUnknown = 0, kIsItself = 1, kIsOther = 2 };

  Status ReadMerges(const JsonField& field);
  Status ReadByteTokens(const JsonField& field);
  void InsertMerge(Merge merge);
  const Merge* FindMerge(TokenId left, TokenId right) const;
  void IndexShortCharacters();
  std::optional<TokenId> FindCharacter(std::string_view character, char32_t code_point) const;
  void SplitIntoSymbols(std::string_view word, BpeScratch* scratch) const;
  void MergeSymbols(BpeScratch* scratch) const;

  Vocabulary vocabulary_;
  std::vector<Merge> merges_;              // open addressing by pair; a power of two
  std::vector<TokenId> short_characters_;  // by code point, -1 = none
  std::vector<TokenId> byte_tokens_;       // 256 of them, -1 = none; empty without byte_fallback
  std::optional<TokenId> unk_;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  // Whole by id: the cache. Every thread computes the same, so relaxed accesses suffice.
  std::unique_ptr<std::atomic<uint8_t>[]> whole_;
};

// The byte that a byte-fallback token stands for ("<0x0A>"); nullopt for other contents.
std::optional<uint8_t> ByteOfToken(std::string_view content);

}  // namespace perdure::text
