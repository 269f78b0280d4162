// Whole files and folders of a backup: copied, hashed, brought to the disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace perdure::cli {

struct FileSum {
  uint64_t bytes = 0;
  uint64_t checksum = 0;  // Hash64
};
Result<FileSum> SumOf(const std::filesystem::path& file);

// To a new file (0600), which is on the disk afterwards; its name is not. Folders (0700) are made.
// Symbolic links and what is no file are refused.
Result<FileSum> CopyWhole(const std::filesystem::path& from, const std::filesystem::path& to);

// All files below a folder, relative to it, in order. The error names what is neither a file nor a
// folder.
Result<std::vector<std::filesystem::path>> FilesBelow(const std::filesystem::path& folder);

// Makes a folder (0700) and those above it that are missing.
Status MakeFolder(const std::filesystem::path& folder);
// A folder, all that is in it and below: the names are on the disk.
Status SyncFolders(const std::filesystem::path& folder);
Status SyncFolder(const std::filesystem::path& folder);

// There is nothing in it; false where there is no such folder.
bool IsEmptyFolder(const std::filesystem::path& folder);

// Without a word about what cannot be removed.
void RemoveAll(const std::filesystem::path& folder);

}  // namespace perdure::cli
