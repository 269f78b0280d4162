// The two locks of an arena: of its writer, a worker, and of its owner, a supervisor. Each is of an
// open file description of its own, so that it ends with its holder, not with those who inherit the
// arena's descriptor.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::shm {

enum class ArenaLock { kWriter = 0, kOwner = 1 };  // the byte of the file that is locked

// Opens what `fd` has open anew and locks it, for as long as the result is open. overloaded:
// another description holds that lock. io_error: the system refuses.
Result<UniqueFd> LockArena(int fd, ArenaLock lock);

// Whether anybody holds one of the locks. `fd` may be open for reading only.
bool IsArenaLocked(int fd);

}  // namespace perdure::shm
