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
  if (header.format != PageFormat::kFloat16) return "its pages have another format";
  if (header.pages_max < spec.pages_budget)
    return fmt::format("it has room for {} pages, {} are wanted", header.pages_max,
                       spec.pages_budget);
  const auto made = ArenaGeometry::For(spec.page_bytes, header.pages_max);
  if (!made || header.page_bytes != made->page_bytes ||
      header.pages_per_slab != made->pages_per_slab || header.slab_bytes != made->slab_bytes ||
      header.descriptors_offset != made->descriptors_offset ||
      header.slabs_offset != made->slabs_offset || header.file_bytes != made->file_bytes)
    return "its pages lie otherwise";
  if (file_bytes != made->file_bytes)
    return fmt::format("it has {} bytes, its header says {}", file_bytes, made->file_bytes);
  *geometry = *made;
  return {};
}

}  // namespace

Arena::Arena(UniqueFd fd, const ArenaGeometry& geometry, MappedFile mapping)
    : PageMemory(geometry, mapping.data()), fd_(std::move(fd)), mapping_(std::move(mapping)) {}

ArenaHeaderShm& Arena::header() const { return *reinterpret_cast<ArenaHeaderShm*>(base_); }

Result<std::unique_ptr<Arena>> Arena::Attach(int inherited, const ArenaSpec& spec) {
  ASSIGN_OR_RETURN(ArenaGeometry geometry, ArenaGeometry::For(spec.page_bytes, spec.pages_max));
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
  // Holes there are only where somebody else has made some.
  if (!Allocate(fd.get(), 0, geometry.slabs_offset))
    return Err(ErrorCode::out_of_memory,
               fmt::format("shared memory has no room for the {} KiB that describe an arena's "
                           "pages: {}",
                           geometry.slabs_offset >> 10, std::strerror(errno)));
  ASSIGN_OR_RETURN(MappedFile mapping, MappedFile::Map(fd.get(), geometry.file_bytes));
  // Gigabytes that are of no use in a core file, and nobody's business there.
  madvise(mapping.data(), geometry.file_bytes, MADV_DONTDUMP);

  std::unique_ptr<Arena> arena(new Arena(std::move(fd), geometry, std::move(mapping)));
  arena->reset_reason_ = std::move(reset_reason);
  if (!arena->reset_reason_.empty()) arena->Initialize(spec);
  ArenaHeaderShm& header = arena->header();
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
  header.format = PageFormat::kFloat16;
  header.page_tokens = kArenaPageTokens;
  header.page_bytes = geometry_.page_bytes;
  header.pages_max = geometry_.pages_max;
  header.pages_per_slab = geometry_.pages_per_slab;
  header.slab_bytes = geometry_.slab_bytes;
  header.descriptors_offset = geometry_.descriptors_offset;
  header.slabs_offset = geometry_.slabs_offset;
  header.file_bytes = geometry_.file_bytes;
  header.checksum = HeaderChecksum(header);
  header.magic.store(kArenaMagic, std::memory_order_release);
}

bool Arena::Grant(uint32_t slab) {
  const bool granted = Allocate(fd_.get(), geometry_.SlabOffset(slab), geometry_.slab_bytes);
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
  uint64_t bytes = geometry_.slabs_offset;
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
