#include "snapshot/kv_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <random>

#include "base/limits.h"
#include "snapshot/format.h"
#include "tests/snapshot/kv_pages.h"

namespace perdure::snapshot {
namespace {

constexpr size_t kTokens = shm::kArenaPageTokens;

std::vector<TokenId> Full(TokenId token) { return std::vector<TokenId>(kTokens, token); }

KvIndex::KeyOf Always(const shm::PageKey& key) {
  return [key](size_t) { return key; };
}

TEST(KvIndex, FindsFullPagesAndAFragment) {
  KvIndex index(kRoot);
  const StoredPage a = PageAfter(nullptr, Full(1)), b = PageAfter(&a, Full(2));
  const StoredPage c = PageAfter(&b, {3, 3, 4, 5});
  for (const StoredPage& page : {a, b, c}) index.Add(page);
  std::vector<TokenId> tokens = Full(1);
  tokens.insert(tokens.end(), kTokens, 2);
  tokens.insert(tokens.end(), {3, 3, 4, 9});
  auto found = index.FindAfter(kRoot, 0, tokens, Always({}), true);
  ASSERT_EQ(found.pages.size(), 2u);
  EXPECT_EQ(found.pages[1]->chain_hash, b.chain_hash);
  ASSERT_NE(found.fragment, nullptr);
  EXPECT_EQ(found.fragment->chain_hash, c.chain_hash);
  EXPECT_EQ(found.fragment_tokens, 3u);
  // From a page on; the key is asked for by the number of the page.
  std::vector<size_t> asked;
  const auto key = [&](size_t page) {
    asked.push_back(page);
    return shm::PageKey();
  };
  found = index.FindAfter(a.chain_hash, 1, std::span(tokens).subspan(kTokens), key, false);
  EXPECT_EQ(found.pages.size(), 1u);
  EXPECT_EQ(found.fragment, nullptr);
  EXPECT_EQ(asked, (std::vector<size_t>{1}));
  // At another place of its chain it is another page.
  EXPECT_TRUE(index.FindAfter(a.chain_hash, 2, std::span(tokens).subspan(kTokens), key, true)
                  .pages.empty());
  // A page in the middle is missing.
  index.Remove(a.chain_hash);
  found = index.FindAfter(kRoot, 0, tokens, Always({}), true);
  EXPECT_TRUE(found.pages.empty());
  EXPECT_EQ(found.fragment, nullptr);
}

TEST(KvIndex, TheRestOfAFullPageIsAFragment) {
  KvIndex index(kRoot);
  const StoredPage page = PageAfter(nullptr, Full(1));
  index.Add(page);
  const auto tokens = Full(1);
  const auto found = index.FindAfter(kRoot, 0, std::span(tokens).first(5), Always({}), true);
  EXPECT_TRUE(found.pages.empty());
  EXPECT_EQ(found.fragment, index.Get(page.chain_hash));
  EXPECT_EQ(found.fragment_tokens, 5u);
  EXPECT_EQ(index.FindAfter(kRoot, 0, {}, Always({}), true).fragment, nullptr);
}

TEST(KvIndex, TouchTellsWhenTheFileIsToKnow) {
  constexpr uint32_t kMuch = limits::kSnapshotUsedGranularityS;
  KvIndex index(kRoot);
  const StoredPage page = PageAfter(nullptr, Full(1), {}, 1, 1000);
  index.Add(page);
  const auto used = [&] { return index.Get(page.chain_hash)->used_unix_s; };
  EXPECT_FALSE(index.Touch(page.chain_hash, 900));
  EXPECT_EQ(used(), 1000u);
  EXPECT_FALSE(index.Touch(page.chain_hash, 1000 + kMuch));
  EXPECT_EQ(used(), 1000 + kMuch);
  EXPECT_TRUE(index.Touch(page.chain_hash, 1001 + kMuch));
  EXPECT_FALSE(index.Touch(page.chain_hash, 1001 + 2 * kMuch));
  EXPECT_TRUE(index.Touch(page.chain_hash, 1002 + 2 * kMuch));
  EXPECT_FALSE(index.Touch(12345, 5000));
}

TEST(KvIndex, EndsOfChainsGoFirst) {
  KvIndex index(kRoot);
  const StoredPage a = PageAfter(nullptr, Full(1)), b = PageAfter(&a, Full(2));
  const StoredPage c = PageAfter(&b, Full(3));
  const StoredPage newer = PageAfter(&c, Full(4), {}, 1, 2000);
  for (const StoredPage& page : {a, newer, c, b}) index.Add(page);
  EXPECT_EQ(index.bytes(), 4 * PageFileBytes(1));
  EXPECT_TRUE(index.Beyond(index.bytes(), 4).empty());
  EXPECT_EQ(index.Beyond(UINT64_MAX, 1),
            (std::vector<uint64_t>{c.chain_hash, b.chain_hash, a.chain_hash}));
  EXPECT_EQ(index.Beyond(index.bytes() - 1, 4), (std::vector<uint64_t>{c.chain_hash}));
  EXPECT_EQ(index.Beyond(0, 4).size(), 4u);
  EXPECT_EQ(index.Beyond(UINT64_MAX, 0).size(), 4u);
}

TEST(KvIndex, FileBytesAreWholePages) {
  EXPECT_GE(PageFileBytes(1), 4096u);
  EXPECT_GE(PageFileBytes(kChunkBytes), 16u * 4096);
  EXPECT_LT(PageFileBytes(kChunkBytes), 17u * 4096);
  EXPECT_GE(PageFileBytes(kChunkBytes + 1), 17u * 4096);
  EXPECT_LT(PageFileBytes(3'670'016), 3'670'016 * 1.03);
}

// --- Against brute force -------------------------------------------------------------------------

class Model {
 public:
  std::map<uint64_t, StoredPage> pages;
  std::map<uint64_t, uint32_t> told;

