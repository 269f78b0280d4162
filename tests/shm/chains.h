// Chains of few different pages, whose content follows from their tokens: whatever a store has
// cached can be looked for, and told right from wrong, by who knows nothing of how it got there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "base/token.h"
#include "shm/page_store.h"

namespace perdure::shm {

// A letter (0 to kLetters - 1) a page.
using Word = std::vector<int>;
inline constexpr int kLetters = 3;
inline constexpr int kWordMax = 4;

// Pages of 16, 8 and 4 bits; half of the small ones are cut to where slots of one format do not
// begin where those of another do.
inline constexpr PerFormat<uint64_t> kMixedBytes{{1024, 576, 320}};

std::vector<TokenId> TokensOf(const Word& word);
// The content of the page after which a sequence has computed all of `word`.
void Fill(std::span<std::byte> page, const Word& word);
bool IsFilled(std::span<const std::byte> page, const Word& word);
// All words of kWordMax letters.
std::vector<Word> LongestWords();

// Which pages a letter has: of one format, or, where the memory knows them, one for each letter.
PageKey KeyOf(const PageStore& store, int letter);

inline std::span<std::byte> BytesOf(const PageStore& store, PageIndex page) {
  return {store.address(page), store.page_bytes(store.format(page))};
}
inline Word First(const Word& word, size_t pages) {
  return Word(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(pages));
}

// References to the pages of the word that are cached with their numbers, up to the first that is
// not.
std::vector<PageIndex> AcquireWord(PageStore* store, const Word& word);
// Computes and seals `word` from its first page that is not cached; the references are kept.
std::vector<PageIndex> PutWord(PageStore* store, const Word& word);
void ReleaseAll(PageStore* store, const std::vector<PageIndex>& pages);
size_t CachedPages(PageStore* store, const Word& word);

// Pages with their numbers found for all words, each counted once; ADD_FAILUREs where one has
// another content.
size_t CountRightPages(PageStore* store);

// A user of a store who does one random thing after another: begins a sequence, computes a page of
// it, lets it go, claims its end, moves what can be moved.
class RandomUser {
 public:
  RandomUser(PageStore* store, uint64_t seed) : store_(store), random_(seed) {}
  void Step();
  void ReleaseAll();

 private:
  struct Sequence {
    Word word;
    std::vector<PageIndex> pages;  // kNoPage: retired
  };
  int Random(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  void Begin();
  void Compute(Sequence* sequence);
  void RetireOne(Sequence* sequence);
  void End(size_t sequence);

  PageStore* const store_;
  std::mt19937_64 random_;
  std::vector<Sequence> sequences_;
  std::vector<PageIndex> claimed_;
};

}  // namespace perdure::shm
