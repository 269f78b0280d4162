// The BPE model: a vocabulary, and merges of neighbouring tokens in the order of their rank
// (Sennrich et al. 2016).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/token.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/word_model.h"

namespace perdure::text {

struct BpeSettings {
  std::optional<TokenId> unk;  // for characters that no token has; without it they are dropped
  bool fuse_unk = false;       // one for a run of them
  bool byte_fallback = false;  // the tokens <0x00> to <0xFF> stand for their bytes instead
  bool ignore_merges = false;  // a word that is a token is that token
};

class Bpe final : public WordModel {
 public:
  // The "model" of tokenizer.json, with its list of merges.
  // With `prepared`, which outlives the model, its lists are read from there instead.
  static Result<Bpe> FromJson(const JsonField& model, const PreparedFile* prepared = nullptr);

  // Two neighbours merge where their contents together are a token with a rank, the smallest rank
  // first: the way of tiktoken and SentencePiece. `ranks`: by id, kNoRank for tokens that are not
  // made by merging. `where` names the file in errors.
  static constexpr uint32_t kNoRank = UINT32_MAX;
  static Result<Bpe> FromRanks(Vocabulary vocabulary, std::span<const uint32_t> ranks,
                               const BpeSettings& settings, std::string_view where);
  static Result<Bpe> FromPrepared(const PreparedFile& prepared, const BpeSettings& settings);
  Status Prepare(PreparedWriter& writer) const override;

  // Takes O(n log n) time for n characters.
  void Encode(std::string_view word, WordScratch* scratch,
              std::vector<TokenId>* out) const override;
  void NeverWhole(TokenId id) override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left id << 32 | right id
    uint32_t rank = 0;
    TokenId merged = 0;
  };
  static constexpr uint64_t kNoPair = UINT64_MAX;
  // What is known of a token's content when it is encoded as a word of its own.
  enum Whole : uint8_t { kUnknown = 0, kIsItself = 1, kIsOther = 2 };

  Bpe() = default;
  Status ReadMerges(const JsonField& field);
  Status MapLists(const PreparedFile& prepared);
  // `where` names the vocabulary in errors.
  Status IndexByteTokens(std::string_view where);
  // What all other members are made of is in place.
  void Finish();
  void ReserveMerges(size_t count);
  void InsertMerge(Merge merge);
  const Merge* FindMerge(TokenId left, TokenId right) const;
  std::optional<TokenId> FindCharacter(std::string_view character, char32_t code_point) const;
  void SplitIntoSymbols(std::string_view word, WordScratch* scratch) const;
  void MergeSymbols(WordScratch* scratch) const;
  void EncodePart(std::string_view word, WordScratch* scratch, std::vector<TokenId>* out) const;

  Vocabulary vocabulary_;
  std::vector<Merge> merges_;              // empty where they lie in a prepared file
  std::span<const Merge> merges_view_;     // open addressing by pair; a power of two
  std::vector<TokenId> short_characters_;  // by code point, -1 = none
  std::vector<TokenId> byte_tokens_;       // 256 of them, -1 = none; empty without byte_fallback
  BpeSettings settings_;
  // No merge makes a token with "▁" behind another character: what stands before one and what
  // begins with it can be encoded one by one. SentencePiece's words are whole texts otherwise.
  bool cuts_at_blanks_ = false;
  // Whole by id: the cache. Every thread computes the same, so relaxed accesses suffice.
  std::unique_ptr<std::atomic<uint8_t>[]> whole_;
};

// The byte that a byte-fallback token stands for ("<0x0A>"); nullopt for other contents.
std::optional<uint8_t> ByteOfToken(std::string_view content);

}  // namespace perdure::text
