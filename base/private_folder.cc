#include "base/private_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/unique_fd.h"

namespace perdure {
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

Status CheckFolder(const fs::path& path, std::string_view what) {
  struct stat st {};
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

Status PrepareFolder(const fs::path& path, std::string_view what) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) RETURN_IF_ERROR(MakeFolders(path));
  return CheckFolder(path, what);
}

}  // namespace perdure
