#include "shm/page_store.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/check.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "shm/hashes.h"

namespace perdure::shm {
namespace {

uint32_t SlabsOf(const ArenaGeometry& geometry, PageIndex pages_budget) {
  return geometry.SlabsFor(PageFormat::kFloat16, pages_budget);
}

}  // namespace

PageStore::PageStore(std::unique_ptr<PageMemory> memory, PageIndex pages_budget)
    : memory_(std::move(memory)),
      budget_bytes_(pages_budget * memory_->geometry().page_bytes[PageFormat::kFloat16]),
      limit_bytes_(budget_bytes_),
      pool_(memory_.get(), SlabsOf(memory_->geometry(), pages_budget),
            [this](SlotIndex from, SlotIndex to) { MoveData(from, to); }),
      page_of_slot_(size_t{memory_->geometry().slabs} * memory_->geometry().slot_stride, kNoPage),
      tree_(this, memory_->root()) {
  Recover();
}

// --- Memory ------------------------------------------------------------------------------------

PageIndex PageStore::pages_left() const {
  return memory_->geometry().pages_max - static_cast<PageIndex>(pages_.size() - free_.size());
}

std::optional<PageIndex> PageStore::TakeNode() {
  for (;;) {
    if (!free_.empty()) {
      const PageIndex index = free_.back();
      free_.pop_back();
      return index;
    }
    const auto index = static_cast<PageIndex>(pages_.size());
    if (index < memory_->geometry().pages_max && memory_->GrantDescriptors(index + 1)) {
      pages_.emplace_back();
      return index;
    }
    if (!(reclaim_ && reclaim_()) && !Evict()) return std::nullopt;
  }
}

// Drops numbers until so many pages more could be had; false where too many are referenced.
bool PageStore::MakeRoom(PageFormat format, uint64_t pages) {
  const uint64_t bytes = pages * page_bytes(format);
  while (used_bytes_ + bytes > limit_bytes_ || pool_.Room(format, loaded_) < pages)
    if (!Evict()) return false;
  return true;
}

PageIndex PageStore::Open(PageIndex index, PageFormat format, SlotIndex slot) {
  Page& page = pages_[index];
  page = {};
  page.use = Use::kOpen;
  page.key.format = format;
  page.verified = true;
  page.references = 1;
  SetState(index, PageState::kOpen);
  SetSlot(&page, index, slot);
  ++used_;
  ++referenced_;
  ++loaded_[format];
  ++held_[format];
  used_bytes_ += page_bytes(format);
  return index;
}

std::optional<PageIndex> PageStore::Allocate(PageFormat format) {
  if (page_bytes(format) == 0 || !MakeRoom(format, 1)) return std::nullopt;
  auto slot = pool_.Take(format);
  while (!slot && Evict()) slot = pool_.Take(format);
  if (!slot) return std::nullopt;
  const auto index = TakeNode();
  if (!index) {
    pool_.Give(*slot);
    return std::nullopt;
  }
  return Open(*index, format, *slot);
}

std::vector<PageIndex> PageStore::AllocateRun(PageFormat format, uint32_t count) {
  std::vector<PageIndex> pages;
  if (page_bytes(format) == 0 || !MakeRoom(format, count)) return pages;
  for (const SlotIndex slot : pool_.TakeRun(format, count)) {
    const auto index = TakeNode();
    if (index)
      pages.push_back(Open(*index, format, slot));
    else
      pool_.Give(slot);
  }
  if (pages.size() == count) return pages;
  for (const PageIndex page : pages) Release(page);
  return {};
}

void PageStore::Pin(PageIndex page) {
  CHECK(is_open(page));
  pool_.Pin(pages_[page].slot);
}

void PageStore::Unpin(PageIndex page) {
  CHECK(is_open(page));
  pool_.Unpin(pages_[page].slot);
}

void PageStore::SetSlot(Page* page, PageIndex index, SlotIndex slot) {
  page->slot = slot;
  if (slot != kNoSlot) page_of_slot_[slot] = index;
}

void PageStore::MoveData(SlotIndex from, SlotIndex to) {
  const PageIndex index = page_of_slot_[from];
  const PageFormat format = pages_[index].key.format;
  std::memcpy(memory_->address(to, format), memory_->address(from, format), page_bytes(format));
  page_of_slot_[from] = kNoPage;
  SetSlot(&pages_[index], index, to);
  if (pages_[index].use == Use::kCached) StoreSlot(index);
}

void PageStore::Copy(PageIndex from, PageIndex to) {
  CHECK(is_loaded(from) && pages_[to].use == Use::kOpen && format(from) == format(to));
  std::memcpy(address(to), address(from), page_bytes(format(from)));
}

uint64_t PageStore::held_bytes() const {
  uint64_t bytes = 0;
  for (const PageFormat format : kAllFormats) bytes += held_[format] * page_bytes(format);
  return bytes;
}

PageIndex PageStore::available(PageFormat format) const {
  const uint64_t held = held_bytes();
  if (page_bytes(format) == 0 || held >= limit_bytes_) return 0;
  return static_cast<PageIndex>(
      std::min(pool_.Room(format, held_), (limit_bytes_ - held) / page_bytes(format)));
}

bool PageStore::CanHold(const PerFormat<uint64_t>& pages) const {
  PerFormat<uint64_t> all = held_;
  for (const PageFormat format : kAllFormats) all[format] += pages[format];
  return BytesOf(all) <= limit_bytes_ && pool_.Fits(all);
}

bool PageStore::CanEverHold(const PerFormat<uint64_t>& pages) const {
  return BytesOf(pages) <= budget_bytes_ && pool_.FitsAtMost(pages);
}

// Beyond all bounds where there is a page of a format that there is not.
uint64_t PageStore::BytesOf(const PerFormat<uint64_t>& pages) const {
  uint64_t bytes = 0;
  for (const PageFormat format : kAllFormats) {
    if (pages[format] > 0 && page_bytes(format) == 0) return UINT64_MAX;
    bytes += pages[format] * page_bytes(format);
  }
  return bytes;
}

uint64_t PageStore::SetLimit(uint64_t bytes) {
  const uint64_t slab_bytes = memory_->geometry().slab_bytes;
  limit_bytes_ = std::clamp(bytes, std::min(slab_bytes, budget_bytes_), budget_bytes_);
  const auto slabs =
      static_cast<uint32_t>(std::max<uint64_t>(1, (limit_bytes_ + slab_bytes - 1) / slab_bytes));
  pool_.SetSlabsMax(slabs);
  if (used_bytes_ <= limit_bytes_ && pool_.slabs_granted() <= slabs) return limit_bytes_;
  while ((used_bytes_ > limit_bytes_ || !pool_.Fits(loaded_)) && Evict()) {
  }
  while (!pool_.Compact(UINT64_MAX)) {
  }
  pool_.ReturnEmpty();
  limit_bytes_ = std::max(limit_bytes_, used_bytes_);
  pool_.SetSlabsMax(std::max(slabs, pool_.slabs_granted()));
  return std::max(limit_bytes_, pool_.bytes_granted());
}

bool PageStore::EvictTo(uint64_t bytes, const std::function<bool()>& pauses) {
  do {
    if (used_bytes_ <= bytes || evict_next_.empty()) return false;
  } while (!pauses() && Evict());
  return true;
}

// --- Sealing and finding -----------------------------------------------------------------------

PageIndex PageStore::Seal(PageIndex index, PageIndex parent, const PageKey& key,
                          std::span<const TokenId> tokens, uint32_t drawn,
                          std::optional<uint64_t> checksum) {
  CHECK(index < pages_.size() && pages_[index].use == Use::kOpen);
  CHECK(!tokens.empty() && tokens.size() <= kArenaPageTokens);
  CHECK(key.format == pages_[index].key.format);
  CHECK(parent == kNoPage || (parent < pages_.size() && pages_[parent].use == Use::kCached &&
                              pages_[parent].count == kArenaPageTokens));
  const auto checksum_of_it = [&] {
    return checksum ? *checksum : Hash64(std::span(address(index), page_bytes(key.format)));
  };
  if (const auto same = tree_.Find(parent, key, tokens)) {
    if (is_loaded(*same) && Verify(*same)) {
      AddReference(*same);
      Touch(*same);
      Release(index);
      return *same;
    }
    // It may have been damaged, and be gone now.
    if (tree_.Find(parent, key, tokens) == same) {
      TakeData(*same, index, checksum_of_it());
      return *same;
    }
  }
  Page& page = pages_[index];
  page.parent = parent;
  page.key = key;
  page.count = static_cast<uint32_t>(tokens.size());
  std::copy(tokens.begin(), tokens.end(), page.tokens.begin());
  page.drawn = drawn;
  page.data_checksum = checksum_of_it();
  page.use = Use::kCached;
  ++cached_;
  tree_.Link(index);
  if (parent != kNoPage) {
    ++pages_[parent].loaded_children;
    UpdateEvictable(parent);
  }
  Touch(index);
  Publish(index);
  for (const PageIndex beginning : tree_.Beginnings(index)) DropIfBeginning(beginning);
  return index;
}

// A hollow page gets the numbers of an open one, which are those that it had.
void PageStore::TakeData(PageIndex index, PageIndex open, uint64_t checksum) {
  Page& page = pages_[index];
  CHECK(page.use == Use::kCached && page.slot == kNoSlot);
  const SlotIndex slot = std::exchange(pages_[open].slot, kNoSlot);
  SetSlot(&page, index, slot);
  page.verified = true;
  page.skipped = false;
  --hollow_;
  ++cached_;
  if (page.data_checksum == checksum) {
    StoreSlot(index);
  } else {
    page.data_checksum = checksum;
    SetState(index, PageState::kOpen);
    Publish(index);
  }
  // The slot, its bytes and its reference are the other page's now.
  SetState(open, PageState::kFree);
  pages_[open] = {};
  free_.push_back(open);
  page.references = 1;
  if (page.parent != kNoPage) {
    ++pages_[page.parent].loaded_children;
    UpdateEvictable(page.parent);
  }
  Touch(index);
}

std::optional<PageIndex> PageStore::Remember(PageIndex parent, const PageKey& key,
                                             std::span<const TokenId> tokens, uint32_t drawn) {
  CHECK(!tokens.empty() && tokens.size() <= kArenaPageTokens);
  CHECK(parent == kNoPage || (pages_[parent].use == Use::kCached && pages_[parent].claims > 0 &&
                              pages_[parent].count == kArenaPageTokens));
  auto index = tree_.Find(parent, key, tokens);
  if (!index) {
    if (page_bytes(key.format) == 0 || !(index = TakeNode())) return std::nullopt;
    Page& page = pages_[*index];
    page = {};
    page.parent = parent;
    page.key = key;
    page.count = static_cast<uint32_t>(tokens.size());
    std::copy(tokens.begin(), tokens.end(), page.tokens.begin());
    page.drawn = drawn;
    page.use = Use::kCached;
    ++hollow_;
    tree_.Link(*index);
    Publish(*index);
  }
  Claim(*index);
  return index;
}

std::vector<PageIndex> PageStore::FindPath(std::span<const TokenId> tokens,
                                           const KeyOf& key) const {
  std::vector<PageIndex> path;
  PageIndex parent = kNoPage;
  while (tokens.size() >= kArenaPageTokens) {
    const auto page = tree_.Find(parent, key(path.size()), tokens.first(kArenaPageTokens));
    if (!page) break;
    path.push_back(*page);
    parent = *page;
    tokens = tokens.subspan(kArenaPageTokens);
  }
  return path;
}

std::optional<PageTree::Match> PageStore::FindFragment(PageIndex parent, const PageKey& key,
                                                       std::span<const TokenId> tokens) {
  tokens = tokens.first(std::min<size_t>(tokens.size(), kArenaPageTokens));
  for (;;) {
    const auto match =
        tree_.Nearest(parent, key, tokens, [this](PageIndex page) { return is_loaded(page); });
    if (!match) return std::nullopt;
    if (!Verify(match->page)) continue;
    Touch(match->page);
    return match;
  }
}

bool PageStore::Acquire(PageIndex index) {
  CHECK(index < pages_.size() && pages_[index].use == Use::kCached);
  if (!is_loaded(index) || !Verify(index)) return false;
  pages_[index].skipped = false;
  AddReference(index);
  Touch(index);
  return true;
}

bool PageStore::IsCached(PageIndex page, uint64_t chain_hash) const {
  return page < pages_.size() && pages_[page].use == Use::kCached &&
         pages_[page].chain_hash == chain_hash;
}

// --- References and claims ---------------------------------------------------------------------

void PageStore::AddReference(PageIndex index) {
  Page& page = pages_[index];
  if (++page.references > 1) return;
  ++referenced_;
  ++held_[page.key.format];
  UpdateEvictable(index);
}

void PageStore::DropReference(PageIndex index) {
  CHECK(index < pages_.size() && pages_[index].references > 0);
  Page& page = pages_[index];
  if (--page.references > 0) return;
  --referenced_;
  --held_[page.key.format];
  if (page.use == Use::kCached) Touch(index);
}

void PageStore::Release(PageIndex index) {
  DropReference(index);
  Page& page = pages_[index];
  if (page.references > 0) return;
  if (page.use == Use::kCached) return DropIfBeginning(index);
  --used_;
  --loaded_[page.key.format];
  used_bytes_ -= page_bytes(page.key.format);
  SetState(index, PageState::kFree);
  pool_.Give(page.slot);
  page = {};
  free_.push_back(index);
}

void PageStore::Retire(PageIndex index, PageIndex own) {
  CHECK(index < pages_.size() && pages_[index].use == Use::kCached);
  DropReference(index);
  Page& page = pages_[index];
  if (page.references > 0) return;
  // One is this chain's; its own claim counts as another where something follows or it is partial.
  const bool is_own = page.ends == 2 && own != kNoPage && pages_[own].claims == 1 &&
                      (pages_[own].children > 0 || pages_[own].count < kArenaPageTokens) &&
                      IsBefore(index, own);
  if (page.ends - is_own <= 1 && page.claims == 0)
    Unload(index);
  else
    Skip(index);
}

void PageStore::Skip(PageIndex index) {
  pages_[index].skipped = true;
  UpdateEvictable(index);
}

void PageStore::Claim(PageIndex index) {
  CHECK(index < pages_.size() && pages_[index].use == Use::kCached);
  if (pages_[index].claims++ == 0) tree_.SetMarked(index, true);
}

void PageStore::Unclaim(PageIndex index) {
  CHECK(index < pages_.size() && pages_[index].claims > 0);
  if (--pages_[index].claims == 0) tree_.SetMarked(index, false);
  if (!IsNeeded(pages_[index]) && !is_loaded(index)) {
    Remove(index);
    return;
  }
  DropIfBeginning(index);
}

bool PageStore::IsNeeded(const Page& page) const {
  return page.references > 0 || page.claims > 0 || page.children > 0;
}

// Nobody looks for a partial page of which there is a longer one.
void PageStore::DropIfBeginning(PageIndex index) {
  const Page& page = pages_[index];
  if (page.count == kArenaPageTokens || IsNeeded(page) || !tree_.IsContinued(index)) return;
  if (is_loaded(index))
    Unload(index);
  else
    Remove(index);
}

// --- Dropping ----------------------------------------------------------------------------------

void PageStore::UpdateEvictable(PageIndex index) {
  Page& page = pages_[index];
  const bool should = page.use == Use::kCached && page.slot != kNoSlot && page.references == 0 &&
                      (page.loaded_children == 0 || page.skipped);
  if (should == page.evictable) return;
  page.evictable = should;
  if (should)
    evict_next_.emplace(page.last_use, index);
  else
    evict_next_.erase({page.last_use, index});
}

bool PageStore::Evict() {
  if (evict_next_.empty()) return false;
  ++evicted_;
  const PageIndex index = evict_next_.begin()->second;
  if (on_evict_) on_evict_(index);
  // It may have been found to be damaged, and be gone.
  const Page& page = pages_[index];
  if (page.use == Use::kCached && page.slot != kNoSlot && page.references == 0) Unload(index);
  return true;
}

// Of a cached page without references: its numbers are gone, and it as well where nobody needs it.
// The first page that stays, from this one on.
PageIndex PageStore::Unload(PageIndex index) {
  Page& page = pages_[index];
  CHECK(page.use == Use::kCached && page.slot != kNoSlot && page.references == 0);
  if (page.evictable) evict_next_.erase({page.last_use, index});
  page.evictable = false;
  page_of_slot_[page.slot] = kNoPage;
  const SlotIndex slot = std::exchange(page.slot, kNoSlot);
  --used_;
  --cached_;
  ++hollow_;
  --loaded_[page.key.format];
  used_bytes_ -= page_bytes(page.key.format);
  const PageIndex parent = page.parent;
  if (parent != kNoPage) {
    --pages_[parent].loaded_children;
    UpdateEvictable(parent);
  }
  if (IsNeeded(page))
    StoreSlot(index);
  else
    index = Remove(index);
  pool_.Give(slot);
  return index;
}

// Of a hollow page that is not needed, and hollow ones before it that were needed for it alone. The
// first page that stays.
PageIndex PageStore::Remove(PageIndex index) {
  while (index != kNoPage && pages_[index].use == Use::kCached && !is_loaded(index) &&
         !IsNeeded(pages_[index])) {
    const PageIndex parent = pages_[index].parent;
    tree_.Unlink(index);
    SetState(index, PageState::kFree);
    pages_[index] = {};
    free_.push_back(index);
    --hollow_;
    index = parent;
  }
  return index;
}

void PageStore::DropUnneeded(PageIndex index, const std::function<bool(PageIndex)>& keeps) {
  while (index != kNoPage && pages_[index].use == Use::kCached && !IsNeeded(pages_[index]) &&
         !(keeps && keeps(index))) {
    index = is_loaded(index) ? Unload(index) : Remove(index);
  }
}

uint64_t PageStore::DropUnneeded(const std::function<bool(PageIndex)>& keeps) {
  const uint64_t before = used_bytes_;
  for (PageIndex page = 0; page < pages_.size(); ++page) DropUnneeded(page, keeps);
  return before - used_bytes_;
}

// Not while it waits in evict_next_ under its old number.
void PageStore::Touch(PageIndex index) {
  Page& page = pages_[index];
  if (page.evictable) evict_next_.erase({page.last_use, index});
  page.evictable = false;
  page.last_use = ++clock_;
  UpdateEvictable(index);
  memory_->descriptor(index).last_use.store(clock_, std::memory_order_relaxed);
  memory_->Stored();
}

// --- Damage ------------------------------------------------------------------------------------

bool PageStore::Verify(PageIndex index) {
  Page& page = pages_[index];
  if (page.verified) return true;
  page.verified =
      Hash64(std::span(address(index), page_bytes(format(index)))) == page.data_checksum;
  if (page.verified) return true;
  DropDamaged(index);
  return false;
}

void PageStore::BeginCheck() {
  scrub_next_ = 0;
  scrub_end_ = static_cast<PageIndex>(pages_.size());
  checks_all_ = true;
}

void PageStore::Scrub(size_t bytes_max) {
  size_t bytes = 0;
  for (; needs_scrub(); ++scrub_next_) {
    const PageIndex index = scrub_next_;
    Page& page = pages_[index];
    if (page.use != Use::kCached || page.slot == kNoSlot || (page.verified && !checks_all_))
      continue;
    const size_t size = page_bytes(page.key.format);
    if (bytes > 0 && bytes + size > bytes_max) return;
    bytes += size;
    page.verified = Hash64(std::span(address(index), size)) == page.data_checksum;
    if (page.verified) continue;
    const std::vector<PageIndex> doomed = WithFollowers(index);
    if (std::ranges::any_of(doomed, [this](PageIndex each) { return pages_[each].references > 0; }))
      damaged_in_use_.push_back(index);
    else
      DropDamaged(index);
  }
}

std::vector<PageIndex> PageStore::WithFollowers(PageIndex page) const {
  std::vector<PageIndex> found{page};
  std::vector<std::pair<PageIndex, PageIndex>> children;  // parent, child
  for (PageIndex child = 0; child < pages_.size(); ++child)
    if (pages_[child].use == Use::kCached && pages_[child].parent != kNoPage)
      children.emplace_back(pages_[child].parent, child);
  std::sort(children.begin(), children.end());
  for (size_t i = 0; i < found.size(); ++i) {
    auto it = std::lower_bound(children.begin(), children.end(), std::pair(found[i], PageIndex{0}));
    for (; it != children.end() && it->first == found[i]; ++it) found.push_back(it->second);
  }
  return found;
}

// With all that follows it, which may have been computed from what was wrong already.
void PageStore::DropDamaged(PageIndex page) {
  if (pages_[page].use != Use::kCached) return;
  std::vector<PageIndex> doomed = WithFollowers(page);
  std::erase_if(doomed, [this](PageIndex each) {
    return pages_[each].slot == kNoSlot || pages_[each].references > 0;
  });
  if (doomed.empty()) return;
  damaged_ += doomed.size();
  NoteDamage(doomed);
  for (auto it = doomed.rbegin(); it != doomed.rend(); ++it) Unload(*it);
}

bool PageStore::IsBefore(PageIndex page, PageIndex after) const {
  while (after != kNoPage && pages_[after].position > pages_[page].position)
    after = pages_[after].parent;
  return after == page;
}

// The damaged page, then those that follow it.
void PageStore::NoteDamage(std::span<const PageIndex> dropped) {
  constexpr size_t kFollowersNamed = 8;
  const auto followers = dropped.subspan(1);
  std::string problem = fmt::format(
      "KV page {} (page {} of its chain) has changed in shared memory since it was computed: it is "
      "dropped{}, and computed again when it is needed; if this recurs, have the machine's memory "
      "tested",
      dropped.front(), pages_[dropped.front()].position,
      followers.empty()
          ? ""
          : fmt::format(
                " with {} that follow{} it ({}{})", followers.size(),
                followers.size() == 1 ? "s" : "",
                fmt::join(followers.first(std::min(followers.size(), kFollowersNamed)), ", "),
                followers.size() > kFollowersNamed ? ", …" : ""));
  if (problems_found_ < limits::kArenaProblemsShown) {
    LogWarning("{}", problem);
  } else if (problems_found_ == limits::kArenaProblemsShown) {
    LogWarning("more KV pages are damaged: they are dropped without a line for each");
  }
  ++problems_found_;
  problems_.push_back(std::move(problem));
  if (problems_.size() > limits::kArenaProblemsShown) problems_.pop_front();
}

// --- Stores to shared memory -------------------------------------------------------------------

// Once a descriptor says that a page is free or open, its other fields and its data may change, and
// they may not before. A process dies between two instructions, so program order is what counts;
// exchange keeps the compiler from moving other stores to either side.
void PageStore::SetState(PageIndex page, PageState state) {
  memory_->descriptor(page).state.exchange(static_cast<uint32_t>(state), std::memory_order_acq_rel);
  memory_->Stored();
}

// The same for the slot of a sealed page: what lies in the new one is there before, and the old one
// is somebody else's only afterwards.
void PageStore::StoreSlot(PageIndex page) {
  memory_->descriptor(page).slot.exchange(pages_[page].slot, std::memory_order_acq_rel);
  memory_->Stored();
}

void PageStore::Publish(PageIndex index) {
  const Page& page = pages_[index];
  // The checksum is of what should be there, whatever somebody else makes of it meanwhile.
  PageDescriptorShm wanted{};
  wanted.position = page.position;
  wanted.parent_page = page.parent;
  wanted.format = page.key.format;
  wanted.count = page.count;
  wanted.drawn = page.drawn;
  wanted.owner = page.key.owner;
  wanted.mask = page.key.mask;
  wanted.chain_hash = page.chain_hash;
  wanted.data_checksum = page.data_checksum;
  std::ranges::copy(page.tokens, wanted.tokens);
  wanted.checksum = DescriptorChecksum(wanted, index);
  PageDescriptorShm& descriptor = memory_->descriptor(index);
  const auto store = [this](auto& field, const auto& value) {
    field = value;
    memory_->Stored();
  };
  StoreSlot(index);
  store(descriptor.position, wanted.position);
  store(descriptor.parent_page, wanted.parent_page);
  store(descriptor.format, wanted.format);
  store(descriptor.count, wanted.count);
  store(descriptor.drawn, wanted.drawn);
  store(descriptor.owner, wanted.owner);
  store(descriptor.mask, wanted.mask);
  store(descriptor.chain_hash, wanted.chain_hash);
  store(descriptor.data_checksum, wanted.data_checksum);
  std::ranges::copy(page.tokens, descriptor.tokens);
  memory_->Stored();
  store(descriptor.checksum, wanted.checksum);
  SetState(index, PageState::kSealed);
}

}  // namespace perdure::shm
