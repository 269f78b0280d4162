#include "tokenizer_checks.h"

#include "fuzz_target.h"

namespace perdure::fuzz {

void CheckTokenizer(const text::Tokenizer& tokenizer, std::string_view text) {
  constexpr size_t kTextBytesMax = 512;  // beyond, only time grows
  text = text.substr(0, kTextBytesMax);
  const auto check_ids = [&](std::span<const TokenId> ids) {
    for (const TokenId id : ids) {
      CHECK(id >= 0 && id < tokenizer.vocab_size());
      (void)tokenizer.TokenBytes(id);
      (void)tokenizer.FirstTokenBytes(id);
      (void)tokenizer.IsSpecial(id);
    }
  };
  const text::TextRange all{0, text.size()};
  for (const auto& literal : {std::span<const text::TextRange>(), std::span(&all, 1)}) {
    const auto ids =
        tokenizer.Encode(text, text.empty() ? std::span<const text::TextRange>() : literal);
    if (ids)
      check_ids(*ids);
    else
      CheckError(ids.error());
  }
  check_ids(tokenizer.prefix_ids());
  check_ids(tokenizer.suffix_ids());
  for (const TokenId id : {-1, tokenizer.vocab_size(), 1 << 30}) {
    CHECK(tokenizer.TokenBytes(id).empty());
    (void)tokenizer.IsSpecial(id);
  }
  if (const auto id = tokenizer.IdOf(text)) CHECK(*id >= 0 && *id < tokenizer.vocab_size());
}

}  // namespace perdure::fuzz
