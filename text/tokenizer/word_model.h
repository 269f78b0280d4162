// The "model" of a tokenizer: the tokens of one word, as the pre-tokenizer cuts it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/token.h"
#include "text/tokenizer/vocabulary.h"

namespace perdure::text {

// Working memory of WordModel::Encode, for one thread at a time.
struct WordScratch {
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
  std::string piece;
};

// Immutable apart from caches once NeverWhole was called for the last time; thread-safe then.
class WordModel {
 public:
  virtual ~WordModel() = default;

  // Appends the ids of `word` (valid UTF-8, as the pre-tokenizer writes it) to `out`.
  virtual void Encode(std::string_view word, WordScratch* scratch,
                      std::vector<TokenId>* out) const = 0;

  // The token is never found by its whole content: a special token's content in what a user wrote
  // is ordinary text. Merges may still make it.
  virtual void NeverWhole(TokenId id) = 0;

  virtual const Vocabulary& vocabulary() const = 0;

  // Writes its big lists to a prepared file.
  virtual Status Prepare(PreparedWriter& writer) const { return vocabulary().Prepare(writer); }
};

}  // namespace perdure::text
