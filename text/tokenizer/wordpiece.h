// The WordPiece model of BERT: the longest token that a word begins with, then the longest
// continuing token, and so on (Wu et al. 2016).
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "text/tokenizer/json_field.h"
#include "text/tokenizer/word_model.h"

namespace perdure::text {

class WordPiece final : public WordModel {
 public:
  // The "model" of tokenizer.json. bad_model: no unk_token, or one that the vocabulary lacks.
  // With `prepared`, which outlives the model, the vocabulary is read from there instead.
  static Result<WordPiece> FromJson(const JsonField& model, const PreparedFile* prepared = nullptr);

  // A word that is too long, or has a part that no token begins, is the unknown token. Takes
  // O(characters × bytes of the longest token) look-ups.
  void Encode(std::string_view word, WordScratch* scratch,
              std::vector<TokenId>* out) const override;
  void NeverWhole(TokenId id) override;
  const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  WordPiece() = default;
  // The longest token that `rest` begins with, its length in *length; -1 for none.
  TokenId LongestPrefix(std::string_view rest, bool continues, std::string* piece,
                        size_t* length) const;

  Vocabulary vocabulary_;
  std::string continuing_prefix_;  // "##" before tokens that continue a word
  std::vector<bool> never_;        // by id
  TokenId unk_ = 0;
  size_t chars_max_ = 0;
};

}  // namespace perdure::text
