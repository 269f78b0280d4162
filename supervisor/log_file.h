// The log as a file: standard error becomes it, so that everything is in it that is written there,
// the last words of a crash too. Not thread-safe.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::supervisor {

class LogFile {
 public:
  // From now on `path` (made 0600, appended to); an empty one: what standard error was before. On
  // an error nothing changes.
  Status Use(const std::filesystem::path& path);
  // The file that has its name now: somebody has renamed the one before.
  Status Reopen() { return Use(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  UniqueFd before_;  // standard error as it was
};

}  // namespace perdure::supervisor
