// Folders that one user's service alone may write.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/result.h"

namespace perdure {

// Refuses a folder that is not ours or that others may write; `what` names it in the error.
Status CheckFolder(const std::filesystem::path& path, std::string_view what);

// Creates `path` (0700, parents too) where it is missing, then checks it.
Status PrepareFolder(const std::filesystem::path& path, std::string_view what);

}  // namespace perdure
