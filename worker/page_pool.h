// The pages that hold KV: a fixed number of equal pieces of private memory, handed out by index.
//
// Memory is mapped in chunks when pages first need it, and touched by whoever writes it. Freed
// pages are reused last-in first-out: the hottest memory first, and no more of it than was ever
// needed at once. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace perdure::worker {

using PageIndex = uint32_t;

class PagePool {
 public:
  // Pages of `page_bytes` (rounded up to kPageAlignment), at most `pages_max` of them, mapped
  // `chunk_bytes` at a time (at least a page).
  PagePool(size_t page_bytes, PageIndex pages_max, size_t chunk_bytes);
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  static constexpr size_t kPageAlignment = 64;

  // Nothing when all pages are in use, or when the system has no memory to map. Contents are
  // arbitrary.
  std::optional<PageIndex> Allocate();
  void Free(PageIndex page);

  std::byte* address(PageIndex page) const;
  size_t page_bytes() const { return page_bytes_; }
  PageIndex pages_max() const { return pages_max_; }
  PageIndex used() const { return used_; }
  // Pages that Allocate would still give, as far as the budget goes.
  PageIndex available() const { return pages_max_ - used_; }
  size_t bytes_used() const { return size_t{used_} * page_bytes_; }
  size_t bytes_mapped() const { return chunks_.size() * size_t{pages_per_chunk_} * page_bytes_; }

 private:
  bool MapChunk();

  size_t page_bytes_;
  PageIndex pages_max_;
  PageIndex pages_per_chunk_;
  std::vector<std::byte*> chunks_;
  std::vector<PageIndex> free_;  // mapped and not in use; the back is the next one
  std::vector<bool> is_used_;    // by page: catches what is freed twice
  PageIndex used_ = 0;
};

}  // namespace perdure::worker
