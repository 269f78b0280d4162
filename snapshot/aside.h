// Files that cannot be used: out of the way, but not lost.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/result.h"

namespace perdure::snapshot {

// Renames FILE to FILE.damaged-UNIXTIME, which does not exist yet, and says so and why in the log;
// of several such the newest kSnapshotDamagedKept stay. For who has FILE's lock.
Status PutAside(const std::filesystem::path& file, std::string_view why);

// The names within a folder outlive a power cut.
Status SyncFolder(const std::filesystem::path& folder);

}  // namespace perdure::snapshot
