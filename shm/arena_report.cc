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
  uint32_t count = 0;
  uint64_t chain_hash = 0;
  PageKey key;
  uint64_t tokens_hash = 0;
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
    CountConversations();
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
    std::ranges::copy(header.page_bytes, report_.page_bytes.values.begin());
    std::ranges::copy(header.slots_per_slab, report_.slots_per_slab.values.begin());
    report_.pages_max = header.pages_max;
    report_.pages_wanted = header.pages_wanted;
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
    conversations_max_ = std::min<uint32_t>(header.conversations_max, limits::kConversationsMax);
    // Where a writer with so many conversations has put them.
    descriptors_offset_ = kArenaConversationsOffset +
                          (conversations_max_ * sizeof(ConversationShm) + 4095) / 4096 * 4096;
    if (header.descriptors_offset != descriptors_offset_)
      return AddProblem("its header is of no arena: the next worker will start it anew");
    granted_ = header.descriptors_granted.load();
    is_readable_ = true;
  }

  void CountConversations() {
    if (!is_readable_) return;
    std::vector<std::byte> records(conversations_max_ * sizeof(ConversationShm));
    records.resize(ReadAt(records.data(), records.size(), kArenaConversationsOffset));
    static_assert(offsetof(ConversationShm, state) == 0);
    for (size_t at = 0; at + sizeof(ConversationShm) <= records.size();
         at += sizeof(ConversationShm)) {
      uint32_t state = 0;
      std::memcpy(&state, &records[at], sizeof state);
      report_.conversations += state == 1;
    }
  }

  void ReadDescriptors() {
    if (!is_readable_ || report_.file_bytes < descriptors_offset_) return;
    const uint64_t places = (report_.file_bytes - descriptors_offset_) / sizeof(PageDescriptorShm);
    const auto pages_max = static_cast<uint32_t>(
        std::min({places, uint64_t{report_.pages_max}, uint64_t{limits::kArenaDescriptorsMax}}));
    if (pages_max < report_.pages_max)
      AddProblem(fmt::format("its header says {} pages, the file has descriptors of {}",
                             report_.pages_max, pages_max));
    // Those behind were never written.
    const uint32_t pages = std::min(pages_max, granted_);
    report_.free = pages_max - pages;
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

  uint64_t OffsetOf(size_t page) const {
    return descriptors_offset_ + page * sizeof(PageDescriptorShm);
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
        if (descriptor->slot.load() == kNoSlot)
          ++report_.hollow;
        else if (static_cast<uint32_t>(descriptor->format) < kPageFormats)
          ++report_.sealed[descriptor->format];
        note = {true,
                false,
                descriptor->position,
                descriptor->parent_page,
                std::min(descriptor->count, kArenaPageTokens),
                descriptor->chain_hash,
                {descriptor->format, descriptor->owner, descriptor->mask},
                TokensHash(std::span(descriptor->tokens)
                               .first(std::min(descriptor->count, kArenaPageTokens)))};
        return;
      default:
        AddProblem(fmt::format("page {}: there is no state {}", page, StateOf(*descriptor)));
    }
  }

  bool IsLinked(const PageNote& note) const {
    if (note.position == 0) return note.parent == kNoPage;
    if (note.parent >= notes_.size()) return false;
    const PageNote& parent = notes_[note.parent];
    return parent.is_sealed && parent.count == kArenaPageTokens &&
           uint64_t{parent.position} + 1 == note.position &&
           note.chain_hash == ChainHash(parent.chain_hash, note.key, note.tokens_hash);
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
        chains.push_back({note.chain_hash, page, note.position + 1,
                          note.position * kArenaPageTokens + note.count});
    }
    const size_t shown = std::min(chains.size(), kChainsShown);
    std::partial_sort(chains.begin(), chains.begin() + static_cast<std::ptrdiff_t>(shown),
                      chains.end(),
                      [](const auto& a, const auto& b) { return a.tokens > b.tokens; });
    chains.resize(shown);
  }

  const int fd_;
  bool is_readable_ = false;
  uint32_t conversations_max_ = 0;
  uint32_t granted_ = 0;  // descriptors
  uint64_t descriptors_offset_ = 0;
  ArenaReport report_;
  std::vector<PageNote> notes_;
};

}  // namespace

Result<ArenaReport> ReadArena(int fd) { return Reader(fd).Read(); }

}  // namespace perdure::shm
