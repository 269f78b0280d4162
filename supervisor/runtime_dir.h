// The lock of a service's runtime folder.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::supervisor {

// Takes the lock of a runtime folder, for as long as the descriptor lives. The error names the
// process that holds it.
Result<UniqueFd> LockRuntimeDir(const std::filesystem::path& path);

}  // namespace perdure::supervisor
