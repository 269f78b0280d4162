#include "base/folder_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>

namespace perdure {

namespace fs = std::filesystem;

Result<UniqueFd> LockFolder(const fs::path& path, std::string_view option) {
  const fs::path file = path / "lock";
  UniqueFd fd(open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return ErrFromErrno(fmt::format("cannot open {}", file.string()));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrFromErrno(fmt::format("cannot lock {}", file.string()));
    char text[32] = {};
    int pid = 0;
    const ssize_t n = pread(fd.get(), text, sizeof text - 1, 0);
    if (n > 0) std::from_chars(text, text + n, pid);
    return Err(ErrorCode::io_error,
               fmt::format("a service runs already in {} (process {}): stop it, or give this one "
                           "a {} of its own",
                           path.string(), pid > 0 ? std::to_string(pid) : "unknown", option));
  }
  const std::string pid = fmt::format("{}\n", getpid());
  if (ftruncate(fd.get(), 0) != 0 ||
      pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return ErrFromErrno(fmt::format("cannot write {}", file.string()));
  return fd;
}

}  // namespace perdure
