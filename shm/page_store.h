// The cache of KV pages: which pages are open or cached, who uses them, which numbers go next.
//
// A page is open while its sequence fills it. Sealed, it is cached: a node of a tree whose paths
// from the roots are chains, found again by their tokens. Lookup compares the tokens and the page
// before at each step, so equal hashes of different tokens are harmless. A page of fewer than
// kArenaPageTokens tokens ends its chain; who goes on from it, or forks within any page, copies.
//
// A page's numbers lie in a slot. References keep them; of those without, the least recently used
// are dropped when memory is needed, ends of chains first. A claim keeps the page itself, and all
// before it: without its numbers it is hollow, tells which tokens stand there, and gets its numbers
// back when somebody has computed them.
//
// The memory may be shared and hold a predecessor's pages. Descriptors are read once, at the start,
// and only written afterwards: what happens to them later cannot mislead this process. Recovered
// data is compared with its checksum when it is first used, or before by Scrub. Everything else
// (tree, references, claims, order of use) is private. docs/shm_layout.md tells the order of
// stores.
//
// What is done to one page takes time that does not grow with the number of pages (their logarithm,
// to be exact), unless pages are moved for it or it is found to be damaged. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/token.h"
#include "shm/page_memory.h"
#include "shm/page_tree.h"
#include "shm/slab_pool.h"

namespace perdure::shm {

class PageStore : private PageTree::Nodes {
 public:
  // Takes over the sealed pages that lie in the memory. The pages in use take at most as much as
  // `pages_budget` of kFloat16 would; what was kept beyond is dropped.
  PageStore(std::unique_ptr<PageMemory> memory, PageIndex pages_budget);

  // An open page with one reference, its bytes arbitrary. Nothing where all memory is referenced,
  // or the system has none.
  std::optional<PageIndex> Allocate(PageFormat format = PageFormat::kFloat16);
  // The same for several, whose slots lie in a row. Empty where there is no such place.
  std::vector<PageIndex> AllocateRun(PageFormat format, uint32_t count);

  // An open page stays at its address, so that another thread may write to it, until Unpin.
  void Pin(PageIndex page);
  void Unpin(PageIndex page);

  // An open page is complete: from here on it is found under `tokens` (up to kArenaPageTokens of
  // them) and `key`, whose format is the page's, after the chain that ends with `parent`, a full
  // cached page, or from the beginning where `parent` is kNoPage. `drawn`: bit i stands for a token
  // that the model has drawn. Returns the page to use instead: where the same is cached already,
  // the reference moves there and `page` becomes free. `checksum`: of its bytes, from who has just
  // compared them with it.
  PageIndex Seal(PageIndex page, PageIndex parent, const PageKey& key,
                 std::span<const TokenId> tokens, uint32_t drawn = 0,
                 std::optional<uint64_t> checksum = std::nullopt);

  // A page as Seal has once left it, without its numbers, where there is none; with a claim. They
  // come with Seal. `parent`, if any, is claimed. Nothing where there is no room for descriptors.
  std::optional<PageIndex> Remember(PageIndex parent, const PageKey& key,
                                    std::span<const TokenId> tokens, uint32_t drawn);

  // The pages that `tokens` fill, in order, as far as they are known; hollow ones too. `key` tells
  // each one's by its number.
  using KeyOf = std::function<PageKey(size_t page)>;
  std::vector<PageIndex> FindPath(std::span<const TokenId> tokens, const KeyOf& key) const;
  // A page after `parent` whose first `tokens` agree; its numbers are there and whole.
  std::optional<PageTree::Match> FindFragment(PageIndex parent, const PageKey& key,
                                              std::span<const TokenId> tokens);

  // Adds a reference to a cached page; false where its numbers are gone or damaged.
  bool Acquire(PageIndex page);
  // Drops a reference. An open page becomes free, a sealed one stays cached.
  void Release(PageIndex page);
  // Release, of a page whose numbers this chain's end will not look at any more: if nobody else has
  // a chain or a claim at or behind it they are dropped at once, else before those of its
  // successors. `own`, if any, is a claimed page from which this chain has gone on: it is nobody
  // else's.
  void Retire(PageIndex page, PageIndex own = kNoPage);
  // For a cached page: while nobody references it its numbers may go before those of its
  // successors.
  void Skip(PageIndex page);
  // All bytes of a page, to an open one of the same format.
  void Copy(PageIndex from, PageIndex to);

  void Claim(PageIndex page);
  void Unclaim(PageIndex page);
  // Called when hollow pages take all descriptors: gives up a claim; false where there is none.
  void SetReclaim(std::function<bool()> reclaim) { reclaim_ = std::move(reclaim); }

