#include "worker/page_pool.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/check.h"

namespace perdure::worker {

PagePool::PagePool(size_t page_bytes, PageIndex pages_max, size_t chunk_bytes)
    : page_bytes_((page_bytes + kPageAlignment - 1) / kPageAlignment * kPageAlignment),
      pages_max_(pages_max) {
  CHECK(page_bytes > 0 && pages_max > 0);
  const size_t per_chunk = std::max<size_t>(1, chunk_bytes / page_bytes_);
  pages_per_chunk_ = static_cast<PageIndex>(std::min<size_t>(per_chunk, pages_max));
}

PagePool::~PagePool() {
  for (std::byte* chunk : chunks_) munmap(chunk, size_t{pages_per_chunk_} * page_bytes_);
}

bool PagePool::MapChunk() {
  const size_t first = chunks_.size() * size_t{pages_per_chunk_};
  if (first >= pages_max_) return false;
  void* memory = mmap(nullptr, size_t{pages_per_chunk_} * page_bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  chunks_.push_back(static_cast<std::byte*>(memory));
  const size_t end = std::min<size_t>(first + pages_per_chunk_, pages_max_);
  is_used_.resize(end, false);
  for (size_t page = end; page > first; --page) free_.push_back(static_cast<PageIndex>(page - 1));
  return true;
}

std::optional<PageIndex> PagePool::Allocate() {
  if (free_.empty() && !MapChunk()) return std::nullopt;
  const PageIndex page = free_.back();
  free_.pop_back();
  is_used_[page] = true;
  ++used_;
  return page;
}

void PagePool::Free(PageIndex page) {
  CHECK(page < is_used_.size() && is_used_[page]);
  is_used_[page] = false;
  --used_;
  free_.push_back(page);
}

std::byte* PagePool::address(PageIndex page) const {
  CHECK(page < is_used_.size());
  return chunks_[page / pages_per_chunk_] + size_t{page % pages_per_chunk_} * page_bytes_;
}

}  // namespace perdure::worker
