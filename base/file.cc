#include "base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/unique_fd.h"

namespace perdure {
namespace {

struct OpenFile {
  UniqueFd fd;
  size_t size;
};

Result<OpenFile> OpenRegular(const std::filesystem::path& path) {
  // O_NONBLOCK: a FIFO in a model's folder must not hang the process.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return ErrFromErrno(fmt::format("cannot open {}", path.string()));
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return ErrFromErrno(fmt::format("cannot stat {}", path.string()));
  if (!S_ISREG(st.st_mode))
    return Err(ErrorCode::io_error, fmt::format("{} is not a regular file", path.string()));
  return OpenFile{std::move(fd), static_cast<size_t>(st.st_size)};
}

}  // namespace

Result<std::string> ReadFile(const std::filesystem::path& path, size_t max_bytes) {
  ASSIGN_OR_RETURN(OpenFile file, OpenRegular(path));
  std::string text;
  // Files under /proc say size 0: read to the end, whatever the size says.
  char buffer[65536];
  for (;;) {
    const ssize_t n = read(file.fd.get(), buffer, sizeof buffer);
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrFromErrno(fmt::format("cannot read {}", path.string()));
    }
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
    if (text.size() > max_bytes)
      return Err(ErrorCode::io_error,
                 fmt::format("{} is larger than the {} bytes allowed", path.string(), max_bytes));
  }
}

Status WriteFileAtomically(const std::filesystem::path& path, std::string_view text, int mode) {
  const std::string temporary = path.string() + ".tmp";
  UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!fd) return ErrFromErrno(fmt::format("cannot write {}", temporary));
  while (!text.empty()) {
    const ssize_t n = write(fd.get(), text.data(), text.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrFromErrno(fmt::format("cannot write {}", temporary));
    }
    text.remove_prefix(static_cast<size_t>(n));
  }
  if (fsync(fd.get()) != 0) return ErrFromErrno(fmt::format("cannot sync {}", temporary));
  if (rename(temporary.c_str(), path.c_str()) != 0)
    return ErrFromErrno(fmt::format("cannot rename {} to {}", temporary, path.string()));
  return {};
}

Result<MappedFile> MappedFile::Open(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(OpenFile file, OpenRegular(path));
  MappedFile mapped;
  mapped.path_ = path;
  mapped.size_ = file.size;
  if (file.size == 0) return mapped;
  void* address = mmap(nullptr, file.size, PROT_READ, MAP_PRIVATE, file.fd.get(), 0);
  if (address == MAP_FAILED) return ErrFromErrno(fmt::format("cannot map {}", path.string()));
  mapped.data_ = static_cast<const std::byte*>(address);
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(path_, other.path_);
  }
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::DropPages(std::span<const std::byte> part) const {
  constexpr uintptr_t kPage = 4096;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(part.data()) + kPage - 1) & ~(kPage - 1);
  const uintptr_t end = reinterpret_cast<uintptr_t>(part.data() + part.size()) & ~(kPage - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace perdure
