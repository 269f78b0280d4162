#include "shm/arena_lock.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>

namespace perdure::shm {
namespace {

struct flock Bytes(off_t first, off_t count) {
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = first;
  range.l_len = count;
  return range;
}

}  // namespace

Result<UniqueFd> LockArena(int fd, ArenaLock lock) {
  UniqueFd own(open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDWR | O_CLOEXEC));
  if (!own) return ErrFromErrno("cannot open the arena for writing");
  struct flock range = Bytes(static_cast<off_t>(lock), 1);
  if (fcntl(own.get(), F_OFD_SETLK, &range) == 0) return own;
  if (errno != EAGAIN && errno != EACCES) return ErrFromErrno("cannot lock the arena");
  return Err(ErrorCode::overloaded, "another process holds the arena's lock");
}

bool IsArenaLocked(int fd) {
  struct flock range = Bytes(0, 2);
  return fcntl(fd, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK;
}

}  // namespace perdure::shm
