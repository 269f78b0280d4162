#include "shm/page_memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

namespace perdure::shm {
namespace {

static_assert(sizeof(ArenaHeaderShm) <= kArenaDescriptorsOffset);

uint64_t RoundUp(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

class PrivateMemory : public PageMemory {
 public:
  PrivateMemory(const ArenaGeometry& geometry, std::byte* base) : PageMemory(geometry, base) {}
  PrivateMemory(const PrivateMemory&) = delete;
  PrivateMemory& operator=(const PrivateMemory&) = delete;
  ~PrivateMemory() override { munmap(base_, geometry_.file_bytes); }

  bool Grant(uint32_t slab) override {
    return mprotect(Slab(slab), geometry_.slab_bytes, PROT_READ | PROT_WRITE) == 0;
  }
  void Return(uint32_t slab) override {
    madvise(Slab(slab), geometry_.slab_bytes, MADV_DONTNEED);
    mprotect(Slab(slab), geometry_.slab_bytes, PROT_NONE);
  }
  bool Adopt(const std::vector<bool>&) override { return true; }  // there is no predecessor

 private:
  void* Slab(uint32_t slab) const { return base_ + geometry_.SlabOffset(slab); }
};

}  // namespace

Result<ArenaGeometry> ArenaGeometry::For(uint64_t page_bytes, uint32_t pages_max) {
  if (page_bytes == 0 || page_bytes > limits::kArenaPageBytesMax || pages_max == 0 ||
      pages_max > limits::kArenaPagesMax)
    return Err(
        ErrorCode::unsupported,
        fmt::format("there can be no arena of {} pages of {} bytes: up to {} pages of up "
                    "to {} bytes are possible",
                    pages_max, page_bytes, limits::kArenaPagesMax, limits::kArenaPageBytesMax));
  ArenaGeometry geometry;
  geometry.page_bytes = RoundUp(page_bytes, kArenaPageAlignment);
  geometry.pages_max = pages_max;
  const uint64_t per_slab =
      std::clamp<uint64_t>(limits::kArenaSlabBytes / geometry.page_bytes, 1, pages_max);
  geometry.pages_per_slab = static_cast<uint32_t>(per_slab);
  geometry.slab_bytes = RoundUp(per_slab * geometry.page_bytes, kArenaSlabAlignment);
  geometry.descriptors_offset = kArenaDescriptorsOffset;
  geometry.slabs_offset =
      RoundUp(kArenaDescriptorsOffset + uint64_t{pages_max} * sizeof(PageDescriptorShm),
              kArenaSlabAlignment);
  geometry.file_bytes = geometry.SlabOffset(geometry.slabs());
  return geometry;
}

PageDescriptorShm& PageMemory::descriptor(PageIndex page) const {
  return reinterpret_cast<PageDescriptorShm*>(base_ + geometry_.descriptors_offset)[page];
}

Result<std::unique_ptr<PageMemory>> MakePrivateMemory(const ArenaGeometry& geometry) {
  void* base = mmap(nullptr, geometry.file_bytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return ErrFromErrno("cannot get addresses for KV pages");
  auto memory = std::make_unique<PrivateMemory>(geometry, static_cast<std::byte*>(base));
  if (mprotect(base, geometry.slabs_offset, PROT_READ | PROT_WRITE) != 0)
    return Err(ErrorCode::out_of_memory, "there is no memory for descriptors of KV pages");
  return memory;
}

}  // namespace perdure::shm
