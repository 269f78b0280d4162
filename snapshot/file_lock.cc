#include "snapshot/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kNotRegular = "is not a regular file; move it away";
constexpr int kTryEveryMs = 10;

tl::unexpected<Error> Wrong(const fs::path& file, std::string_view what) {
  return Err(ErrorCode::io_error, fmt::format("{} {}", file.string(), what));
}

Result<UniqueFd> OpenRegular(const fs::path& file, int flags, struct stat* st) {
  UniqueFd fd(open(file.c_str(), flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (!fd && errno == ENOENT) return fd;
  if (!fd && errno == ELOOP) return Wrong(file, "is a symbolic link; put a file in its place");
  if (!fd && errno == EISDIR) return Wrong(file, kNotRegular);
  if (!fd || fstat(fd.get(), st) != 0)
    return ErrFromErrno(fmt::format("cannot open {}", file.string()));
  if (!S_ISREG(st->st_mode)) return Wrong(file, kNotRegular);
  return fd;
}

}  // namespace

Result<UniqueFd> OpenOurs(const fs::path& file, int flags) {
  struct stat st {};
  ASSIGN_OR_RETURN(UniqueFd fd, OpenRegular(file, flags, &st));
  if (!fd) return fd;
  if (st.st_uid != geteuid())
    return Wrong(file,
                 fmt::format("belongs to user {}, not to this one ({})", st.st_uid, geteuid()));
  if ((st.st_mode & 07777) != 0600 && fchmod(fd.get(), 0600) != 0)
    return ErrFromErrno(fmt::format("cannot make {} private", file.string()));
  return fd;
}

Result<UniqueFd> OpenToLook(const fs::path& file) {
  struct stat st {};
  return OpenRegular(file, O_RDONLY, &st);
}

Result<UniqueFd> LockFile(const fs::path& file, int wait_ms) {
  const fs::path beside = file.string() + ".lock";
  ASSIGN_OR_RETURN(UniqueFd lock, OpenOurs(beside, O_RDWR | O_CREAT));
  struct flock wanted {};
  wanted.l_type = F_WRLCK;
  wanted.l_whence = SEEK_SET;
  const int64_t deadline_ms = MonotonicMs() + wait_ms;
  for (bool has_said = false; fcntl(lock.get(), F_OFD_SETLK, &wanted) != 0;) {
    if (errno != EAGAIN && errno != EACCES)
      return ErrFromErrno(fmt::format("cannot lock {}", beside.string()));
    if (MonotonicMs() >= deadline_ms)
      return Err(ErrorCode::overloaded,
                 fmt::format("{} is in use by another process; stop that one, or use another "
                             "folder",
                             file.string()));
    // A full disk has no room for it; waiting does without.
    if (!has_said) has_said = pwrite(lock.get(), "w", 1, 0) == 1;
    poll(nullptr, 0, kTryEveryMs);
  }
  if (IsLockWanted(lock.get()) && ftruncate(lock.get(), 0) != 0)
    return ErrFromErrno(fmt::format("cannot write {}", beside.string()));
  return lock;
}

bool IsLockWanted(int lock) {
  struct stat st {};
  return fstat(lock, &st) == 0 && st.st_size > 0;
}

}  // namespace perdure::snapshot
