// Stands for shared memory, with somebody who looks at it after each store.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <functional>
#include <memory>

#include "shm/page_memory.h"
#include "tests/shm/chains.h"

namespace perdure::shm {

class WatchedMemory : public PageMemory {
 public:
  static std::unique_ptr<WatchedMemory> Make(const ArenaShape& shape, uint64_t root = 0) {
    return std::unique_ptr<WatchedMemory>(new WatchedMemory(*ArenaGeometry::For(shape), root));
  }
  ~WatchedMemory() override { munmap(base_, geometry_.file_bytes); }
  bool Grant(uint32_t) override { return true; }
  bool GrantDescriptors(uint32_t pages) override { return pages <= geometry_.pages_max; }
  uint32_t descriptors_granted() const override { return geometry_.pages_max; }
  void Return(uint32_t) override {}
  bool Adopt(const std::vector<bool>&) override { return true; }
  void Stored() override {
    if (stored) stored();
  }

  // What a successor would map.
  std::unique_ptr<WatchedMemory> Copy() const {
    std::unique_ptr<WatchedMemory> copy(new WatchedMemory(geometry_, root_));
    std::memcpy(copy->base_, base_,
                geometry_.descriptors_offset + geometry_.pages_max * sizeof(PageDescriptorShm));
    std::memcpy(copy->base_ + geometry_.slabs_offset, base_ + geometry_.slabs_offset,
                geometry_.file_bytes - geometry_.slabs_offset);
    return copy;
  }

  std::function<void()> stored;

 private:
  WatchedMemory(const ArenaGeometry& geometry, uint64_t root)
      : PageMemory(geometry, nullptr, root) {
    base_ = static_cast<std::byte*>(mmap(nullptr, geometry_.file_bytes, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
};

}  // namespace perdure::shm
