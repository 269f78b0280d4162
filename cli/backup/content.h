// What is in the files of a backup: all of it is read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/backup/manifest.h"

namespace perdure::cli {

struct BackupContent {
  uint64_t conversations = 0, turns = 0, pages = 0;
  std::vector<std::string> problems;  // what a start of the service would drop, in words
};

// Of kTurns or kKv; changes nothing. Pages are compared with their checksums. The error says why
// it cannot be read at all.
Result<BackupContent> ReadContent(const std::filesystem::path& file, BackupKind kind,
                                  const std::string& model);

// Drops what ReadContent has found to be wrong, for good.
Status RepairContent(const std::filesystem::path& file, BackupKind kind, const std::string& model);

}  // namespace perdure::cli
