// What a store finds in the memory that a predecessor has left.
#include <algorithm>
#include <atomic>

#include "shm/hashes.h"
#include "shm/page_store.h"

namespace perdure::shm {

std::vector<PageIndex> PageStore::ReadDescriptors() {
  std::vector<PageIndex> found;
  for (PageIndex index = 0; index < memory_->descriptors_granted(); ++index) {
    const PageDescriptorShm& descriptor = memory_->descriptor(index);
    const uint32_t state = descriptor.state.load(std::memory_order_acquire);
    if (state == static_cast<uint32_t>(PageState::kFree)) continue;
    if (state != static_cast<uint32_t>(PageState::kSealed)) {
      SetState(index, PageState::kFree);
      continue;
    }
    const bool is_whole = descriptor.checksum == DescriptorChecksum(descriptor, index) &&
                          descriptor.count >= 1 && descriptor.count <= kArenaPageTokens &&
                          static_cast<uint32_t>(descriptor.format) < kPageFormats;
    if (!is_whole) {
      ++recovery_.dropped;
      SetState(index, PageState::kFree);
      continue;
    }
    if (pages_.size() <= index) pages_.resize(index + 1);
    Page& page = pages_[index];
    page.parent = descriptor.parent_page;
    page.position = descriptor.position;
    page.key = {descriptor.format, descriptor.owner, descriptor.mask};
    page.count = descriptor.count;
    page.drawn = descriptor.drawn;
    page.chain_hash = descriptor.chain_hash;
    page.data_checksum = descriptor.data_checksum;
    page.last_use = descriptor.last_use.load(std::memory_order_relaxed);
    page.slot = descriptor.slot.load(std::memory_order_relaxed);
    std::ranges::copy(descriptor.tokens, page.tokens.begin());
    found.push_back(index);
  }
  return found;
}

// A child stands one position behind its parent, so there can be no cycle.
bool PageStore::IsLinked(PageIndex index) const {
  const Page& page = pages_[index];
  if (page.position == 0) {
    if (page.parent != kNoPage) return false;
  } else {
    if (page.parent >= pages_.size()) return false;
    const Page& parent = pages_[page.parent];
    if (parent.use != Use::kCached || parent.position + 1 != page.position ||
        parent.count != kArenaPageTokens)
      return false;
  }
  return page.chain_hash == tree_.ChainHashAfter(page.parent, page.key, page.Tokens()) &&
         !tree_.Find(page.parent, page.key, page.Tokens());
}

void PageStore::Recover() {
  std::vector<PageIndex> found = ReadDescriptors();
  std::stable_sort(found.begin(), found.end(), [&](PageIndex a, PageIndex b) {
    return pages_[a].position < pages_[b].position;
  });
  const ArenaGeometry& geometry = memory_->geometry();
  std::vector<std::optional<PageFormat>> formats(geometry.slabs);  // of slabs
  std::vector<PageIndex> kept;
  std::vector<std::pair<SlotIndex, PageFormat>> slots;
  for (const PageIndex index : found) {
    Page& page = pages_[index];
    const SlotIndex slot = page.slot;
    bool is_right = IsLinked(index);
    if (is_right && slot != kNoSlot) {
      is_right = pool_.Exists(slot, page.key.format) && page_of_slot_[slot] == kNoPage;
      if (is_right) {
        auto& format = formats[geometry.SlabOf(slot)];
        if (!format) format = page.key.format;
        is_right = format == page.key.format;
      }
    }
    if (!is_right) {
      page = {};
      SetState(index, PageState::kFree);
      continue;
    }
    page.use = Use::kCached;
    tree_.Link(index);
    kept.push_back(index);
    if (slot == kNoSlot) continue;
    page_of_slot_[slot] = index;
    slots.emplace_back(slot, page.key.format);
  }
  if (!pool_.Adopt(slots)) {
    // Backwards: children before their parents.
    for (auto it = kept.rbegin(); it != kept.rend(); ++it) {
      tree_.Unlink(*it);
      SetState(*it, PageState::kFree);
    }
    std::fill(page_of_slot_.begin(), page_of_slot_.end(), kNoPage);
    kept.clear();
    pages_.clear();
  }
  recovery_.dropped += static_cast<PageIndex>(found.size() - kept.size());
  KeepOrder(std::move(kept));
  for (auto index = static_cast<PageIndex>(pages_.size()); index-- > 0;)
    if (pages_[index].use == Use::kFree) free_.push_back(index);
}

// The order of use survives, counted anew: the numbers may be anything.
void PageStore::KeepOrder(std::vector<PageIndex> kept) {
  for (const PageIndex index : kept) {
    const Page& page = pages_[index];
    if (page.slot == kNoSlot) {
      ++hollow_;
      ++recovery_.hollow;
      continue;
    }
    ++used_;
    ++cached_;
    ++recovery_.kept;
    ++loaded_[page.key.format];
    used_bytes_ += page_bytes(page.key.format);
    if (page.parent != kNoPage) ++pages_[page.parent].loaded_children;
    scrub_end_ = std::max(scrub_end_, index + 1);
  }
  std::stable_sort(kept.begin(), kept.end(), [&](PageIndex a, PageIndex b) {
    return pages_[a].last_use < pages_[b].last_use;
  });
  for (const PageIndex index : kept)
    if (is_loaded(index)) Touch(index);
}

void PageStore::FinishRecovery() {
  for (PageIndex page = 0; page < pages_.size(); ++page) Remove(page);
  bool is_beyond = false;
  while ((used_bytes_ > budget_bytes_ || !pool_.Fits(loaded_)) && Evict()) is_beyond = true;
  if (!is_beyond && pool_.slabs_granted() <= pool_.slabs_max()) return;
  Compact(UINT64_MAX);
  ReleaseUnused();
}

}  // namespace perdure::shm
