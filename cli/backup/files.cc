#include "cli/backup/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <span>
#include <system_error>

#include "base/hash.h"
#include "base/limits.h"
#include "base/unique_fd.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBufferBytes = size_t{1} << 20;

Result<UniqueFd> OpenToRead(const fs::path& file) {
  UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat st {};
  if (!fd || fstat(fd.get(), &st) != 0)
    return ErrFromErrno(fmt::format("cannot read {}", file.string()));
  if (!S_ISREG(st.st_mode))
    return Err(ErrorCode::io_error, fmt::format("{} is not a regular file", file.string()));
  return fd;
}

Status WriteAll(int fd, std::span<const std::byte> bytes, const fs::path& file) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrFromErrno(fmt::format("cannot write {}", file.string()));
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return {};
}

// Calls take(bytes) with all of the file.
template <class Take>
Result<FileSum> ReadThrough(const fs::path& file, Take take) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenToRead(file));
  const auto buffer = std::make_unique<std::byte[]>(kBufferBytes);
  Hasher64 hasher;
  FileSum sum;
  for (;;) {
    const ssize_t n = read(fd.get(), buffer.get(), kBufferBytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrFromErrno(fmt::format("cannot read {}", file.string()));
    if (n == 0) break;
    const std::span<const std::byte> bytes(buffer.get(), static_cast<size_t>(n));
    hasher.Add(bytes);
    sum.bytes += bytes.size();
    RETURN_IF_ERROR(take(bytes));
  }
  sum.checksum = hasher.value();
  return sum;
}

}  // namespace

Result<FileSum> SumOf(const fs::path& file) {
  return ReadThrough(file, [](std::span<const std::byte>) -> Status { return {}; });
}

Result<FileSum> CopyWhole(const fs::path& from, const fs::path& to) {
  RETURN_IF_ERROR(MakeFolder(to.parent_path()));
  const UniqueFd fd(open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return ErrFromErrno(fmt::format("cannot make {}", to.string()));
  ASSIGN_OR_RETURN(const FileSum sum, ReadThrough(from, [&](std::span<const std::byte> bytes) {
                     return WriteAll(fd.get(), bytes, to);
                   }));
  if (fsync(fd.get()) != 0) return ErrFromErrno(fmt::format("cannot sync {}", to.string()));
  return sum;
}

Result<std::vector<fs::path>> FilesBelow(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error);
  for (const fs::recursive_directory_iterator end; !error && it != end; it.increment(error)) {
    const fs::file_status status = it->symlink_status(error);
    if (error) break;
    if (status.type() == fs::file_type::directory) continue;
    if (status.type() != fs::file_type::regular)
      return Err(ErrorCode::io_error,
                 fmt::format("{} is neither a file nor a folder", it->path().string()));
    if (files.size() >= limits::kBackupFilesMax)
      return Err(ErrorCode::io_error, fmt::format("there are more than {} files in {}",
                                                  limits::kBackupFilesMax, folder.string()));
    files.push_back(it->path().lexically_relative(folder));
  }
  if (error)
    return Err(ErrorCode::io_error,
               fmt::format("cannot read the folder {}: {}", folder.string(), error.message()));
  std::ranges::sort(files);
  return files;
}

Status MakeFolder(const fs::path& folder) {
  if (mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) return {};
  if (errno != ENOENT || folder.parent_path() == folder || folder.parent_path().empty())
    return ErrFromErrno(fmt::format("cannot make the folder {}", folder.string()));
  RETURN_IF_ERROR(MakeFolder(folder.parent_path()));
  if (mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return ErrFromErrno(fmt::format("cannot make the folder {}", folder.string()));
}

Status SyncFolder(const fs::path& folder) {
  const UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || fsync(fd.get()) != 0)
    return ErrFromErrno(fmt::format("cannot sync {}", folder.string()));
  return {};
}

Status SyncFolders(const fs::path& folder) {
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error);
  for (const fs::recursive_directory_iterator end; !error && it != end; it.increment(error))
    if (it->is_directory() && !it->is_symlink()) RETURN_IF_ERROR(SyncFolder(it->path()));
  if (error)
    return Err(ErrorCode::io_error,
               fmt::format("cannot read the folder {}: {}", folder.string(), error.message()));
  return SyncFolder(folder);
}

bool IsEmptyFolder(const fs::path& folder) {
  std::error_code error;
  return fs::is_directory(folder, error) && fs::is_empty(folder, error) && !error;
}

void RemoveAll(const fs::path& folder) {
  std::error_code error;
  fs::remove_all(folder, error);
}

}  // namespace perdure::cli
