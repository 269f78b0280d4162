#include "shm/arena_report.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "base/limits.h"
#include "shm/hashes.h"

namespace perdure::shm {
namespace {

constexpr size_t kChainsShown = 5;
constexpr size_t kReadDescriptors = 4096;  // at once

// What of a descriptor the report needs.
struct PageNote {
  bool is_sealed = false;
  bool has_child = false;
  uint32_t position = 0;
  uint32_t parent = kNoPage;
  uint64_t chain_hash = 0;
  uint64_t parent_hash = 0;
};

uint32_t StateOf(const PageDescriptorShm& descriptor) {
  return descriptor.state.load(std::memory_order_relaxed);
}

bool IsSealed(const PageDescriptorShm& descriptor) {
  return StateOf(descriptor) == static_cast<uint32_t>(PageState::kSealed);
}

class Reader {
 public:
  explicit Reader(int fd) : fd_(fd) {}

  Result<ArenaReport> Read() {
    struct stat st {};
    if (fstat(fd_, &st) != 0) return ErrFromErrno("cannot read the arena");
    if (!S_ISREG(st.st_mode)) return Err(ErrorCode::io_error, "this is no arena");
    report_.file_bytes = static_cast<uint64_t>(st.st_size);
    report_.bytes_granted = static_cast<uint64_t>(st.st_blocks) * 512;
    ReadHeader();
    ReadDescriptors();
    LookAtChains();
    return std::move(report_);
  }

 private:
  void AddProblem(std::string problem) {
    if (++report_.problems_found <= limits::kArenaProblemsShown)
      report_.problems.push_back(std::move(problem));
  }