  // Called before the numbers of a page are dropped to make room for others.
  void SetOnEvict(std::function<void(PageIndex)> on_evict) { on_evict_ = std::move(on_evict); }

  // Forgets all pages that are neither referenced nor claimed, nor stand before one that is, but
  // for those that `keeps`, if it is there, is true of, and what stands before them; the bytes.
  uint64_t DropUnneeded(const std::function<bool(PageIndex)>& keeps = nullptr);
  // The same for this page, and those before it that it was the reason for.
  void DropUnneeded(PageIndex page, const std::function<bool(PageIndex)>& keeps = nullptr);
  // Moves pages of up to about `bytes_max` bytes so that slabs become empty. True: nothing is left
  // to be gained.
  bool Compact(uint64_t bytes_max) { return pool_.Compact(bytes_max); }
  // Returns slabs in which no page is in use to the system; the bytes.
  uint64_t ReleaseUnused() { return pool_.ReturnEmpty(); }

  // Pages in use may take so many bytes from now on, up to bytes_max(). What is more and not
  // referenced is dropped, and its memory returned to the system. What it keeps to: more where
  // referenced pages take more.
  uint64_t SetLimit(uint64_t bytes);
  // Drops what is not referenced, least recently used first, until pages in use take `bytes` or
  // nothing is left to drop: false; or until `pauses`, which is asked before each: true.
  bool EvictTo(uint64_t bytes, const std::function<bool()>& pauses);
  uint64_t limit_bytes() const { return limit_bytes_; }

  // Compares pages with their checksums: one, and more up to `bytes_max` bytes. After BeginCheck
  // all of them in turn; else recovered ones that were not used yet. needs_scrub: some are left.
  void BeginCheck();
  void Scrub(size_t bytes_max);
  bool needs_scrub() const { return scrub_next_ < scrub_end_; }
  bool checks_all() const { return checks_all_ && needs_scrub(); }
  // Pages that a check has found damaged while they, or what follows them, were referenced: once
  // they are not, DropDamaged drops them.
  std::vector<PageIndex> TakeDamagedInUse() { return std::exchange(damaged_in_use_, {}); }
  void DropDamaged(PageIndex page);
  // `page` is `after`, or stands before it.
  bool IsBefore(PageIndex page, PageIndex after) const;

  // Of a page that is open or cached.
  std::byte* address(PageIndex page) const {
    return memory_->address(pages_[page].slot, pages_[page].key.format);
  }
  size_t page_bytes(PageFormat format = PageFormat::kFloat16) const {
    return memory_->geometry().page_bytes[format];
  }
  bool is_loaded(PageIndex page) const { return pages_[page].slot != kNoSlot; }
  SlotIndex slot(PageIndex page) const { return pages_[page].slot; }
  PageFormat format(PageIndex page) const { return pages_[page].key.format; }
  PageIndex parent(PageIndex page) const { return pages_[page].parent; }
  uint64_t owner(PageIndex page) const { return pages_[page].key.owner; }
  uint64_t mask(PageIndex page) const { return pages_[page].key.mask; }
  uint32_t position(PageIndex page) const { return pages_[page].position; }
  uint64_t data_checksum(PageIndex page) const { return pages_[page].data_checksum; }
  uint64_t chain_hash(PageIndex page) const { return pages_[page].chain_hash; }
  std::span<const TokenId> tokens(PageIndex page) const { return pages_[page].Tokens(); }
  uint32_t drawn(PageIndex page) const { return pages_[page].drawn; }
  bool is_open(PageIndex page) const { return pages_[page].use == Use::kOpen; }
  bool is_referenced(PageIndex page) const { return pages_[page].references > 0; }
  PageIndex pages_end() const { return static_cast<PageIndex>(pages_.size()); }  // above all
  // A cached page with this hash, claimed or not; for records that outlive a process.
  bool IsCached(PageIndex page, uint64_t chain_hash) const;

  PageIndex used() const { return used_; }              // open, or cached with their numbers
  PageIndex cached() const { return cached_; }          // with their numbers, referenced or not
  PageIndex hollow() const { return hollow_; }          // cached without
  PageIndex referenced() const { return referenced_; }  // open or cached
  PageIndex pages_left() const;                         // that could be opened, numbers aside
  uint64_t used_bytes() const { return used_bytes_; }
  uint64_t held_bytes() const;  // of referenced pages
  uint64_t bytes_max() const { return budget_bytes_; }
  uint64_t bytes_granted() const { return pool_.bytes_granted(); }
  // Of those: what Compact and ReleaseUnused would return.
  uint64_t bytes_spare() const { return pool_.BytesSpare(loaded_); }
  const PerFormat<uint64_t>& loaded() const { return loaded_; }  // pages with their numbers
  // Pages that Allocate would give one after another, as far as the system has the memory.
  PageIndex available(PageFormat format = PageFormat::kFloat16) const;
  // Whether so many pages of each format could be referenced side by side: beside those that are,
  // or, as far as the memory goes, alone.
  bool CanHold(const PerFormat<uint64_t>& pages) const;
  bool CanEverHold(const PerFormat<uint64_t>& pages) const;
  PageMemory& memory() { return *memory_; }

