#include "text/tokenizer/wordpiece.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"

namespace perdure::text {
namespace {

bool ContinuesCharacter(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

Result<WordPiece> WordPiece::FromJson(const JsonField& model, const PreparedFile* prepared) {
  WordPiece word_piece;
  if (prepared != nullptr) {
    ASSIGN_OR_RETURN(word_piece.vocabulary_, Vocabulary::FromPrepared(*prepared));
  } else {
    ASSIGN_OR_RETURN(const JsonField vocab, model.RequireMember("vocab"));
    ASSIGN_OR_RETURN(word_piece.vocabulary_, Vocabulary::FromJson(vocab));
  }
  word_piece.never_.resize(static_cast<size_t>(word_piece.vocabulary_.size()));
  ASSIGN_OR_RETURN(const std::string_view unk_token, model.RequireString("unk_token"));
  const std::optional<TokenId> unk = word_piece.vocabulary_.Find(unk_token);
  if (!unk)
    return model.Bad(fmt::format("has the unk_token \"{}\", which its vocab lacks", unk_token));
  word_piece.unk_ = *unk;
  ASSIGN_OR_RETURN(const auto prefix, model.GetString("continuing_subword_prefix"));
  word_piece.continuing_prefix_ = prefix.value_or("##");
  ASSIGN_OR_RETURN(const int64_t chars_max,
                   model.GetInt("max_input_chars_per_word", 0, limits::kWordPieceCharsMax, 100));
  word_piece.chars_max_ = static_cast<size_t>(chars_max);
  return word_piece;
}

void WordPiece::NeverWhole(TokenId id) {
  if (vocabulary_.Has(id)) never_[static_cast<size_t>(id)] = true;
}

TokenId WordPiece::LongestPrefix(std::string_view rest, bool continues, std::string* piece,
                                 size_t* length) const {
  piece->assign(continues ? continuing_prefix_ : "");
  const size_t prefix = piece->size();
  if (prefix > vocabulary_.longest()) return -1;
  *piece += rest.substr(0, vocabulary_.longest() - prefix);
  for (size_t n = piece->size() - prefix; n > 0; --n) {
    if (n < rest.size() && ContinuesCharacter(rest[n])) continue;
    piece->resize(prefix + n);
    const std::optional<TokenId> id = vocabulary_.Find(*piece);
    if (!id || never_[static_cast<size_t>(*id)]) continue;
    *length = n;
    return *id;
  }
  return -1;
}

void WordPiece::Encode(std::string_view word, WordScratch* scratch,
                       std::vector<TokenId>* out) const {
  const auto chars = word.size() - static_cast<size_t>(
                                       std::count_if(word.begin(), word.end(), ContinuesCharacter));
  const size_t before = out->size();
  for (size_t at = 0; at < word.size();) {
    size_t length = 0;
    const TokenId id =
        chars > chars_max_ ? -1 : LongestPrefix(word.substr(at), at > 0, &scratch->piece, &length);
    if (id < 0) {
      out->resize(before);
      out->push_back(unk_);
      return;
    }
    out->push_back(id);
    at += length;
  }
}

}  // namespace perdure::text