  // The bytes that there were; what is missing stays as it is.
  size_t ReadAt(void* to, size_t bytes, uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
      const ssize_t n = pread(fd_, static_cast<char*>(to) + done, bytes - done,
                              static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }

  void ReadHeader() {
    ArenaHeaderShm header{};
    // Who initializes it writes the checksum and the magic last.
    for (int i = 0; i < limits::kArenaReadTries; ++i) {
      ReadAt(&header, sizeof header, 0);
      if (header.magic.load() == kArenaMagic && header.checksum == HeaderChecksum(header)) break;
    }
    report_.version = header.version;
    report_.fingerprint = header.fingerprint;
    report_.numerics = header.numerics;
    report_.page_tokens = header.page_tokens;
    report_.page_bytes = header.page_bytes;
    report_.pages_max = header.pages_max;
    report_.pages_per_slab = header.pages_per_slab;
    report_.slab_bytes = header.slab_bytes;
    report_.epoch = header.epoch.load();
    report_.writer = header.writer.load();
    if (report_.file_bytes == 0) return AddProblem("it is empty: no worker has used it yet");
    if (header.magic.load() != kArenaMagic)
      return AddProblem("it does not begin as an arena does: a worker will start it anew");
    if (header.version != kArenaVersion || header.signature != kArenaSignature)
      return AddProblem(
          fmt::format("it was made by another build (version {}, this one's is {}): a worker of "
                      "this build will start it anew",
                      header.version, kArenaVersion));
    if (header.checksum != HeaderChecksum(header))
      AddProblem("its header is damaged: the next worker will start it anew");
    if (header.file_bytes != report_.file_bytes)
      AddProblem(fmt::format("it has {} bytes, its header says {}", report_.file_bytes,
                             header.file_bytes));
    is_readable_ = true;
  }

  void ReadDescriptors() {
    if (!is_readable_ || report_.file_bytes < kArenaDescriptorsOffset) return;
    const uint64_t places =
        (report_.file_bytes - kArenaDescriptorsOffset) / sizeof(PageDescriptorShm);
    const auto pages = static_cast<uint32_t>(
        std::min({places, uint64_t{report_.pages_max}, uint64_t{limits::kArenaPagesMax}}));
    if (pages < report_.pages_max)
      AddProblem(fmt::format("its header says {} pages, the file has descriptors of {}",
                             report_.pages_max, pages));
    const auto buffer = std::make_unique<PageDescriptorShm[]>(kReadDescriptors);
    notes_.reserve(pages);
    while (notes_.size() < pages) {
      const size_t wanted = std::min<size_t>(kReadDescriptors, pages - notes_.size());
      const size_t got =
          ReadAt(buffer.get(), wanted * sizeof(PageDescriptorShm), OffsetOf(notes_.size())) /
          sizeof(PageDescriptorShm);
      for (size_t i = 0; i < got; ++i) Note(&buffer[i]);
      if (got < wanted) {
        AddProblem("the file was cut short while it was read");
        break;
      }
    }
    report_.pages_read = static_cast<uint32_t>(notes_.size());
  }

  static uint64_t OffsetOf(size_t page) {
    return kArenaDescriptorsOffset + page * sizeof(PageDescriptorShm);
  }

  // Whether it is one that a writer has published. Copies again while it changes.
  bool IsWhole(PageDescriptorShm* descriptor, uint32_t page) {
    for (int i = 0; i < limits::kArenaReadTries; ++i) {
      if (!IsSealed(*descriptor) || descriptor->checksum == DescriptorChecksum(*descriptor, page))
        return true;
      ReadAt(descriptor, sizeof *descriptor, OffsetOf(page));
    }
    return false;
  }

  void Note(PageDescriptorShm* descriptor) {
    const auto page = static_cast<uint32_t>(notes_.size());
    PageNote& note = notes_.emplace_back();
    if (!IsWhole(descriptor, page)) {
      AddProblem(fmt::format("page {}: its descriptor is damaged", page));
      return;
    }
    switch (StateOf(*descriptor)) {
      case static_cast<uint32_t>(PageState::kFree):
        ++report_.free;
        return;
      case static_cast<uint32_t>(PageState::kOpen):
        ++report_.open;
        return;
      case static_cast<uint32_t>(PageState::kSealed):
        ++report_.sealed;
        note = {true,
                false,
                descriptor->position,
                descriptor->parent_page,
                descriptor->chain_hash,
                descriptor->parent_hash};
        return;
      default:
        AddProblem(fmt::format("page {}: there is no state {}", page, StateOf(*descriptor)));
    }
  }

  bool IsLinked(const PageNote& note) const {
    if (note.position == 0) return note.parent == kNoPage;
    if (note.parent >= notes_.size()) return false;
    const PageNote& parent = notes_[note.parent];
    return parent.is_sealed && parent.chain_hash == note.parent_hash &&
           uint64_t{parent.position} + 1 == note.position;
  }

  // Both may have been replaced between the copies of the one and of the other.
  bool IsStillSealed(uint32_t page) {
    PageDescriptorShm descriptor{};
    ReadAt(&descriptor, sizeof descriptor, OffsetOf(page));
    return IsSealed(descriptor) && descriptor.chain_hash == notes_[page].chain_hash;
  }

  void LookAtChains() {
    for (uint32_t page = 0; page < notes_.size(); ++page) {
      const PageNote& note = notes_[page];
      if (!note.is_sealed) continue;
      if (!IsLinked(note)) {
        if (IsStillSealed(page))
          AddProblem(fmt::format("page {}: the page before it in its chain is not there", page));
      } else if (note.position > 0) {
        notes_[note.parent].has_child = true;
      }
    }
    auto& chains = report_.longest_chains;
    for (uint32_t page = 0; page < notes_.size(); ++page) {
      const PageNote& note = notes_[page];
      // A position beyond all pages is damage that was told above.
      if (note.is_sealed && !note.has_child && note.position < notes_.size())
        chains.push_back({note.chain_hash, page, note.position + 1});
    }
    const size_t shown = std::min(chains.size(), kChainsShown);
    std::partial_sort(chains.begin(), chains.begin() + static_cast<std::ptrdiff_t>(shown),
                      chains.end(), [](const auto& a, const auto& b) { return a.pages > b.pages; });
    chains.resize(shown);
  }

  const int fd_;
  bool is_readable_ = false;
  ArenaReport report_;
  std::vector<PageNote> notes_;
};

}  // namespace

Result<ArenaReport> ReadArena(int fd) { return Reader(fd).Read(); }

}  // namespace perdure::shm