  struct Recovery {
    PageIndex kept = 0;     // sealed pages taken over, with their numbers
    PageIndex hollow = 0;   // without
    PageIndex dropped = 0;  // sealed, but with a wrong descriptor or without their chain
  };
  const Recovery& recovery() const { return recovery_; }
  // After a recovery and its claims: drops hollow pages that nobody has claimed and nothing
  // follows, and numbers that are more than the budget.
  void FinishRecovery();
  // Pages whose numbers were dropped to make room for others.
  uint64_t evicted() const { return evicted_; }
  // Pages whose data was wrong when they were used or scrubbed, and pages after these.
  uint64_t damaged() const { return damaged_; }
  // What was found damaged, newest last; of problems_found the first may be left out.
  const std::deque<std::string>& problems() const { return problems_; }
  uint64_t problems_found() const { return problems_found_; }

 private:
  enum class Use : uint8_t { kFree, kOpen, kCached };

  // The truth about a page; its descriptor is a copy for a successor.
  struct Page : TreeNode {
    Use use = Use::kFree;
    bool verified = false;   // the data is as it was sealed; true of every referenced page
    bool skipped = false;    // its numbers need not outlive its successors'
    bool evictable = false;  // in evict_next_
    uint32_t references = 0;
    uint32_t claims = 0;
    uint32_t loaded_children = 0;  // that have their numbers
    SlotIndex slot = kNoSlot;
    uint32_t drawn = 0;
    uint64_t data_checksum = 0;
    uint64_t last_use = 0;
  };
  TreeNode& node(PageIndex page) override { return pages_[page]; }
  const TreeNode& node(PageIndex page) const override { return pages_[page]; }

  // At the start (page_recovery.cc).
  void Recover();
  std::vector<PageIndex> ReadDescriptors();
  bool IsLinked(PageIndex page) const;
  void KeepOrder(std::vector<PageIndex> kept);

  // Memory.
  std::optional<PageIndex> TakeNode();
  uint64_t BytesOf(const PerFormat<uint64_t>& pages) const;
  bool MakeRoom(PageFormat format, uint64_t pages);
  bool Evict();
  PageIndex Open(PageIndex index, PageFormat format, SlotIndex slot);
  void MoveData(SlotIndex from, SlotIndex to);
  void SetSlot(Page* page, PageIndex index, SlotIndex slot);

  // Of cached pages.
  bool Verify(PageIndex page);
  void TakeData(PageIndex hollow, PageIndex open, uint64_t checksum);
  PageIndex Unload(PageIndex page);
  PageIndex Remove(PageIndex page);
  bool IsNeeded(const Page& page) const;
  void DropIfBeginning(PageIndex page);
  void AddReference(PageIndex page);
  void DropReference(PageIndex page);
  void UpdateEvictable(PageIndex page);
  void Touch(PageIndex page);
  std::vector<PageIndex> WithFollowers(PageIndex page) const;
  void NoteDamage(std::span<const PageIndex> dropped);

  void SetState(PageIndex page, PageState state);
  void StoreSlot(PageIndex page);
  void Publish(PageIndex page);

  const std::unique_ptr<PageMemory> memory_;
  const uint64_t budget_bytes_;
  uint64_t limit_bytes_;     // up to budget_bytes_
  std::vector<Page> pages_;  // up to the highest that was ever in use
  SlabPool pool_;
  std::vector<PageIndex> page_of_slot_;
  std::vector<PageIndex> free_;  // below pages_.size(); the back is the next one
  PageTree tree_;
  std::set<std::pair<uint64_t, PageIndex>> evict_next_;  // by last use
  uint64_t clock_ = 0;                                   // of last_use
  PageIndex used_ = 0, cached_ = 0, hollow_ = 0, referenced_ = 0;
  uint64_t used_bytes_ = 0;
  PerFormat<uint64_t> loaded_, held_;  // pages with their numbers; those of them referenced
  Recovery recovery_;
  PageIndex scrub_next_ = 0, scrub_end_ = 0;
  bool checks_all_ = false;
  uint64_t evicted_ = 0;
  uint64_t damaged_ = 0;
  uint64_t problems_found_ = 0;
  std::vector<PageIndex> damaged_in_use_;
  std::function<bool()> reclaim_;
  std::function<void(PageIndex)> on_evict_;
  std::deque<std::string> problems_;
};

}  // namespace perdure::shm
