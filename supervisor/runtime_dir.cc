#include "supervisor/runtime_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>

namespace perdure::supervisor {
namespace {

namespace fs = std::filesystem;

Status MakeFolders(const fs::path& path) {
  fs::path at;
  for (const fs::path& part : path) {
    at /= part;
    if (at == "/" || part.empty()) continue;
    if (mkdir(at.c_str(), 0700) != 0 && errno != EEXIST)
      return ErrFromErrno(fmt::format("cannot make the folder {}", at.string()));
  }
  return {};
}

}  // namespace

Status PrepareFolder(const fs::path& path, std::string_view what) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) RETURN_IF_ERROR(MakeFolders(path));
  // Looked at through a descriptor: a name may be given to something else meanwhile.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || fstat(fd.get(), &st) != 0)
    return ErrFromErrno(fmt::format("cannot use the {} {}", what, path.string()));
  if (st.st_uid != geteuid())
    return Err(ErrorCode::io_error,
               fmt::format("the {} {} belongs to user {}, not to user {} that runs this service: "
                           "name another one",
                           what, path.string(), st.st_uid, geteuid()));
  if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return Err(ErrorCode::io_error, fmt::format("others may write in the {} {}: run chmod 700 {}",
                                                what, path.string(), path.string()));
  return {};
}

Result<UniqueFd> LockRuntimeDir(const fs::path& path) {
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
                           "a --runtime-dir of its own",
                           path.string(), pid > 0 ? std::to_string(pid) : "unknown"));
  }
  const std::string pid = fmt::format("{}\n", getpid());
  if (ftruncate(fd.get(), 0) != 0 ||
      pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size()))
    return ErrFromErrno(fmt::format("cannot write {}", file.string()));
  return fd;
}

}  // namespace perdure::supervisor
