// Encodes two letters as one token wherever it can, while a model may draw them one by one: what it
// has drawn comes out otherwise when it is tokenized again.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tests/worker/fake_model.h"

namespace perdure::worker {

class PairTokenizer : public FakeTokenizer {
 public:
  static constexpr TokenId kFirstPair = 260;
  static constexpr int kVocabSize = kFirstPair + 26 * 26;

  PairTokenizer() {
    for (int i = 0; i < 26 * 26; ++i)
      pairs_.push_back({static_cast<char>('a' + i / 26), static_cast<char>('a' + i % 26)});
  }
  static TokenId Pair(char a, char b) { return kFirstPair + 26 * (a - 'a') + b - 'a'; }

  Result<std::vector<TokenId>> Encode(std::string_view text,
                                      std::span<const text::TextRange> literal) const override {
    auto single = FakeTokenizer::Encode(text, literal);
    if (!single) return single;
    const auto is_letter = [](TokenId id) { return id >= 'a' && id <= 'z'; };
    std::vector<TokenId> ids;
    for (const TokenId id : *single) {
      if (!ids.empty() && is_letter(ids.back()) && is_letter(id))
        ids.back() = Pair(static_cast<char>(ids.back()), static_cast<char>(id));
      else
        ids.push_back(id);
    }
    return ids;
  }
  std::string_view TokenBytes(TokenId id) const override {
    if (id < kFirstPair || id >= kVocabSize) return FakeTokenizer::TokenBytes(id);
    return pairs_[static_cast<size_t>(id - kFirstPair)];
  }
  std::string_view FirstTokenBytes(TokenId id) const override { return TokenBytes(id); }
  bool IsSpecial(TokenId id) const override { return id >= 256 && id < kFirstPair; }
  int vocab_size() const override { return kVocabSize; }

 private:
  std::vector<std::string> pairs_;
};

}  // namespace perdure::worker
