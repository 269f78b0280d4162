#include "cli/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;

tl::unexpected<Error> Exists(const fs::path& path) {
  return Err(ErrorCode::io_error,
             fmt::format("{} exists: choose another name, or --force", path.string()));
}

}  // namespace

Result<OutputFile> OutputFile::Create(const fs::path& path, bool replace) {
  OutputFile file;
  file.replace_ = replace;
  if (path == "-") {
    file.fd_ = UniqueFd(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0));
    if (!file.fd_) return ErrFromErrno("cannot write to stdout");
    return file;
  }
  std::error_code error;
  if (fs::symlink_status(path, error).type() != fs::file_type::not_found) {
    if (!replace) return Exists(path);
    if (!fs::is_regular_file(path, error))
      return Err(ErrorCode::io_error,
                 fmt::format("{} is no regular file: choose another name", path.string()));
  }
  // In the same folder, so that it can be renamed; nobody else can have made it.
  std::string name = path.string() + ".XXXXXX";
  file.fd_ = UniqueFd(mkostemp(name.data(), O_CLOEXEC));
  if (!file.fd_) return ErrFromErrno(fmt::format("cannot make {}", path.string()));
  file.path_ = path;
  file.temporary_ = name;
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::exchange(other.path_, {})),
      temporary_(std::exchange(other.temporary_, {})),
      replace_(other.replace_),
      fd_(std::move(other.fd_)) {}

OutputFile::~OutputFile() {
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

Status OutputFile::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return ErrFromErrno(
          fmt::format("cannot write {}", path_.empty() ? "to stdout" : path_.string()));
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return {};
}

Status OutputFile::Finish() {
  if (path_.empty()) return {};
  if (fsync(fd_.get()) != 0) return ErrFromErrno(fmt::format("cannot sync {}", path_.string()));
  const unsigned flags = replace_ ? 0 : RENAME_NOREPLACE;
  int renamed = renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), flags);
  if (renamed != 0 && errno == EEXIST) return Exists(path_);
  // File systems over a network cannot do it at once.
  if (renamed != 0 && errno == EINVAL) {
    if (fs::exists(path_)) return Exists(path_);
    renamed = rename(temporary_.c_str(), path_.c_str());
  }
  if (renamed != 0) return ErrFromErrno(fmt::format("cannot make {}", path_.string()));
  temporary_.clear();
  path_.clear();
  return {};
}

}  // namespace perdure::cli
