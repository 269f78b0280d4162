#include "shm/page_memory.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>

namespace perdure::shm {
namespace {

static_assert(sizeof(ArenaHeaderShm) <= kArenaConversationsOffset);

constexpr uint64_t kMemoryPage = 4096;

uint64_t RoundUp(uint64_t bytes, uint64_t alignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

class PrivateMemory : public PageMemory {
 public:
  PrivateMemory(const ArenaGeometry& geometry, std::byte* base, uint64_t root)
      : PageMemory(geometry, base, root) {}
  PrivateMemory(const PrivateMemory&) = delete;
  PrivateMemory& operator=(const PrivateMemory&) = delete;
  ~PrivateMemory() override { munmap(base_, geometry_.file_bytes); }

  bool Grant(uint32_t slab) override {
    return mprotect(Slab(slab), geometry_.slab_bytes, PROT_READ | PROT_WRITE) == 0;
  }
  bool GrantDescriptors(uint32_t pages) override { return pages <= geometry_.pages_max; }
  uint32_t descriptors_granted() const override { return geometry_.pages_max; }
  void Return(uint32_t slab) override {
    madvise(Slab(slab), geometry_.slab_bytes, MADV_DONTNEED);
    mprotect(Slab(slab), geometry_.slab_bytes, PROT_NONE);
  }
  bool Adopt(const std::vector<bool>&) override { return true; }  // there is no predecessor

 private:
  void* Slab(uint32_t slab) const { return base_ + geometry_.SlabOffset(slab); }
};

Status CheckShape(const ArenaShape& shape) {
  const auto fits = [](uint64_t bytes) { return bytes <= limits::kArenaPageBytesMax; };
  const auto& bytes = shape.page_bytes;
  if (bytes[PageFormat::kFloat16] != 0 &&
      std::all_of(bytes.values.begin(), bytes.values.end(), fits) && shape.pages_max != 0 &&
      shape.pages_max <= limits::kArenaPagesMax &&
      shape.conversations_max <= limits::kConversationsMax)
    return {};
  return Err(
      ErrorCode::unsupported,
      fmt::format("there can be no arena of {} pages of {} bytes and {} conversations: up "
                  "to {} pages of up to {} bytes and {} conversations are possible",
                  shape.pages_max, bytes[PageFormat::kFloat16], shape.conversations_max,
                  limits::kArenaPagesMax, limits::kArenaPageBytesMax, limits::kConversationsMax));
}

}  // namespace

Result<ArenaGeometry> ArenaGeometry::For(const ArenaShape& shape) {
  RETURN_IF_ERROR(CheckShape(shape));
  ArenaGeometry geometry;
  for (const PageFormat format : kAllFormats)
    geometry.page_bytes[format] = RoundUp(shape.page_bytes[format], kArenaPageAlignment);
  const uint64_t page_bytes = geometry.page_bytes[PageFormat::kFloat16];
  const uint64_t slab_bytes = std::min<uint64_t>(
      limits::kArenaSlabBytes, page_bytes * shape.pages_max / limits::kArenaSlabsMin);
  const uint64_t used_bytes = std::max(std::max<uint64_t>(1, slab_bytes / page_bytes) * page_bytes,
                                       std::ranges::max(geometry.page_bytes.values));
  geometry.slab_bytes =
      RoundUp(used_bytes,
              used_bytes >= kArenaSlabAlignment ? kArenaSlabAlignment : kArenaSmallSlabAlignment);
  for (const PageFormat format : kAllFormats) {
    if (geometry.page_bytes[format] == 0) continue;
    const uint64_t slots = used_bytes / geometry.page_bytes[format];
    geometry.slots_per_slab[format] = static_cast<uint32_t>(slots);
    geometry.slot_stride = std::max(geometry.slot_stride, geometry.slots_per_slab[format]);
  }
  geometry.slabs = geometry.SlabsFor(PageFormat::kFloat16, shape.pages_max);
  geometry.pages_max = static_cast<uint32_t>(std::min<uint64_t>(
      uint64_t{geometry.slabs} * geometry.slot_stride * limits::kArenaDescriptorsPerSlot,
      limits::kArenaDescriptorsMax));
  geometry.conversations_max = shape.conversations_max;
  geometry.conversations_offset = kArenaConversationsOffset;
  geometry.descriptors_offset =
      RoundUp(geometry.conversations_offset +
                  uint64_t{geometry.conversations_max} * sizeof(ConversationShm),
              kMemoryPage);
  geometry.slabs_offset = RoundUp(
      geometry.descriptors_offset + uint64_t{geometry.pages_max} * sizeof(PageDescriptorShm),
      kArenaSlabAlignment);
  geometry.file_bytes = geometry.SlabOffset(geometry.slabs);
  return geometry;
}

PageDescriptorShm& PageMemory::descriptor(PageIndex page) const {
  return reinterpret_cast<PageDescriptorShm*>(base_ + geometry_.descriptors_offset)[page];
}

ConversationShm& PageMemory::conversation(uint32_t index) const {
  return reinterpret_cast<ConversationShm*>(base_ + geometry_.conversations_offset)[index];
}

Result<std::unique_ptr<PageMemory>> MakePrivateMemory(const ArenaGeometry& geometry,
                                                      uint64_t root) {
  void* base = mmap(nullptr, geometry.file_bytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return ErrFromErrno("cannot get addresses for KV pages");
  auto memory = std::make_unique<PrivateMemory>(geometry, static_cast<std::byte*>(base), root);
  if (mprotect(base, geometry.slabs_offset, PROT_READ | PROT_WRITE) != 0)
    return Err(ErrorCode::out_of_memory, "there is no memory for descriptors of KV pages");
  return memory;
}

}  // namespace perdure::shm
