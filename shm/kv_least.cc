#include "shm/kv_least.h"

#include <algorithm>

#include "base/limits.h"
#include "shm/page_memory.h"

namespace perdure::shm {
namespace {

// Descriptors of some 18,000 pages, if an arena has room for so many: they come without being asked
// for. More count once they are there.
constexpr uint64_t kDescriptorBytesMax = uint64_t{4} << 20;

// In whole pages of the system's memory.
uint64_t WholePages(uint64_t bytes) { return (bytes + 4095) / 4096 * 4096; }

uint64_t PagesOf(int context) {
  return (static_cast<uint64_t>(std::max(1, context)) + kArenaPageTokens - 1) / kArenaPageTokens;
}

}  // namespace

uint64_t LeastKvBytes(uint64_t slab_bytes, uint64_t page_bytes, int context) {
  if (slab_bytes == 0) return limits::kKvGrantBytes;
  const uint64_t slabs = (PagesOf(context) * page_bytes + slab_bytes - 1) / slab_bytes;
  const uint64_t most = std::max<uint64_t>(1, limits::kKvGrantBytes / slab_bytes);
  return std::clamp<uint64_t>(slabs, 1, most) * slab_bytes;
}

KvSize KvSizeOf(uint64_t page_bytes, int context, int sequences, int conversations) {
  ArenaShape shape;
  shape.page_bytes[PageFormat::kFloat16] = page_bytes;
  // Scales come on top: the more pages there may be, the more descriptors.
  shape.page_bytes[PageFormat::kBits8] = page_bytes / 2;
  shape.page_bytes[PageFormat::kBits4] = page_bytes / 4;
  shape.pages_max = static_cast<uint32_t>(std::min<uint64_t>(
      PagesOf(context) * static_cast<uint64_t>(std::max(1, sequences)), limits::kArenaPagesMax));
  shape.conversations_max = static_cast<uint32_t>(std::max(0, conversations)) + 1;
  const auto geometry = ArenaGeometry::For(shape);
  if (page_bytes == 0 || !geometry) return {0, limits::kKvGrantBytes, 0};
  return {geometry->slab_bytes, LeastKvBytes(geometry->slab_bytes, page_bytes, context),
          geometry->descriptors_offset +
              std::min(WholePages(geometry->pages_max * sizeof(PageDescriptorShm)),
                       kDescriptorBytesMax)};
}

}  // namespace perdure::shm
