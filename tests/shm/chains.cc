#include "tests/shm/chains.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/hash.h"

namespace perdure::shm {

std::vector<TokenId> TokensOf(const Word& word) {
  std::vector<TokenId> tokens;
  for (const int letter : word)
    for (uint32_t i = 0; i < kArenaPageTokens; ++i)
      tokens.push_back(letter * 1000 + static_cast<TokenId>(i));
  return tokens;
}

void Fill(std::span<std::byte> page, const Word& word) {
  std::mt19937 random(static_cast<uint32_t>(Hash64(std::as_bytes(std::span(word)))));
  for (std::byte& byte : page) byte = static_cast<std::byte>(random());
}

bool IsFilled(std::span<const std::byte> page, const Word& word) {
  std::vector<std::byte> right(page.size());
  Fill(right, word);
  return std::equal(page.begin(), page.end(), right.begin());
}

std::vector<Word> LongestWords() {
  std::vector<Word> words{{}};
  for (int length = 0; length < kWordMax; ++length) {
    std::vector<Word> longer;
    for (const Word& word : words)
      for (int letter = 0; letter < kLetters; ++letter) {
        longer.push_back(word);
        longer.back().push_back(letter);
      }
    words = std::move(longer);
  }
  return words;
}

size_t CountRightPages(PageStore* store) {
  std::set<PageIndex> seen;
  for (const Word& word : LongestWords()) {
    const std::vector<PageIndex> pages = store->Acquire(kRoot, TokensOf(word), SIZE_MAX);
    for (size_t i = 0; i < pages.size(); ++i) {
      const Word prefix(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      if (!IsFilled(BytesOf(*store, pages[i]), prefix)) ADD_FAILURE() << "page " << pages[i];
      seen.insert(pages[i]);
    }
    for (const PageIndex page : pages) store->Release(page);
  }
  return seen.size();
}

void RandomUser::Begin() {
  Sequence sequence;
  for (int i = 0; i < kWordMax; ++i) sequence.word.push_back(Random(kLetters));
  sequence.pages = store_->Acquire(kRoot, TokensOf(sequence.word), SIZE_MAX);
  sequences_.push_back(std::move(sequence));
}

void RandomUser::Compute(Sequence* sequence) {
  const size_t done = sequence->pages.size();
  if (done == sequence->word.size()) return;
  const auto page = store_->Allocate();
  if (!page) return;
  const Word word(sequence->word.begin(),
                  sequence->word.begin() + static_cast<std::ptrdiff_t>(done) + 1);
  Fill(BytesOf(*store_, *page), word);
  if (Random(8) == 0) return store_->Release(*page);  // given up when it was half full
  sequence->pages.push_back(store_->Seal(*page, done == 0 ? kNoPage : sequence->pages.back(), kRoot,
                                         TokensOf({word.back()})));
}

void RandomUser::End(size_t index) {
  for (const PageIndex page : sequences_[index].pages) store_->Release(page);
  sequences_.erase(sequences_.begin() + static_cast<std::ptrdiff_t>(index));
}

void RandomUser::Step() {
  if (sequences_.empty() || (sequences_.size() < 6 && Random(4) == 0)) return Begin();
  const auto index = static_cast<size_t>(Random(static_cast<int>(sequences_.size())));
  if (Random(5) == 0) return End(index);
  if (Random(50) == 0) store_->ReleaseUnused();
  if (Random(100) == 0) store_->DropUnused();
  Compute(&sequences_[index]);
}

void RandomUser::ReleaseAll() {
  while (!sequences_.empty()) End(sequences_.size() - 1);
}

}  // namespace perdure::shm
