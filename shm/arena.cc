#include "shm/arena.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "shm/arena_lock.h"
#include "shm/hashes.h"

namespace perdure::shm {
namespace {

bool Allocate(int fd, uint64_t offset, uint64_t bytes) {
  int result;
  do {
    result = fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

Result<UniqueFd> LockForWriting(int inherited) {
  auto fd = LockArena(inherited, ArenaLock::kWriter);
  if (fd || fd.error().code != ErrorCode::overloaded) return fd;
  ArenaHeaderShm header;
  const bool is_known =
      pread(inherited, static_cast<void*>(&header), sizeof header, 0) == ssize_t{sizeof header} &&
      header.writer.load(std::memory_order_relaxed) != 0;
  return Err(ErrorCode::overloaded,
             fmt::format("another process{} writes to the arena: wait until it has ended",
                         is_known ? fmt::format(" ({})", header.writer.load()) : ""));
}

// Why an arena with this header and size cannot be used as `spec` wants; empty: it can, with
// `geometry`. Nothing of the header is used before it was compared.
std::string WhyUnusable(const ArenaHeaderShm& header, uint64_t file_bytes, const ArenaSpec& spec,
                        ArenaGeometry* geometry) {
  if (file_bytes == 0) return "it is new";
  if (header.magic.load(std::memory_order_acquire) != kArenaMagic)
    return "it does not begin as an arena does";
  if (header.version != kArenaVersion)
    return fmt::format("it is of version {}, this build's is {}", header.version, kArenaVersion);
  if (header.signature != kArenaSignature || header.header_bytes != sizeof(ArenaHeaderShm) ||
      header.page_tokens != kArenaPageTokens)
    return "it was made by a build with other structs";
  if (header.checksum != HeaderChecksum(header)) return "its header is damaged";
  if (header.fingerprint != spec.fingerprint) return "the model has changed";
  if (header.numerics != spec.numerics) return "this build or processor computes otherwise";
  if (header.pages_wanted < spec.pages_budget)
    return fmt::format("it has room for {} pages, {} are wanted", header.pages_wanted,
                       spec.pages_budget);
  if (header.conversations_max < spec.shape.conversations_max)
    return fmt::format("it has room for {} conversations, {} are wanted", header.conversations_max,
                       spec.shape.conversations_max);
  const auto made = ArenaGeometry::For({.page_bytes = spec.shape.page_bytes,
                                        .pages_max = header.pages_wanted,
                                        .conversations_max = header.conversations_max});
  if (!made || !std::ranges::equal(header.page_bytes, made->page_bytes.values) ||
      !std::ranges::equal(header.slots_per_slab, made->slots_per_slab.values) ||
      header.pages_max != made->pages_max || header.slabs != made->slabs ||
      header.slab_bytes != made->slab_bytes ||
      header.conversations_offset != made->conversations_offset ||
      header.descriptors_offset != made->descriptors_offset ||
      header.slabs_offset != made->slabs_offset || header.file_bytes != made->file_bytes)
    return "its pages lie otherwise";
  if (file_bytes != made->file_bytes)
    return fmt::format("it has {} bytes, its header says {}", file_bytes, made->file_bytes);
  *geometry = *made;
  return {};
}

// Descriptors are asked for in portions of about this many: 1 MiB.
constexpr uint32_t kDescriptorsAtOnce = 4096;

}  // namespace

Arena::Arena(UniqueFd fd, const ArenaGeometry& geometry, MappedFile mapping, uint64_t root)
    : PageMemory(geometry, mapping.data(), root),
      fd_(std::move(fd)),
      mapping_(std::move(mapping)) {}

ArenaHeaderShm& Arena::header() const { return *reinterpret_cast<ArenaHeaderShm*>(base_); }

Result<std::unique_ptr<Arena>> Arena::Attach(int inherited, const ArenaSpec& spec) {
  ASSIGN_OR_RETURN(ArenaGeometry geometry, ArenaGeometry::For(spec.shape));
  ASSIGN_OR_RETURN(UniqueFd fd, LockForWriting(inherited));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return ErrFromErrno("cannot use the arena");
  if (!S_ISREG(st.st_mode)) return Err(ErrorCode::io_error, "the arena is no memory file");

  ArenaHeaderShm copy{};
  if (pread(fd.get(), static_cast<void*>(&copy), sizeof copy, 0) < 0)
    return ErrFromErrno("cannot read the arena");
  std::string reset_reason = WhyUnusable(copy, static_cast<uint64_t>(st.st_size), spec, &geometry);
  // Cut to nothing first: all that was there reads as zeros afterwards.
  if (!reset_reason.empty() && (ftruncate(fd.get(), 0) != 0 ||
                                ftruncate(fd.get(), static_cast<off_t>(geometry.file_bytes)) != 0))
    return ErrFromErrno(fmt::format("cannot give the arena {} bytes", geometry.file_bytes));
  if (!Allocate(fd.get(), 0, geometry.descriptors_offset))
    return Err(ErrorCode::out_of_memory,
               fmt::format("shared memory has no room for the {} KiB that describe an arena: {}",
                           geometry.descriptors_offset >> 10, std::strerror(errno)));
  ASSIGN_OR_RETURN(MappedFile mapping, MappedFile::Map(fd.get(), geometry.file_bytes));
  // Gigabytes that are of no use in a core file, and nobody's business there.
  madvise(mapping.data(), geometry.file_bytes, MADV_DONTDUMP);

  std::unique_ptr<Arena> arena(new Arena(std::move(fd), geometry, std::move(mapping),
                                         RootHash(spec.fingerprint, spec.numerics)));
  arena->reset_reason_ = std::move(reset_reason);
  if (!arena->reset_reason_.empty()) arena->Initialize(spec);
  ArenaHeaderShm& header = arena->header();
  // Whatever stands there: what is there already is not asked for again.
  const uint32_t granted =
      std::min(header.descriptors_granted.load(std::memory_order_relaxed), geometry.pages_max);
  if (!arena->GrantDescriptors(granted))
    return Err(ErrorCode::out_of_memory, "shared memory has no room for an arena's descriptors");
  arena->epoch_ = header.epoch.load(std::memory_order_relaxed) + 1;
  header.writer.store(static_cast<uint32_t>(getpid()), std::memory_order_relaxed);
  header.epoch.store(arena->epoch_, std::memory_order_release);
  return arena;
}

// In memory that is all zeros: every page is free.
void Arena::Initialize(const ArenaSpec& spec) {
  ArenaHeaderShm& header = this->header();
  header.version = kArenaVersion;
  header.header_bytes = sizeof(ArenaHeaderShm);
  header.signature = kArenaSignature;
  header.fingerprint = spec.fingerprint;
  header.numerics = spec.numerics;
  std::ranges::copy(geometry_.page_bytes.values, header.page_bytes);
  std::ranges::copy(geometry_.slots_per_slab.values, header.slots_per_slab);
  header.page_tokens = kArenaPageTokens;
  header.pages_max = geometry_.pages_max;
  header.conversations_max = geometry_.conversations_max;
  header.slabs = geometry_.slabs;
  header.pages_wanted = spec.shape.pages_max;
  header.slab_bytes = geometry_.slab_bytes;
  header.conversations_offset = geometry_.conversations_offset;
  header.descriptors_offset = geometry_.descriptors_offset;
  header.slabs_offset = geometry_.slabs_offset;
  header.file_bytes = geometry_.file_bytes;
  header.checksum = HeaderChecksum(header);
  header.magic.store(kArenaMagic, std::memory_order_release);
}

bool Arena::GrantDescriptors(uint32_t pages) {
  if (pages <= descriptors_granted_) return true;
  if (pages > geometry_.pages_max) return false;
  const uint32_t wanted =
      std::min((pages + kDescriptorsAtOnce - 1) / kDescriptorsAtOnce * kDescriptorsAtOnce,
               geometry_.pages_max);
  // From the last one's memory page on, which may be begun.
  if (!Ask(geometry_.descriptors_offset + descriptors_granted_ * sizeof(PageDescriptorShm),
           (wanted - descriptors_granted_) * sizeof(PageDescriptorShm)))
    return false;
  descriptors_granted_ = wanted;
  header().descriptors_granted.store(wanted, std::memory_order_release);
  return true;
}

bool Arena::Grant(uint32_t slab) { return Ask(geometry_.SlabOffset(slab), geometry_.slab_bytes); }

bool Arena::Ask(uint64_t offset, uint64_t bytes) {
  const bool granted = Allocate(fd_.get(), offset, bytes);
  // Once, however many requests it hits.
  if (!granted && !is_full_)
    LogWarning(
        "no more shared memory for the KV cache ({}): free some in /dev/shm, or make it larger",
        std::strerror(errno));
  is_full_ = !granted;
  return granted;
}

void Arena::Return(uint32_t slab) {
  fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            static_cast<off_t>(geometry_.SlabOffset(slab)),
            static_cast<off_t>(geometry_.slab_bytes));
}

// A predecessor's slabs are whole: it asked for them before it used them, and gave them back only
// when they were empty. If the file has less than that, somebody else made holes: they are filled,
// as touching one could end this process.
bool Arena::Adopt(const std::vector<bool>& slabs) {
  uint64_t bytes =
      geometry_.descriptors_offset + uint64_t{descriptors_granted_} * sizeof(PageDescriptorShm);
  for (uint32_t slab = 0; slab < slabs.size(); ++slab) {
    if (slabs[slab])
      bytes += geometry_.slab_bytes;
    else
      Return(slab);
  }
  struct stat st {};
  if (fstat(fd_.get(), &st) != 0) return false;
  if (static_cast<uint64_t>(st.st_blocks) * 512 >= bytes) return true;
  for (uint32_t slab = 0; slab < slabs.size(); ++slab) {
    if (!slabs[slab] || Grant(slab)) continue;
    for (uint32_t kept = 0; kept < slabs.size(); ++kept) Return(kept);
    return false;
  }
  return true;
}

}  // namespace perdure::shm
