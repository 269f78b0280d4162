// `perdure backup`: all that was said, copied while the service goes on. docs/backup.md.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/result.h"
#include "cli/backup/manifest.h"

namespace perdure::cli {

struct BackupOptions {
  std::string destination{};
  std::vector<std::string> models{};  // empty: all that have conversations, and what was saved
  bool kv = false;                    // pages of KV, too
  int wait_ms = limits::kBackupModelWaitMs;
};

struct BackupResult {
  Manifest manifest;
  std::vector<std::string> warnings;
};

// On the disk, and complete, when it returns; after an error there is nothing at the destination.
Result<BackupResult> MakeBackup(const std::filesystem::path& state_dir,
                                const std::filesystem::path& runtime_dir,
                                const BackupOptions& options);

// Prints; returns the exit code.
int RunBackup(const std::filesystem::path& state_dir, const std::filesystem::path& runtime_dir,
              const BackupOptions& options, bool json);

// For people: a line a model, and a sum.
std::string FormatManifest(const Manifest& manifest);

}  // namespace perdure::cli