  std::vector<const StoredPage*> Matching(uint64_t parent, size_t position,
                                          const shm::PageKey& key) const {
    std::vector<const StoredPage*> matching;
    for (const auto& [hash, page] : pages)
      if (page.parent == parent && page.position == position && page.key == key)
        matching.push_back(&page);
    return matching;
  }
  static size_t Common(const StoredPage& page, std::span<const TokenId> tokens) {
    size_t common = 0;
    while (common < page.tokens.size() && common < tokens.size() &&
           page.tokens[common] == tokens[common])
      ++common;
    return common;
  }
  std::vector<uint64_t> Beyond(uint64_t bytes_max, size_t pages_max) const {
    std::vector<StoredPage> order;
    uint64_t bytes = 0;
    for (const auto& [hash, page] : pages) {
      order.push_back(page);
      bytes += PageFileBytes(page.data_bytes);
    }
    std::ranges::sort(order, [](const StoredPage& a, const StoredPage& b) {
      if (a.used_unix_s != b.used_unix_s) return a.used_unix_s < b.used_unix_s;
      if (a.position != b.position) return a.position > b.position;
      return a.chain_hash < b.chain_hash;
    });
    std::vector<uint64_t> gone;
    for (size_t i = 0; bytes > bytes_max || pages.size() - gone.size() > pages_max; ++i) {
      gone.push_back(order[i].chain_hash);
      bytes -= PageFileBytes(order[i].data_bytes);
    }
    return gone;
  }
};

class AgainstBruteForce : public testing::TestWithParam<uint32_t> {
 protected:
  size_t Below(size_t end) { return random_() % end; }
  shm::PageKey SomeKey() { return {shm::PageFormat::kFloat16, Below(2), 0}; }
  // Of two kinds of tokens only, so that pages have beginnings in common.
  std::vector<TokenId> SomeTokens(size_t count) {
    std::vector<TokenId> tokens(count, 0);
    const size_t change = Below(6);
    for (size_t i = 0; i < count; ++i) tokens[i] = i >= change * 7 ? 1 : 0;
    return tokens;
  }
  const StoredPage* SomePage() {
    if (model_.pages.empty()) return nullptr;
    return &std::next(model_.pages.begin(), static_cast<long>(Below(model_.pages.size())))->second;
  }

