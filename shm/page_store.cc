#include "shm/page_store.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "shm/hashes.h"

namespace perdure::shm {

PageStore::PageStore(std::unique_ptr<PageMemory> memory, PageIndex pages_budget)
    : memory_(std::move(memory)),
      budget_(std::min(pages_budget, memory_->geometry().pages_max)),
      granted_(memory_->geometry().slabs()) {
  Recover();
  if (used_ <= budget_) return;
  while (used_ > budget_ && Evict()) {
  }
  ReleaseUnused();
}

// --- What a predecessor has left ---------------------------------------------------------------

std::vector<PageIndex> PageStore::ReadDescriptors() {
  std::vector<PageIndex> found;
  for (PageIndex index = 0; index < memory_->geometry().pages_max; ++index) {
    const PageDescriptorShm& descriptor = memory_->descriptor(index);
    const uint32_t state = descriptor.state.load(std::memory_order_acquire);
    if (state == static_cast<uint32_t>(PageState::kFree)) continue;
    if (state != static_cast<uint32_t>(PageState::kSealed)) {
      SetState(index, PageState::kFree);
      continue;
    }
    if (descriptor.checksum != DescriptorChecksum(descriptor, index)) {
      ++recovery_.dropped;
      SetState(index, PageState::kFree);
      continue;
    }
    if (pages_.size() <= index) pages_.resize(index + 1);
    Page& page = pages_[index];
    page.parent = descriptor.parent_page;
    page.position = descriptor.position;
    page.chain_hash = descriptor.chain_hash;
    page.parent_hash = descriptor.parent_hash;
    page.data_checksum = descriptor.data_checksum;
    page.last_use = descriptor.last_use.load(std::memory_order_relaxed);
    std::copy(std::begin(descriptor.tokens), std::end(descriptor.tokens), page.tokens.begin());
    found.push_back(index);
  }
  return found;
}

// A child stands one position behind its parent, so there can be no cycle.
bool PageStore::IsLinked(const Page& page) const {
  if (page.position == 0) return page.parent == kNoPage;
  if (page.parent >= pages_.size()) return false;
  const Page& parent = pages_[page.parent];
  return parent.use == Use::kCached && parent.position + 1 == page.position &&
         parent.chain_hash == page.parent_hash;
}

void PageStore::Recover() {
  std::vector<PageIndex> found = ReadDescriptors();
  std::stable_sort(found.begin(), found.end(), [&](PageIndex a, PageIndex b) {
    return pages_[a].position < pages_[b].position;
  });
  std::vector<PageIndex> kept;
  for (const PageIndex index : found) {
    const Page& page = pages_[index];
    if (IsLinked(page) && !Find(page.parent, page.parent_hash, page.chain_hash, page.tokens)) {
      Link(index);
      kept.push_back(index);
    } else {
      pages_[index] = {};
      SetState(index, PageState::kFree);
    }
  }

  const ArenaGeometry& geometry = memory_->geometry();
  std::vector<bool> slabs(geometry.slabs());
  for (const PageIndex index : kept) slabs[geometry.SlabOf(index)] = true;
  const bool adopted = memory_->Adopt(slabs);
  used_ = static_cast<PageIndex>(kept.size());
  if (!adopted) {
    // Backwards: children before their parents.
    for (auto it = kept.rbegin(); it != kept.rend(); ++it) Unlink(*it);
    kept.clear();
    free_.clear();
    pages_.clear();
  } else {
    for (uint32_t slab = geometry.slabs(); slab-- > 0;)
      if (slabs[slab]) AddGrantedSlab(slab);
  }
  recovery_.kept = static_cast<PageIndex>(kept.size());
  recovery_.dropped += static_cast<PageIndex>(found.size() - kept.size());

  // The order of use survives, counted anew: the numbers may be anything.
  std::stable_sort(kept.begin(), kept.end(), [&](PageIndex a, PageIndex b) {
    return pages_[a].last_use < pages_[b].last_use;
  });
  evict_next_.clear();
  for (const PageIndex index : kept) {
    Touch(index);
    scrub_end_ = std::max(scrub_end_, index + 1);
    if (IsLeaf(pages_[index])) evict_next_.emplace(pages_[index].last_use, index);
  }
}

// The lowest of its free pages will be handed out first.
void PageStore::AddGrantedSlab(uint32_t slab) {
  const ArenaGeometry& geometry = memory_->geometry();
  const PageIndex first = slab * geometry.pages_per_slab;
  const PageIndex end = std::min(first + geometry.pages_per_slab, geometry.pages_max);
  if (pages_.size() < end) pages_.resize(end);
  for (PageIndex page = end; page-- > first;)
    if (pages_[page].use == Use::kFree) free_.push_back(page);
  granted_[slab] = true;
  ++slabs_granted_;
}

// --- Pages -------------------------------------------------------------------------------------

std::optional<PageIndex> PageStore::Allocate() {
  const bool has_free = used_ < budget_ && (!free_.empty() || GrantSlab());
  if (!has_free && !Evict()) return std::nullopt;
  const PageIndex index = free_.back();
  free_.pop_back();
  SetState(index, PageState::kOpen);
  Page& page = pages_[index];
  page = {};
  page.use = Use::kOpen;
  page.verified = true;
  page.references = page.pins = 1;
  ++used_;
  ++referenced_;
  return index;
}

PageIndex PageStore::Seal(PageIndex index, PageIndex parent, uint64_t root,
                          std::span<const TokenId> tokens) {
  CHECK(index < pages_.size() && pages_[index].use == Use::kOpen);
  CHECK(tokens.size() == kArenaPageTokens);
  CHECK(parent == kNoPage || (parent < pages_.size() && pages_[parent].use == Use::kCached &&
                              pages_[parent].references > 0));
  const uint64_t parent_hash = parent == kNoPage ? root : pages_[parent].chain_hash;
  const uint64_t chain_hash = ChainHash(parent_hash, tokens);
  const auto same = Find(parent, parent_hash, chain_hash, tokens);
  if (same && Verify(*same)) {
    AddReference(*same);
    Touch(*same);
    Release(index);
    return *same;
  }
  Page& page = pages_[index];
  page.parent = parent;
  page.position = parent == kNoPage ? 0 : pages_[parent].position + 1;
  page.chain_hash = chain_hash;
  page.parent_hash = parent_hash;
  page.data_checksum = Hash64(std::span(address(index), page_bytes()));
  std::copy(tokens.begin(), tokens.end(), page.tokens.begin());
  Touch(index);
  Publish(index);
  Link(index);
  return index;
}

std::vector<PageIndex> PageStore::Acquire(uint64_t root, std::span<const TokenId> tokens,
                                          size_t tokens_max) {
  tokens = tokens.first(std::min(tokens.size(), tokens_max));
  std::vector<PageIndex> chain;
  PageIndex parent = kNoPage;
  uint64_t parent_hash = root;
  while (tokens.size() >= kArenaPageTokens) {
    const auto ids = tokens.first(kArenaPageTokens);
    const auto page = Find(parent, parent_hash, ChainHash(parent_hash, ids), ids);
    if (!page || !Verify(*page)) break;
    AddReference(*page);
    Touch(*page);
    chain.push_back(*page);
    parent = *page;
    parent_hash = pages_[parent].chain_hash;
    tokens = tokens.subspan(kArenaPageTokens);
  }
  return chain;
}

void PageStore::Release(PageIndex index) {
  CHECK(index < pages_.size() && pages_[index].references > 0);
  Page& page = pages_[index];
  if (--page.references > 0) {
    --page.pins;
    return;
  }
  --referenced_;
  if (page.use == Use::kOpen) {
    page.pins = 0;
    Free(index);
    return;
  }
  Touch(index);
  for (PageIndex at = index; at != kNoPage; at = pages_[at].parent) {
    if (--pages_[at].pins > 0) break;
    ++evictable_;
    if (IsLeaf(pages_[at])) evict_next_.emplace(pages_[at].last_use, at);
  }
}

void PageStore::Scrub(size_t bytes_max) {
  for (size_t bytes = 0; needs_scrub() && (bytes == 0 || bytes + page_bytes() <= bytes_max);
       ++scrub_next_) {
    if (pages_[scrub_next_].use != Use::kCached || pages_[scrub_next_].verified) continue;
    Verify(scrub_next_);
    bytes += page_bytes();
  }
}

void PageStore::DropUnused() {
  while (Evict()) {
  }
}

uint64_t PageStore::ReleaseUnused() {
  const ArenaGeometry& geometry = memory_->geometry();
  std::vector<bool> is_empty = granted_;
  for (PageIndex page = 0; page < pages_.size(); ++page)
    if (pages_[page].use != Use::kFree) is_empty[geometry.SlabOf(page)] = false;
  std::erase_if(free_, [&](PageIndex page) { return is_empty[geometry.SlabOf(page)]; });
  uint64_t bytes = 0;
  for (uint32_t slab = 0; slab < is_empty.size(); ++slab) {
    if (!is_empty[slab]) continue;
    memory_->Return(slab);
    granted_[slab] = false;
    --slabs_granted_;
    bytes += geometry.slab_bytes;
  }
  return bytes;
}

// --- The tree and the order of use -------------------------------------------------------------

std::optional<PageIndex> PageStore::Find(PageIndex parent, uint64_t parent_hash,
                                         uint64_t chain_hash,
                                         std::span<const TokenId> tokens) const {
  const auto [begin, end] = cache_.equal_range(chain_hash);
  for (auto it = begin; it != end; ++it) {
    const Page& page = pages_[it->second];
    if (page.parent == parent && page.parent_hash == parent_hash &&
        std::equal(tokens.begin(), tokens.end(), page.tokens.begin(), page.tokens.end()))
      return it->second;
  }
  return std::nullopt;
}

bool PageStore::Verify(PageIndex index) {
  Page& page = pages_[index];
  if (page.verified) return true;
  page.verified = Hash64(std::span(address(index), page_bytes())) == page.data_checksum;
  if (!page.verified) DropDamaged(index);
  return pages_[index].verified;
}

bool PageStore::GrantSlab() {
  const auto next = std::find(granted_.begin(), granted_.end(), false);
  if (next == granted_.end()) return false;
  const auto slab = static_cast<uint32_t>(next - granted_.begin());
  if (!memory_->Grant(slab)) return false;
  AddGrantedSlab(slab);
  return true;
}

bool PageStore::Evict() {
  if (evict_next_.empty()) return false;
  Unlink(evict_next_.begin()->second);
  return true;
}

bool PageStore::IsLeaf(const Page& page) const { return page.pins == 0 && page.children == 0; }

void PageStore::Link(PageIndex index) {
  Page& page = pages_[index];
  page.use = Use::kCached;
  cache_.emplace(page.chain_hash, index);
  ++cached_;
  if (page.pins == 0) ++evictable_;
  if (page.parent == kNoPage) return;
  // A leaf that gets a child is one no longer; its pins grow with a pinned child.
  Page& parent = pages_[page.parent];
  if (IsLeaf(parent)) evict_next_.erase({parent.last_use, page.parent});
  ++parent.children;
  if (page.pins > 0) ++parent.pins;
}

// Of a leaf.
void PageStore::Unlink(PageIndex index) {
  Page& page = pages_[index];
  CHECK(page.use == Use::kCached && IsLeaf(page));
  evict_next_.erase({page.last_use, index});
  const auto [begin, end] = cache_.equal_range(page.chain_hash);
  cache_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == index; }));
  --cached_;
  --evictable_;
  if (page.parent != kNoPage) {
    Page& parent = pages_[page.parent];
    --parent.children;
    if (IsLeaf(parent)) evict_next_.emplace(parent.last_use, page.parent);
  }
  Free(index);
}

