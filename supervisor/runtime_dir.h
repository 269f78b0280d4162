// The folders of one service: created, checked, and the runtime folder locked.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::supervisor {

// Creates `path` (0700, parents too) where it is missing; refuses one that is not ours or that
// others may write.
Status PrepareFolder(const std::filesystem::path& path, std::string_view what);

// Takes the lock of a runtime folder, for as long as the descriptor lives. The error names the
// process that holds it.
Result<UniqueFd> LockRuntimeDir(const std::filesystem::path& path);

}  // namespace perdure::supervisor
