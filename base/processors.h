// How many processors this process may use: as its affinity says, or fewer where a control group
// has a quota.
#pragma once

#include <filesystem>

namespace perdure {

// At least 1. A quota that is no whole number of processors is rounded down: a thread more would be
// stopped for a part of every period, and with it the others, who wait for it. `root` replaces "/"
// in tests. Thread-safe.
int UsableProcessors(const std::filesystem::path& root = "/");

}  // namespace perdure
