#include "snapshot/kv_index.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "base/limits.h"
#include "shm/hashes.h"
#include "shm/layout.h"
#include "snapshot/format.h"

namespace perdure::snapshot {
namespace {

constexpr uint64_t kLmdbPage = 4096;
constexpr uint64_t kLmdbHeader = 16;
// A page's record, and each chunk's place in the tree, of leaves that are two thirds full.
constexpr uint64_t kRecordBytes = 400;
constexpr uint64_t kChunkPlaceBytes = 48;

size_t CommonTokens(std::span<const TokenId> a, std::span<const TokenId> b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

uint64_t PageFileBytes(uint32_t stored_bytes) {
  const uint64_t full = stored_bytes / kChunkBytes, rest = stored_bytes % kChunkBytes;
  const auto pages_of = [](uint64_t data) {
    return (kLmdbHeader + sizeof(uint64_t) + data + kLmdbPage - 1) / kLmdbPage;
  };
  const uint64_t pages = full * pages_of(kChunkBytes) + (rest > 0 ? pages_of(rest) : 0);
  return pages * kLmdbPage + kRecordBytes + (full + 1) * kChunkPlaceBytes;
}

bool KvIndex::ByTokens::operator()(const StoredPage* a, const StoredPage* b) const {
  const Probe probe{b->parent, b->key, b->tokens};
  if ((*this)(a, probe)) return true;
  return std::tie(a->parent, a->key, a->tokens) == std::tie(b->parent, b->key, b->tokens) &&
         a->chain_hash < b->chain_hash;
}

bool KvIndex::ByTokens::operator()(const StoredPage* a, const Probe& b) const {
  if (a->parent != b.parent) return a->parent < b.parent;
  if (a->key != b.key) return a->key < b.key;
  return std::ranges::lexicographical_compare(a->tokens, b.tokens);
}

KvIndex::Use KvIndex::UseOf(const StoredPage& page) {
  return {page.used_unix_s, UINT32_MAX - page.position, page.chain_hash};
}

void KvIndex::Add(StoredPage page) {
  const uint64_t hash = page.chain_hash;
  Remove(hash);
  const Page& added = pages_.emplace(hash, Page{std::move(page), 0}).first->second;
  pages_.at(hash).told_unix_s = added.used_unix_s;
  by_tokens_.insert(&added);
  by_use_.insert(UseOf(added));
  bytes_ += PageFileBytes(added.stored_bytes());
}

void KvIndex::Remove(uint64_t chain_hash) {
  const auto it = pages_.find(chain_hash);
  if (it == pages_.end()) return;
  by_tokens_.erase(&it->second);
  by_use_.erase(UseOf(it->second));
  bytes_ -= PageFileBytes(it->second.stored_bytes());
  pages_.erase(it);
}

void KvIndex::Clear() {
  by_tokens_.clear();
  by_use_.clear();
  pages_.clear();
  bytes_ = 0;
}

const StoredPage* KvIndex::Get(uint64_t chain_hash) const {
  const auto it = pages_.find(chain_hash);
  return it == pages_.end() ? nullptr : &it->second;
}

KvIndex::Found KvIndex::FindAfter(uint64_t parent, size_t position, std::span<const TokenId> tokens,
                                  const KeyOf& key, bool fragment, bool over_gaps) const {
  Found found;
  size_t whole = 0;  // pages up to the last one that is stored
  uint64_t end = parent;
  for (size_t i = 0; (i + 1) * shm::kArenaPageTokens <= tokens.size(); ++i) {
    const auto next = tokens.subspan(i * shm::kArenaPageTokens, shm::kArenaPageTokens);
    const shm::PageKey wanted = key(position + i);
    const uint64_t hash = shm::ChainHash(parent, wanted, shm::TokensHash(next));
    const StoredPage* page = Get(hash);
    // Equal hashes of different tokens are harmless.
    if (page != nullptr && (page->parent != parent || page->position != position + i ||
                            page->key != wanted || !std::ranges::equal(page->tokens, next)))
      page = nullptr;
    if (page == nullptr && !over_gaps) break;
    found.pages.push_back(page);
    parent = hash;
    if (page == nullptr) continue;
    whole = i + 1;
    end = hash;
  }
  found.pages.resize(whole);
  const auto rest = tokens.subspan(whole * shm::kArenaPageTokens);
  if (fragment && !rest.empty()) {
    const shm::PageKey wanted = key(position + whole);
    FindFragment({end, wanted, rest}, position + whole, &found);
  }
  return found;
}

// What comes next in the order, or before, has the most in common.
void KvIndex::FindFragment(const Probe& probe, size_t position, Found* found) const {
  const auto consider = [&](const StoredPage& page) {
    if (page.parent != probe.parent || page.key != probe.key || page.position != position) return;
    const size_t common = CommonTokens(page.tokens, probe.tokens);
    if (common <= found->fragment_tokens) return;
    found->fragment = &page;
    found->fragment_tokens = common;
  };
  const auto after = by_tokens_.lower_bound(probe);
  if (after != by_tokens_.end()) consider(**after);
  if (after != by_tokens_.begin()) consider(**std::prev(after));
}

bool KvIndex::Touch(uint64_t chain_hash, uint32_t unix_s) {
  const auto it = pages_.find(chain_hash);
  if (it == pages_.end() || unix_s <= it->second.used_unix_s) return false;
  Page& page = it->second;
  by_use_.erase(UseOf(page));
  page.used_unix_s = unix_s;
  by_use_.insert(UseOf(page));
  if (unix_s - page.told_unix_s <= limits::kSnapshotUsedGranularityS) return false;
  page.told_unix_s = unix_s;
  return true;
}

std::vector<uint64_t> KvIndex::Beyond(uint64_t bytes_max, size_t pages_max) const {
  std::vector<uint64_t> hashes;
  uint64_t bytes = bytes_;
  size_t pages = pages_.size();
  for (auto it = by_use_.begin(); bytes > bytes_max || pages > pages_max; ++it, --pages) {
    hashes.push_back(it->chain_hash);
    bytes -= PageFileBytes(pages_.at(it->chain_hash).stored_bytes());
  }
  return hashes;
}

std::vector<uint64_t> KvIndex::OfOwner(uint64_t owner) const {
  std::vector<uint64_t> hashes;
  for (const auto& [hash, page] : pages_)
    if (page.key.owner == owner) hashes.push_back(hash);
  std::ranges::sort(hashes);
  return hashes;
}

std::vector<uint64_t> KvIndex::Children(uint64_t chain_hash) const {
  std::vector<uint64_t> hashes;
  // Below all keys and tokens.
  const shm::PageKey lowest{static_cast<shm::PageFormat>(0), 0, 0};
  for (auto it = by_tokens_.lower_bound(Probe{chain_hash, lowest, {}});
       it != by_tokens_.end() && (*it)->parent == chain_hash; ++it)
    hashes.push_back((*it)->chain_hash);
  return hashes;
}

}  // namespace perdure::snapshot
