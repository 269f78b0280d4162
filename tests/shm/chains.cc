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

PageKey KeyOf(const PageStore& store, int letter) {
  const auto format = static_cast<PageFormat>(letter % static_cast<int>(kPageFormats));
  return {store.page_bytes(format) > 0 ? format : PageFormat::kFloat16, 0, 0};
}

namespace {

std::vector<PageIndex> PathOf(const PageStore& store, const Word& word) {
  return store.FindPath(TokensOf(word), [&](size_t page) { return KeyOf(store, word[page]); });
}

PageIndex SealLetter(PageStore* store, PageIndex page, PageIndex parent, int letter) {
  return store->Seal(page, parent, KeyOf(*store, letter), TokensOf({letter}));
}

}  // namespace

std::vector<PageIndex> AcquireWord(PageStore* store, const Word& word) {
  std::vector<PageIndex> pages;
  for (const PageIndex page : PathOf(*store, word)) {
    if (!store->Acquire(page)) break;
    pages.push_back(page);
  }
  return pages;
}

std::vector<PageIndex> PutWord(PageStore* store, const Word& word) {
  std::vector<PageIndex> pages = AcquireWord(store, word);
  while (pages.size() < word.size()) {
    const int letter = word[pages.size()];
    const auto page = store->Allocate(KeyOf(*store, letter).format);
    if (!page) break;
    Fill(BytesOf(*store, *page), First(word, pages.size() + 1));
    pages.push_back(SealLetter(store, *page, pages.empty() ? kNoPage : pages.back(), letter));
  }
  return pages;
}

void ReleaseAll(PageStore* store, const std::vector<PageIndex>& pages) {
  for (const PageIndex page : pages) store->Release(page);
}

size_t CachedPages(PageStore* store, const Word& word) {
  const auto pages = AcquireWord(store, word);
  ReleaseAll(store, pages);
  return pages.size();
}

size_t CountRightPages(PageStore* store) {
  std::set<PageIndex> seen;
  for (const Word& word : LongestWords()) {
    for (size_t i = 0; i < word.size(); ++i) {
      // Anew each time: what is damaged goes, with what follows.
      const std::vector<PageIndex> path = PathOf(*store, word);
      if (i >= path.size() || !store->Acquire(path[i])) continue;
      if (!IsFilled(BytesOf(*store, path[i]), First(word, i + 1)))
        ADD_FAILURE() << "page " << path[i];
      seen.insert(path[i]);
      store->Release(path[i]);
    }
  }
  return seen.size();
}

void RandomUser::Begin() {
  Sequence sequence;
  for (int i = 0; i < kWordMax; ++i) sequence.word.push_back(Random(kLetters));
  sequence.pages = AcquireWord(store_, sequence.word);
  sequences_.push_back(std::move(sequence));
}

void RandomUser::Compute(Sequence* sequence) {
  const size_t done = sequence->pages.size();
  if (done == sequence->word.size()) return;
  const int letter = sequence->word[done];
  const PageFormat format = KeyOf(*store_, letter).format;
  std::vector<PageIndex> run;
  if (Random(4) == 0) run = store_->AllocateRun(format, 1 + static_cast<uint32_t>(Random(2)));
  const auto page = run.empty() ? store_->Allocate(format) : run.front();
  for (size_t i = 1; i < run.size(); ++i) store_->Release(run[i]);
  if (!page) return;
  Fill(BytesOf(*store_, *page), First(sequence->word, done + 1));
  if (Random(8) == 0) return store_->Release(*page);  // given up when it was half full
  sequence->pages.push_back(
      SealLetter(store_, *page, done == 0 ? kNoPage : sequence->pages.back(), letter));
}

// The last page stays: the next one follows it.
void RandomUser::RetireOne(Sequence* sequence) {
  if (sequence->pages.size() < 2) return;
  PageIndex& page =
      sequence->pages[static_cast<size_t>(Random(static_cast<int>(sequence->pages.size()) - 1))];
  if (page != kNoPage) store_->Retire(std::exchange(page, kNoPage));
}

void RandomUser::End(size_t index) {
  const std::vector<PageIndex>& pages = sequences_[index].pages;
  if (!pages.empty() && Random(3) == 0) {
    store_->Claim(pages.back());
    claimed_.push_back(pages.back());
  }
  for (const PageIndex page : pages)
    if (page != kNoPage) store_->Release(page);
  sequences_.erase(sequences_.begin() + static_cast<std::ptrdiff_t>(index));
}

void RandomUser::Step() {
  if (sequences_.empty() || (sequences_.size() < 6 && Random(4) == 0)) return Begin();
  const auto index = static_cast<size_t>(Random(static_cast<int>(sequences_.size())));
  if (Random(5) == 0) return End(index);
  if (Random(50) == 0) store_->ReleaseUnused();
  if (Random(50) == 0) store_->Compact(Random(2) == 0 ? 1 : UINT64_MAX);
  if (Random(100) == 0) store_->DropUnneeded();
  if (Random(8) == 0) RetireOne(&sequences_[index]);
  if (claimed_.size() > static_cast<size_t>(Random(6))) {
    store_->Unclaim(claimed_.front());
    claimed_.erase(claimed_.begin());
  }
  Compute(&sequences_[index]);
}

void RandomUser::ReleaseAll() {
  while (!sequences_.empty()) End(sequences_.size() - 1);
  for (const PageIndex page : claimed_) store_->Unclaim(page);
  claimed_.clear();
}

}  // namespace perdure::shm
