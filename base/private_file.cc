#include "base/private_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace perdure {

tl::unexpected<Error> FileError(std::string_view what) {
  const int error = errno;
  const bool is_full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return Err(is_full ? ErrorCode::insufficient_storage : ErrorCode::io_error,
             fmt::format("{}: {}", what, std::strerror(error)));
}

Result<UniqueFd> OpenUnlinkedFile(const std::filesystem::path& folder) {
  UniqueFd fd(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd) return fd;
  if (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT) {
    // Not every file system has such files.
    std::string name = (folder / ".unnamed-XXXXXX").string();
    fd = UniqueFd(mkostemp(name.data(), O_CLOEXEC));
    if (fd) {
      if (unlink(name.c_str()) != 0) return FileError("cannot remove " + name);
      return fd;
    }
  }
  return FileError(fmt::format("cannot make a file in {}", folder.string()));
}

Result<UniqueFd> CreateFile(const std::filesystem::path& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return FileError(fmt::format("cannot create {}", path.string()));
  return fd;
}

Status WriteAll(int fd, std::string_view bytes, std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return FileError(fmt::format("cannot write {}", what));
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Status WriteAt(int fd, uint64_t offset, std::string_view bytes, std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t n = pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return FileError(fmt::format("cannot write {}", what));
    }
    bytes.remove_prefix(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

Result<size_t> ReadAt(int fd, uint64_t offset, std::span<std::byte> to, std::string_view what) {
  size_t got = 0;
  while (got < to.size()) {
    const ssize_t n = pread(fd, to.data() + got, to.size() - got, static_cast<off_t>(offset + got));
    if (n < 0) {
      if (errno == EINTR) continue;
      return FileError(fmt::format("cannot read {}", what));
    }
    if (n == 0) break;
    got += static_cast<size_t>(n);
  }
  return got;
}

Result<uint64_t> BytesOfFile(int fd, std::string_view what) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return FileError(fmt::format("cannot look at {}", what));
  return static_cast<uint64_t>(st.st_size);
}

}  // namespace perdure
