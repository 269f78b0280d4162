#include "base/prepared_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/hash.h"
#include "base/limits.h"

namespace perdure {
namespace {

static_assert(std::endian::native == std::endian::little, "prepared files are little-endian");

// The kernel maps whole huge pages only where file and address agree modulo their size.
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kPopulateBytes = size_t{64} << 20;
constexpr size_t kVerifyBytes = size_t{1} << 20;
// Sections are handed to the disk in portions of about this size, and waited for one portion later:
// dirty memory stays small and the last sync short.
constexpr uint64_t kWritebackBytes = uint64_t{64} << 20;

uint64_t HeaderHash(const PreparedHeaderDisk& header) {
  const auto bytes = std::as_bytes(std::span(&header, 1));
  return Hash64(bytes.first(offsetof(PreparedHeaderDisk, header_hash)));
}

tl::unexpected<Error> Unusable(std::string reason) {
  return Err(ErrorCode::io_error, std::move(reason));
}

bool Lock(int fd, int how) {
  int result;
  do {
    result = flock(fd, how);
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

// Whether `path` is (still) the file that is open.
bool IsAt(int fd, const std::filesystem::path& path) {
  struct stat here {
  }, there{};
  return fstat(fd, &here) == 0 && lstat(path.c_str(), &there) == 0 && here.st_ino == there.st_ino &&
         here.st_dev == there.st_dev;
}

}  // namespace

std::filesystem::path TemporaryOf(const std::filesystem::path& path) {
  return path.string() + ".tmp";
}

// --- Reading -----------------------------------------------------------------------------------

Result<PreparedFile> PreparedFile::Open(const std::filesystem::path& path, uint64_t fingerprint) {
  PreparedFile file;
  file.path_ = path;
  file.fd_.reset(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.fd_) {
    if (errno == ENOENT) return Err(ErrorCode::not_found, "there is none");
    return Unusable(fmt::format("it cannot be opened: {}", std::strerror(errno)));
  }
  struct stat st {};
  if (fstat(file.fd_.get(), &st) != 0 || !S_ISREG(st.st_mode))
    return Unusable("it is not a regular file");
  // Who holds it exclusively is about to let it go, having made it, or to remove it.
  if (!Lock(file.fd_.get(), LOCK_SH) || !IsAt(file.fd_.get(), path))
    return Err(ErrorCode::not_found, "it is being removed");
  file.size_ = static_cast<size_t>(st.st_size);
  RETURN_IF_ERROR(file.Map());
  RETURN_IF_ERROR(file.ReadTable(fingerprint));
  // The last use decides what is evicted. A file of somebody else's is used all the same.
  futimens(file.fd_.get(), nullptr);
  return file;
}

Status PreparedFile::Map() {
  if (size_ < kPreparedAlignment) return Unusable(fmt::format("its {} bytes are too few", size_));
  void* space = mmap(nullptr, size_ + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (space == MAP_FAILED) return ErrFromErrno("it cannot be mapped");
  std::byte* const begin = static_cast<std::byte*>(space);
  std::byte* const end = begin + size_ + kHugePage;
  std::byte* const aligned = begin + (-reinterpret_cast<uintptr_t>(begin) & (kHugePage - 1));
  void* mapped = mmap(aligned, size_, PROT_READ, MAP_SHARED | MAP_FIXED, fd_.get(), 0);
  if (mapped == MAP_FAILED) {
    const auto error = ErrFromErrno("it cannot be mapped");
    munmap(space, size_ + kHugePage);
    return error;
  }
  data_ = aligned;
  std::byte* const mapped_end = aligned + (size_ + 4095) / 4096 * 4096;
  if (aligned > begin) munmap(begin, static_cast<size_t>(aligned - begin));
  if (end > mapped_end) munmap(mapped_end, static_cast<size_t>(end - mapped_end));
  return {};
}

Status PreparedFile::ReadTable(uint64_t fingerprint) {
  PreparedHeaderDisk header;
  std::memcpy(&header, data_, sizeof header);
  if (std::memcmp(header.magic, kPreparedMagic, sizeof kPreparedMagic) != 0)
    return Unusable("it does not begin as a prepared file does");
  if (header.version != kPreparedVersion)
    return Unusable(
        fmt::format("it is of version {}, this build's is {}", header.version, kPreparedVersion));
  if (header.header_hash != HeaderHash(header)) return Unusable("its header is damaged");
  if (header.fingerprint != fingerprint)
    return Unusable("the files it was made from have changed, or this build packs otherwise");
  if (header.file_bytes != size_)
    return Unusable(fmt::format("it has {} bytes of {}", size_, header.file_bytes));
  if (header.table_offset > size_ || size_ - header.table_offset > limits::kPreparedTableBytesMax)
    return Unusable("its table is damaged");
  std::span<const std::byte> table(data_ + header.table_offset, data_ + size_);
  if (header.table_hash != Hash64(table)) return Unusable("its table is damaged");
  // What follows held when it was written: the checks guard against a writer's bug.
  for (uint32_t i = 0; i < header.sections; ++i) {
    PreparedEntryDisk entry;
    if (table.size() < sizeof entry) return Unusable("its table is too short");
    std::memcpy(&entry, table.data(), sizeof entry);
    table = table.subspan(sizeof entry);
    if (table.size() < entry.name_bytes || entry.offset % kPreparedAlignment != 0 ||
        entry.offset > header.table_offset || entry.bytes > header.table_offset - entry.offset)
      return Unusable("its table makes no sense");
    sections_.emplace(
        std::string(reinterpret_cast<const char*>(table.data()), entry.name_bytes),
        Section{{data_ + entry.offset, static_cast<size_t>(entry.bytes)}, entry.hash});
    table = table.subspan(entry.name_bytes);
  }
  return {};
}

PreparedFile::PreparedFile(PreparedFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::move(other.fd_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      sections_(std::move(other.sections_)) {}

PreparedFile& PreparedFile::operator=(PreparedFile&& other) noexcept {
  if (this == &other) return *this;
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(sections_, other.sections_);
  return *this;
}

PreparedFile::~PreparedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

std::optional<std::span<const std::byte>> PreparedFile::Find(std::string_view name) const {
  const auto it = sections_.find(name);
  if (it == sections_.end()) return std::nullopt;
  return it->second.bytes;
}

Status PreparedFile::Populate(const std::function<void(uint64_t)>& done) const {
#ifdef MADV_POPULATE_READ
  constexpr int kAdvice = MADV_POPULATE_READ;
#else
  constexpr int kAdvice = MADV_WILLNEED;
#endif
  for (size_t at = 0; at < size_; at += kPopulateBytes) {
    const size_t bytes = std::min(kPopulateBytes, size_ - at);
    // EINVAL: kernels before 5.14 do not know it, and bring pages when they are first touched.
    while (madvise(data_ + at, bytes, kAdvice) != 0 && errno != EINVAL) {
      if (errno == EINTR || errno == EAGAIN) continue;
      return ErrFromErrno("it cannot be read");
    }
    done(bytes);
  }
  return {};
}

Status PreparedFile::Verify(const std::atomic<bool>& stop) const {
  for (const auto& [name, section] : sections_) {
    Hasher64 hasher;
    for (size_t at = 0; at < section.bytes.size(); at += kVerifyBytes) {
      if (stop.load(std::memory_order_relaxed)) return {};
      hasher.Add(section.bytes.subspan(at, std::min(kVerifyBytes, section.bytes.size() - at)));
    }
    if (hasher.value() != section.hash)
      return Unusable(fmt::format("{}: the section {} is damaged", path_.string(), name));
  }
  return {};
}

void PreparedFile::Remove() const {
  if (IsAt(fd_.get(), path_)) unlink(path_.c_str());
}

// --- Writing -----------------------------------------------------------------------------------

Result<std::optional<PreparedWriter>> PreparedWriter::TryCreate(const std::filesystem::path& path,
                                                                uint64_t bytes_max) {
  using Found = std::optional<PreparedWriter>;
  const std::filesystem::path temporary = TemporaryOf(path);
  UniqueFd fd;
  do {
    fd.reset(open(temporary.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd) return ErrFromErrno(fmt::format("cannot write {}", temporary.string()));
    if (!Lock(fd.get(), LOCK_EX | LOCK_NB)) {
      if (errno == EWOULDBLOCK) return Found();
      return ErrFromErrno(fmt::format("cannot lock {}", temporary.string()));
    }
    // Another one may have renamed or removed it before the lock was ours.
  } while (!IsAt(fd.get(), temporary));
  // What a killed writer has left.
  if (ftruncate(fd.get(), 0) != 0)
    return ErrFromErrno(fmt::format("cannot write {}", temporary.string()));
  PreparedWriter writer;
  writer.path_ = path;
  writer.temporary_ = temporary;
  writer.fd_ = std::move(fd);
  writer.bytes_max_ = bytes_max;
  return Found(std::move(writer));
}

PreparedWriter::~PreparedWriter() {
  if (fd_ && !temporary_.empty()) unlink(temporary_.c_str());
}

Status PreparedWriter::Write(std::span<const std::byte> bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrFromErrno(fmt::format("cannot write {}", temporary_.string()));
    }
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

void PreparedWriter::StartWriteback(uint64_t offset, uint64_t bytes) {
  // Best effort: the sync of Commit is what counts.
  sync_file_range(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(bytes),
                  SYNC_FILE_RANGE_WRITE);
  if (written_back_bytes_ > 0)
    sync_file_range(
        fd_.get(), static_cast<off_t>(written_back_from_), static_cast<off_t>(written_back_bytes_),
        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
  written_back_from_ = offset;
  written_back_bytes_ = bytes;
}

Status PreparedWriter::Add(std::string name, std::span<const std::byte> bytes) {
  if (bytes.size() > bytes_max_ || end_ > bytes_max_ - bytes.size())
    return Unusable(
        fmt::format("{} would be larger than the {} MiB that prepared files may take "
                    "here; raise prepared_weights_max or free the disk",
                    path_.string(), bytes_max_ >> 20));
  const int full = bytes.empty() ? 0
                                 : posix_fallocate(fd_.get(), static_cast<off_t>(end_),
                                                   static_cast<off_t>(bytes.size()));
  if (full != 0) {
    errno = full;
    return ErrFromErrno(fmt::format("cannot write {}", temporary_.string()));
  }
  RETURN_IF_ERROR(Write(bytes, end_));
  PreparedEntryDisk entry{};
  entry.offset = end_;
  entry.bytes = bytes.size();
  entry.hash = Hash64(bytes);
  entry.name_bytes = static_cast<uint32_t>(name.size());
  table_.append(reinterpret_cast<const char*>(&entry), sizeof entry);
  table_ += name;
  ++sections_;
  end_ = (end_ + bytes.size() + kPreparedAlignment - 1) / kPreparedAlignment * kPreparedAlignment;
  const uint64_t since = written_back_from_ + written_back_bytes_;
  if (end_ - since >= kWritebackBytes) StartWriteback(since, end_ - since);
  return {};
}

Status PreparedWriter::Commit(uint64_t fingerprint) {
  const auto sync = [&]() -> Status {
    if (fsync(fd_.get()) == 0) return {};
    return ErrFromErrno(fmt::format("cannot sync {}", temporary_.string()));
  };
  const auto table = std::as_bytes(std::span(table_));
  if (table.size() > limits::kPreparedTableBytesMax) return Unusable("the table is too large");
  PreparedHeaderDisk header{};
  std::memcpy(header.magic, kPreparedMagic, sizeof kPreparedMagic);
  header.version = kPreparedVersion;
  header.sections = sections_;
  header.fingerprint = fingerprint;
  header.file_bytes = end_ + table.size();
  header.table_offset = end_;
  header.table_hash = Hash64(table);
  header.header_hash = HeaderHash(header);
  if (ftruncate(fd_.get(), static_cast<off_t>(header.file_bytes)) != 0)
    return ErrFromErrno(fmt::format("cannot write {}", temporary_.string()));
  RETURN_IF_ERROR(Write(table, end_));
  RETURN_IF_ERROR(sync());
  RETURN_IF_ERROR(Write(std::as_bytes(std::span(&header, 1)), 0));
  RETURN_IF_ERROR(sync());
  if (rename(temporary_.c_str(), path_.c_str()) != 0)
    return ErrFromErrno(fmt::format("cannot rename {}", temporary_.string()));
  temporary_.clear();
  fd_.reset();
  // The rename itself reaches the disk with the folder; without it the old state is good, too.
  const UniqueFd folder(open(path_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder) fsync(folder.get());
  return {};
}

}  // namespace perdure
