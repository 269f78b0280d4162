// Which pages the environment `kv` has, by what they stand for, and which of them are to go first.
// Pure bookkeeping: nothing here reads or writes a file. Not thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/snapshot_settings.h"
#include "base/token.h"
#include "shm/page_key.h"

namespace perdure::snapshot {

// A page as it is stored; all but its numbers.
struct StoredPage {
  uint64_t chain_hash = 0;
  uint64_t parent = 0;  // chain hash of the page before; the root's for a first one
  uint32_t position = 0;
  shm::PageKey key;
  std::vector<TokenId> tokens;  // up to shm::kArenaPageTokens; fewer: it ends its chain
  uint32_t drawn = 0;
  uint64_t data_checksum = 0;
  uint32_t data_bytes = 0;
  uint32_t used_unix_s = 0;
  // How they stand in the file, as KvFile tells.
  KvCompression compression = KvCompression::kNone;
  uint32_t compressed_bytes = 0;  // where they are
  uint32_t stored_bytes() const {
    return compression == KvCompression::kNone ? data_bytes : compressed_bytes;
  }
};

class KvIndex {
 public:
  // `root`: chain hash before first pages (shm::RootHash).
  explicit KvIndex(uint64_t root) : root_(root) {}

  // In the place of one with that chain hash.
  void Add(StoredPage page);
  void Remove(uint64_t chain_hash);
  void Clear();
  const StoredPage* Get(uint64_t chain_hash) const;
  bool Has(uint64_t chain_hash) const { return Get(chain_hash) != nullptr; }

  using KeyOf = std::function<shm::PageKey(size_t page)>;
  // The full pages that `tokens` fill after the page `parent`, which is number `position` - 1 of
  // its chain (the root's hash and 0: from the beginning); in order, as far as they are stored.
  // `key` is asked for page `position` and those after it. If `fragment` is set, also a page, full
  // or not, after the last of them that has the most leading tokens in common with the rest of
  // `tokens`, at least one. With `over_gaps` pages in between may be missing (nullptr), as a
  // rotating conversation leaves them. All of it lives until the next change.
  struct Found {
    std::vector<const StoredPage*> pages;
    const StoredPage* fragment = nullptr;
    size_t fragment_tokens = 0;
  };
  Found FindAfter(uint64_t parent, size_t position, std::span<const TokenId> tokens,
                  const KeyOf& key, bool fragment, bool over_gaps = false) const;

  // It was of use at this time. True: that is later than the file knows by more than
  // kSnapshotUsedGranularityS, so that it is to be told.
  bool Touch(uint64_t chain_hash, uint32_t unix_s);

  // The pages that are to go so that all take up to `bytes_max` bytes of the file (PageFileBytes)
  // and are up to `pages_max`:
  // least recently used first, of equal ones the ends of chains first.
  std::vector<uint64_t> Beyond(uint64_t bytes_max, size_t pages_max) const;

  uint64_t bytes() const { return bytes_; }  // of the file
  size_t size() const { return pages_.size(); }
  uint64_t root() const { return root_; }
  // All of an owner's; for deletion.
  std::vector<uint64_t> OfOwner(uint64_t owner) const;
  // Those that follow a page directly.
  std::vector<uint64_t> Children(uint64_t chain_hash) const;

 private:
  struct Page : StoredPage {
    uint32_t told_unix_s = 0;  // as the file knows it
  };
  // Of one parent and key: in the order of their tokens, so that the nearest ones are neighbours.
  struct Probe {
    uint64_t parent;
    const shm::PageKey& key;
    std::span<const TokenId> tokens;
  };
  struct ByTokens {
    using is_transparent = void;
    bool operator()(const StoredPage* a, const StoredPage* b) const;
    bool operator()(const StoredPage* a, const Probe& b) const;
  };
  struct Use {
    uint32_t used_unix_s;
    uint32_t from_end;  // UINT32_MAX - position: ends of chains are lower
    uint64_t chain_hash;
    auto operator<=>(const Use&) const = default;
  };
  static Use UseOf(const StoredPage& page);
  void FindFragment(const Probe& probe, size_t position, Found* found) const;

  const uint64_t root_;
  std::unordered_map<uint64_t, Page> pages_;
  std::set<const StoredPage*, ByTokens> by_tokens_;
  std::set<Use> by_use_;
  uint64_t bytes_ = 0;
};

// What a page of which so many bytes are stored takes of the file.
uint64_t PageFileBytes(uint32_t stored_bytes);

}  // namespace perdure::snapshot
