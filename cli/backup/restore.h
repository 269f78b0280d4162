// `perdure restore`: a backup becomes the state that the next start finds. docs/backup.md.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/backup/manifest.h"

namespace perdure::cli {

struct RestoreOptions {
  std::string backup{};
  bool verify = false;  // only looks whether it is whole
  bool force = false;   // what is there already is moved aside
};

struct RestoreResult {
  Manifest manifest;
  std::filesystem::path aside;  // what was there before; empty: nothing was
};

// Until all of the backup is known to be whole nothing is changed. A crash at any point loses
// nothing: each model's conversations are the old ones or the restored ones, and the old ones are
// in `aside` afterwards.
Result<RestoreResult> Restore(const std::filesystem::path& state_dir,
                              const RestoreOptions& options);

// Prints; returns the exit code.
int RunRestore(const std::filesystem::path& state_dir, const RestoreOptions& options, bool json);

}  // namespace perdure::cli
