#include "supervisor/log_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace perdure::supervisor {

Status LogFile::Use(const std::filesystem::path& path) {
  if (path.empty()) {
    if (before_ && dup2(before_.get(), STDERR_FILENO) < 0)
      return ErrFromErrno("cannot log to standard error again");
    before_.reset();
    path_.clear();
    return {};
  }
  const UniqueFd file(
      open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600));
  if (!file)
    return ErrFromErrno(
        fmt::format("cannot write to the log file {} (server.log_file)", path.string()));
  if (!before_) {
    before_.reset(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    if (!before_) return ErrFromErrno("cannot keep standard error");
  }
  if (dup2(file.get(), STDERR_FILENO) < 0) return ErrFromErrno("cannot log to a file");
  path_ = path;
  return {};
}

}  // namespace perdure::supervisor