// With all that follows it, which is of no use without it.
void PageStore::DropDamaged(PageIndex page) {
  std::unordered_multimap<PageIndex, PageIndex> children;
  for (PageIndex child = 0; child < pages_.size(); ++child)
    if (pages_[child].use == Use::kCached) children.emplace(pages_[child].parent, child);
  std::vector<PageIndex> doomed{page};
  for (size_t i = 0; i < doomed.size(); ++i) {
    const auto [begin, end] = children.equal_range(doomed[i]);
    for (auto it = begin; it != end; ++it) doomed.push_back(it->second);
  }
  damaged_ += doomed.size();
  LogDamage(doomed, pages_[page].position);
  for (auto it = doomed.rbegin(); it != doomed.rend(); ++it) Unlink(*it);
}

// `dropped`: the damaged page, which begins at `position`, then those that follow it.
void PageStore::LogDamage(std::span<const PageIndex> dropped, uint32_t position) {
  constexpr size_t kFollowersNamed = 8;
  if (damages_logged_ > limits::kArenaProblemsShown) return;
  if (damages_logged_++ == limits::kArenaProblemsShown)
    return LogWarning("more KV pages are damaged: they are dropped without a line for each");
  const auto followers = dropped.subspan(1);
  LogWarning(
      "KV page {} (page {} of its chain) has changed in shared memory since it was computed: it is "
      "dropped{}, and computed again when it is needed; if this recurs, have the machine's memory "
      "tested",
      dropped.front(), position,
      followers.empty()
          ? ""
          : fmt::format(
                " with {} that follow{} it ({}{})", followers.size(),
                followers.size() == 1 ? "s" : "",
                fmt::join(followers.first(std::min(followers.size(), kFollowersNamed)), ", "),
                followers.size() > kFollowersNamed ? ", …" : ""));
}

