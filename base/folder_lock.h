// The lock of a folder that one service at a time may use.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure {

// Takes the lock of a folder, for as long as the descriptor lives. The error names the process that
// holds it, and `option`, which gives a service another folder.
Result<UniqueFd> LockFolder(const std::filesystem::path& path, std::string_view option);

}  // namespace perdure
