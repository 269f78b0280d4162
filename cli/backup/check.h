// Whether a backup is whole: looked at from outside and from within, before anything is done with
// it.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "cli/backup/manifest.h"

namespace perdure::cli {

// Its manifest, if all that it names is there as it says and nothing else is, every checksum is
// right, and every file of conversations opens and reads whole. Changes nothing there.
Result<Manifest> CheckBackup(const std::filesystem::path& folder);

}  // namespace perdure::cli