void PageStore::Free(PageIndex page) {
  SetState(page, PageState::kFree);
  pages_[page] = {};
  free_.push_back(page);
  --used_;
}

void PageStore::AddReference(PageIndex index) {
  Page& page = pages_[index];
  if (IsLeaf(page)) evict_next_.erase({page.last_use, index});
  ++page.pins;
  if (++page.references > 1) return;
  ++referenced_;
  // The first pin of a page is also one of its parent.
  for (PageIndex at = index; pages_[at].pins == 1;) {
    --evictable_;
    at = pages_[at].parent;
    if (at == kNoPage) break;
    ++pages_[at].pins;
  }
}

// Not of a page that waits in evict_next_.
void PageStore::Touch(PageIndex page) {
  pages_[page].last_use = ++clock_;
  memory_->descriptor(page).last_use.store(clock_, std::memory_order_relaxed);
  memory_->Stored();
}

// --- Stores to shared memory -------------------------------------------------------------------

// Once a descriptor says that a page is free or open, its other fields and its data may change, and
// they may not before. A process dies between two instructions, so program order is what counts;
// exchange keeps the compiler from moving other stores to either side.
void PageStore::SetState(PageIndex page, PageState state) {
  memory_->descriptor(page).state.exchange(static_cast<uint32_t>(state), std::memory_order_acq_rel);
  memory_->Stored();
}

void PageStore::Publish(PageIndex index) {
  const Page& page = pages_[index];
  // The checksum is of what should be there, whatever somebody else makes of it meanwhile.
  PageDescriptorShm wanted{};
  wanted.position = page.position;
  wanted.parent_page = page.parent;
  wanted.chain_hash = page.chain_hash;
  wanted.parent_hash = page.parent_hash;
  wanted.data_checksum = page.data_checksum;
  std::copy(page.tokens.begin(), page.tokens.end(), wanted.tokens);
  wanted.checksum = DescriptorChecksum(wanted, index);
  PageDescriptorShm& descriptor = memory_->descriptor(index);
  const auto store = [this](auto& field, const auto& value) {
    field = value;
    memory_->Stored();
  };
  store(descriptor.position, wanted.position);
  store(descriptor.parent_page, wanted.parent_page);
  store(descriptor.chain_hash, wanted.chain_hash);
  store(descriptor.parent_hash, wanted.parent_hash);
  store(descriptor.data_checksum, wanted.data_checksum);
  std::copy(page.tokens.begin(), page.tokens.end(), descriptor.tokens);
  memory_->Stored();
  store(descriptor.checksum, wanted.checksum);
  SetState(index, PageState::kSealed);
}

}  // namespace perdure::shm