  void Add() {
    const StoredPage* parent = Below(3) == 0 ? nullptr : SomePage();
    if (parent != nullptr && parent->tokens.size() < kTokens) parent = nullptr;
    const size_t count = Below(2) == 0 ? kTokens : 1 + Below(kTokens);
    const StoredPage page =
        PageAfter(parent, SomeTokens(count), parent == nullptr ? SomeKey() : parent->key,
                  static_cast<uint32_t>(1 + Below(200'000)), static_cast<uint32_t>(Below(10)));
    index_.Add(page);
    model_.pages[page.chain_hash] = page;
    model_.told[page.chain_hash] = page.used_unix_s;
  }
  void Remove() {
    const StoredPage* page = SomePage();
    if (page == nullptr) return;
    const uint64_t hash = page->chain_hash;
    index_.Remove(hash);
    model_.pages.erase(hash);
    index_.Remove(hash);
  }
  void Touch() {
    const StoredPage* page = SomePage();
    if (page == nullptr) return;
    const uint64_t hash = page->chain_hash;
    StoredPage& touched = model_.pages[hash];
    const auto unix_s = static_cast<uint32_t>(Below(2000));
    bool is_to_tell = false;
    if (unix_s > touched.used_unix_s) {
      touched.used_unix_s = unix_s;
      is_to_tell = unix_s > model_.told[hash] + limits::kSnapshotUsedGranularityS;
      if (is_to_tell) model_.told[hash] = unix_s;
    }
    EXPECT_EQ(index_.Touch(hash, unix_s), is_to_tell);
  }
  void Find() {
    const shm::PageKey key = SomeKey();
    std::vector<TokenId> tokens;
    for (size_t i = Below(4); i > 0; --i) {
      const auto more = SomeTokens(kTokens);
      tokens.insert(tokens.end(), more.begin(), more.end());
    }
    const auto more = SomeTokens(Below(kTokens));
    tokens.insert(tokens.end(), more.begin(), more.end());
    const auto found = index_.FindAfter(kRoot, 0, tokens, Always(key), true);
    uint64_t parent = kRoot;
    size_t position = 0;
    for (;; ++position) {
      const auto rest = std::span(tokens).subspan(position * kTokens);
      const auto candidates = model_.Matching(parent, position, key);
      const auto full = std::ranges::find_if(candidates, [&](const StoredPage* page) {
        return page->tokens.size() == kTokens && Model::Common(*page, rest) == kTokens;
      });
      if (full == candidates.end()) {
        size_t most = 0;
        for (const StoredPage* page : candidates) most = std::max(most, Model::Common(*page, rest));
        EXPECT_EQ(found.fragment_tokens, most);
        ASSERT_EQ(found.fragment != nullptr, most > 0);
        if (most > 0) {
          EXPECT_EQ(Model::Common(*found.fragment, rest), most);
          EXPECT_EQ(found.fragment->parent, parent);
          EXPECT_EQ(found.fragment->key, key);
        }
        break;
      }
      parent = (*full)->chain_hash;
      ASSERT_LT(position, found.pages.size());
      EXPECT_EQ(found.pages[position]->chain_hash, parent);
    }
    EXPECT_EQ(found.pages.size(), position);
  }
  void Compare() {
    ASSERT_EQ(index_.size(), model_.pages.size());
    uint64_t bytes = 0;
    std::map<uint64_t, std::vector<uint64_t>> children, of_owner;
    for (const auto& [hash, page] : model_.pages) {
      ASSERT_TRUE(index_.Has(hash));
      EXPECT_TRUE(Same(*index_.Get(hash), page));
      bytes += PageFileBytes(page.data_bytes);
      children[page.parent].push_back(hash);
      of_owner[page.key.owner].push_back(hash);
    }
    EXPECT_EQ(index_.bytes(), bytes);
    for (const auto& [parent, hashes] : children) {
      auto found = index_.Children(parent);
      std::ranges::sort(found);
      EXPECT_EQ(found, hashes);
    }
    for (uint64_t owner = 0; owner < 3; ++owner) EXPECT_EQ(index_.OfOwner(owner), of_owner[owner]);
    const uint64_t bytes_max = Below(2) == 0 ? UINT64_MAX : Below(bytes + 1);
    const size_t pages_max = Below(model_.pages.size() + 2);
    EXPECT_EQ(index_.Beyond(bytes_max, pages_max), model_.Beyond(bytes_max, pages_max));
  }

  std::mt19937 random_{GetParam()};
  KvIndex index_{kRoot};
  Model model_;
};

TEST_P(AgainstBruteForce, DoesTheSame) {
  for (int step = 0; step < 2000 && !HasFailure(); ++step) {
    const size_t what = Below(10);
    if (what < 4)
      Add();
    else if (what < 6)
      Remove();
    else if (what < 7)
      Touch();
    else
      Find();
    if (step % 50 == 0) Compare();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, AgainstBruteForce, testing::Range(0u, 8u));

}  // namespace
}  // namespace perdure::snapshot
