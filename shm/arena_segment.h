// The shared-memory object that holds a model's arena, as its owner (the supervisor) sees it: a
// name and a descriptor. What is in it is the business of shm/arena.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::shm {

// Stands in the names of shared memory: two services of one user have different state folders.
std::string InstanceName(const std::filesystem::path& state_dir);

// "perdure.<instance>.<model>", both percent-encoded, so that any name of a model is one name of
// an object; what would be too long ends in a hash instead. `instance` tells services of one user
// apart.
std::string ArenaName(std::string_view instance, std::string_view model);

// The names of this machine's arenas, sorted.
std::vector<std::string> ListArenas();

// An arena that a killed service has left: nobody holds one of its locks. Those of other users are
// not looked at.
struct OrphanedArena {
  std::string name;
  uint64_t bytes = 0;  // memory that it takes
};
std::vector<OrphanedArena> ListOrphanedArenas();
// Removes the name; the memory goes when its last user does.
void RemoveArena(const std::string& name);
// Of ListArenas, as a file; for messages.
std::string ArenaPath(std::string_view name);

// Holds the memory and the owner's lock: while the descriptor is open the arena lives, also when
// its name is gone (logind removes a user's objects at logout) or never was. Not thread-safe.
class ArenaSegment {
 public:
  // Opens the object of that name, or creates an empty one that only this user may open. Where
  // /dev/shm is missing or has no room for `bytes_max`, or another service holds the object, a
  // memory file without a name.
  // forbidden: an object of that name belongs to somebody else.
  static Result<ArenaSegment> Open(std::string_view instance, std::string_view model,
                                   uint64_t bytes_max);

  int fd() const { return fd_.get(); }               // may be handed to workers
  const std::string& name() const { return name_; }  // empty: a memory file
  // Why it has no name, for the log; empty where it has one.
  const std::string& unnamed_reason() const { return unnamed_reason_; }
  // RemoveArena, if it has a name.
  void Unlink();

 private:
  ArenaSegment() = default;

  UniqueFd fd_;
  UniqueFd owner_lock_;
  std::string name_;
  std::string unnamed_reason_;
};

// An arena of that name, to be read only. not_found: the message lists those that there are.
Result<UniqueFd> OpenArenaForReading(std::string_view name);

}  // namespace perdure::shm
