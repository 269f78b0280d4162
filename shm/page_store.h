// The cache of KV pages: which pages are free, open or cached, who uses them, which goes next.
//
// A page is open while its sequence fills it. Sealed, it is cached: a node of a tree whose paths
// from the roots are chains, found again by their tokens. Lookup compares the tokens and the page
// before at each step, so equal hashes of different tokens are harmless. References keep pages; of
// those without, the least recently used is evicted when a page is needed, leaves of the tree
// first.
//
// The memory may be shared and hold a predecessor's pages. Descriptors are read once, at the start,
// and only written afterwards: what happens to them later cannot mislead this process. Recovered
// data is compared with its checksum when it is first used, or before by Scrub. Everything else
// (tree, references, order of use) is private. docs/shm_layout.md tells the order of stores.
//
// Allocate, Seal, Acquire and Release take time that does not grow with the number of pages (their
// logarithm, to be exact), but for a damaged page that is found. Not thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/token.h"
#include "shm/page_memory.h"

namespace perdure::shm {

class PageStore {
 public:
  // Takes over the sealed pages that lie in the memory. At most `pages_budget` pages are in use at
  // any time (all of them where that is more); what was kept beyond is evicted.
  PageStore(std::unique_ptr<PageMemory> memory, PageIndex pages_budget);

  // An open page with one reference, its bytes arbitrary: a free one, the most recently freed
  // first; else of a new slab; else the least recently used one that is cached and not needed.
  // Nothing where all are needed, or the system has no memory.
  std::optional<PageIndex> Allocate();

  // An open page is full: from here on it is found under `tokens` (kArenaPageTokens of them) after
  // the chain that ends with `parent`, a sealed page that the caller references, or after `root`
  // where `parent` is kNoPage. Returns the page to use instead: where the same chain is cached
  // already, the reference moves there and `page` becomes free.
  PageIndex Seal(PageIndex page, PageIndex parent, uint64_t root, std::span<const TokenId> tokens);

  // The longest cached prefix of the first `tokens_max` tokens in whole pages, in order, with a
  // reference to each.
  std::vector<PageIndex> Acquire(uint64_t root, std::span<const TokenId> tokens, size_t tokens_max);

  // Drops a reference. An open page becomes free, a sealed one stays cached.
  void Release(PageIndex page);

  // Compares recovered pages that were not used yet with their checksums: one, and more up to
  // `bytes_max` bytes. needs_scrub: that has not been done to all of them.
  void Scrub(size_t bytes_max);
  bool needs_scrub() const { return scrub_next_ < scrub_end_; }

  // Forgets all that is cached and not needed by a reference.
  void DropUnused();
  // Returns slabs in which no page is in use to the system; the bytes.
  uint64_t ReleaseUnused();

  std::byte* address(PageIndex page) const { return memory_->address(page); }
  size_t page_bytes() const { return memory_->geometry().page_bytes; }
  PageIndex pages_max() const { return budget_; }
  PageIndex used() const { return used_; }              // open or cached
  PageIndex cached() const { return cached_; }          // referenced or not
  PageIndex referenced() const { return referenced_; }  // open or cached
  // Pages that Allocate would give one after another, as far as the system has the memory.
  PageIndex available() const { return budget_ - used_ + evictable_; }
  uint64_t bytes_granted() const { return slabs_granted_ * memory_->geometry().slab_bytes; }

  struct Recovery {
    PageIndex kept = 0;     // sealed pages taken over
    PageIndex dropped = 0;  // sealed, but with a wrong descriptor or without their chain
  };
  const Recovery& recovery() const { return recovery_; }
  // Recovered pages whose data was wrong when they were used or scrubbed, and pages after these.
  uint64_t damaged() const { return damaged_; }

 private:
  enum class Use : uint8_t { kFree, kOpen, kCached };

  // The truth about a page; its descriptor is a copy for a successor.
  struct Page {
    Use use = Use::kFree;
    bool verified = false;  // the data is as it was sealed; true of every referenced page
    uint32_t references = 0;
    uint32_t pins = 0;      // references, and children with pins
    uint32_t children = 0;  // cached
    PageIndex parent = kNoPage;
    uint32_t position = 0;
    uint64_t chain_hash = 0;
    uint64_t parent_hash = 0;
    uint64_t data_checksum = 0;
    uint64_t last_use = 0;
    std::array<TokenId, kArenaPageTokens> tokens{};
  };

  // At the start.
  void Recover();
  std::vector<PageIndex> ReadDescriptors();
  bool IsLinked(const Page& page) const;
  void AddGrantedSlab(uint32_t slab);

  std::optional<PageIndex> Find(PageIndex parent, uint64_t parent_hash, uint64_t chain_hash,
                                std::span<const TokenId> tokens) const;
  // False: the data is not what was sealed; the page and all after it are gone.
  bool Verify(PageIndex page);
  bool GrantSlab();
  bool Evict();
  void Link(PageIndex page);
  void Unlink(PageIndex page);
  void DropDamaged(PageIndex page);
  void LogDamage(std::span<const PageIndex> dropped, uint32_t position);
  void Free(PageIndex page);
  void AddReference(PageIndex page);
  void Touch(PageIndex page);
  bool IsLeaf(const Page& page) const;

  void SetState(PageIndex page, PageState state);
  void Publish(PageIndex page);

  const std::unique_ptr<PageMemory> memory_;
  const PageIndex budget_;
  std::vector<Page> pages_;  // of all slabs up to the last that was ever granted
  std::vector<bool> granted_;
  std::vector<PageIndex> free_;                         // granted; the back is the next one
  std::unordered_multimap<uint64_t, PageIndex> cache_;  // by chain hash
  std::set<std::pair<uint64_t, PageIndex>>
      evict_next_;      // by last use: cached, no pins, no children
  uint64_t clock_ = 0;  // of last_use
  PageIndex used_ = 0, cached_ = 0, referenced_ = 0, evictable_ = 0;
  uint64_t slabs_granted_ = 0;
  Recovery recovery_;
  PageIndex scrub_next_ = 0, scrub_end_ = 0;  // among these may be pages that were not verified
  uint64_t damaged_ = 0;
  size_t damages_logged_ = 0;
};

}  // namespace perdure::shm
