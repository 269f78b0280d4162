// Files that are this user's alone, and the lock beside one: one process at a time uses it.
#pragma once

#include <filesystem>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::snapshot {

// Of a file that is there, a descriptor; it is ours alone afterwards. Empty: there is none.
Result<UniqueFd> OpenOurs(const std::filesystem::path& file, int flags);
// The same for reading, of whoever's file; nothing of it changes.
Result<UniqueFd> OpenToLook(const std::filesystem::path& file);

// FILE.lock, held while the descriptor is open; the kernel drops it when the process is dead,
// however that ends. Who has to wait for it says so there (IsLockWanted). overloaded: another
// process has it all the time.
Result<UniqueFd> LockFile(const std::filesystem::path& file, int wait_ms);
// Somebody waits for this lock, or has given up doing so, since it was taken.
bool IsLockWanted(int lock);

}  // namespace perdure::snapshot
