#include "shm/arena_segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/shared_memory_object.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/hash.h"
#include "base/percent_encode.h"
#include "shm/arena_lock.h"

namespace perdure::shm {
namespace {

namespace bi = boost::interprocess;

constexpr const char* kFolder = "/dev/shm";  // where Linux keeps POSIX shared-memory objects
constexpr std::string_view kPrefix = "perdure.";
constexpr size_t kNameBytesMax = 240;  // file names have 255

// Boost's objects hand out their descriptor only while they live.
UniqueFd DescriptorOf(const bi::shared_memory_object& object) {
  return UniqueFd(fcntl(object.get_mapping_handle().handle, F_DUPFD_CLOEXEC, 0));
}

// Why an arena of so many bytes cannot be in /dev/shm; empty: it can.
std::string WhyNoRoom(const std::string& name, uint64_t bytes_max) {
  struct statvfs fs {};
  if (statvfs(kFolder, &fs) != 0)
    return fmt::format("{} cannot be used: {}", kFolder, std::strerror(errno));
  uint64_t room = uint64_t{fs.f_bavail} * fs.f_frsize;
  struct stat st {};
  if (stat(ArenaPath(name).c_str(), &st) == 0) room += static_cast<uint64_t>(st.st_blocks) * 512;
  if (room >= bytes_max) return {};
  return fmt::format("{} has room for {} MiB of {}", kFolder, room >> 20, bytes_max >> 20);
}

Status CheckOwner(int fd, const std::string& name) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return ErrFromErrno("cannot use the shared memory " + name);
  if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
    return Err(ErrorCode::forbidden,
               fmt::format("the shared memory {} belongs to user {}: have its owner remove {}/{}",
                           name, st.st_uid, kFolder, name));
  // Ours, but perhaps made under another umask or by hand.
  if ((st.st_mode & 07777) != 0600 && fchmod(fd, 0600) != 0)
    return ErrFromErrno("cannot close the shared memory " + name + " to other users");
  return {};
}

Result<UniqueFd> OpenNamed(const std::string& name) {
  try {
    const bi::shared_memory_object object(bi::open_or_create, name.c_str(), bi::read_write,
                                          bi::permissions(0600));
    UniqueFd fd = DescriptorOf(object);
    if (!fd) return ErrFromErrno("cannot open the shared memory " + name);
    RETURN_IF_ERROR(CheckOwner(fd.get(), name));
    return fd;
  } catch (const bi::interprocess_exception& e) {
    if (e.get_native_error() == EACCES)
      return Err(ErrorCode::forbidden,
                 fmt::format("the shared memory {} belongs to somebody else: have its owner remove "
                             "{}/{}",
                             name, kFolder, name));
    return Err(ErrorCode::io_error,
               fmt::format("cannot open the shared memory {}: {}", name, e.what()));
  }
}

}  // namespace

std::string InstanceName(const std::filesystem::path& state_dir) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const unsigned char c : state_dir.string()) hash = (hash ^ c) * 0x100000001b3;
  return fmt::format("{:012x}", hash & 0xffff'ffff'ffff);
}

std::string ArenaName(std::string_view instance, std::string_view model) {
  std::string name =
      fmt::format("{}{}.{}", kPrefix, PercentEncode(instance, ""), PercentEncode(model, "."));
  if (name.size() <= kNameBytesMax) return name;
  // '~' stands in no encoded name, so this is nobody else's.
  const std::string hash = fmt::format("~{:016x}", Hash64(name));
  return name.substr(0, kNameBytesMax - hash.size()) + hash;
}

std::vector<std::string> ListArenas() {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it(kFolder, error), end; !error && it != end;
       it.increment(error)) {
    std::string name = it->path().filename().string();
    if (name.starts_with(kPrefix)) names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string ArenaPath(std::string_view name) { return fmt::format("{}/{}", kFolder, name); }

void RemoveArena(const std::string& name) { bi::shared_memory_object::remove(name.c_str()); }

std::vector<OrphanedArena> ListOrphanedArenas() {
  std::vector<OrphanedArena> orphans;
  for (std::string& name : ListArenas()) {
    const UniqueFd fd(
        open(ArenaPath(name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct stat st {};
    if (!fd || fstat(fd.get(), &st) != 0 || !S_ISREG(st.st_mode)) continue;
    if (st.st_uid != geteuid() || IsArenaLocked(fd.get())) continue;
    orphans.push_back({std::move(name), static_cast<uint64_t>(st.st_blocks) * 512});
  }
  return orphans;
}

Result<ArenaSegment> ArenaSegment::Open(std::string_view instance, std::string_view model,
                                        uint64_t bytes_max) {
  ArenaSegment segment;
  std::string name = ArenaName(instance, model);
  segment.unnamed_reason_ = WhyNoRoom(name, bytes_max);
  if (segment.unnamed_reason_.empty()) {
    ASSIGN_OR_RETURN(segment.fd_, OpenNamed(name));
    auto lock = LockArena(segment.fd_.get(), ArenaLock::kOwner);
    if (lock) {
      segment.owner_lock_ = std::move(*lock);
      segment.name_ = std::move(name);
      return segment;
    }
    if (lock.error().code != ErrorCode::overloaded) return tl::unexpected(lock.error());
    segment.unnamed_reason_ = fmt::format(
        "another service uses {}: give this one a --state-dir of its own", ArenaPath(name));
  }
  segment.fd_.reset(memfd_create(name.c_str(), MFD_CLOEXEC));
  if (!segment.fd_) return ErrFromErrno("cannot make a memory file for the arena of " + name);
  return segment;
}

void ArenaSegment::Unlink() {
  if (!name_.empty()) RemoveArena(name_);
}

Result<UniqueFd> OpenArenaForReading(std::string_view name) {
  const std::vector<std::string> names = ListArenas();
  if (std::find(names.begin(), names.end(), name) == names.end())
    return Err(
        ErrorCode::not_found,
        names.empty()
            ? fmt::format("there is no arena {}, and no other: no service with arenas in "
                          "{} has run",
                          name, kFolder)
            : fmt::format("there is no arena {}; there are: {}", name, fmt::join(names, ", ")));
  try {
    const bi::shared_memory_object object(bi::open_only, std::string(name).c_str(), bi::read_only);
    UniqueFd fd = DescriptorOf(object);
    if (!fd) return ErrFromErrno(fmt::format("cannot open the arena {}", name));
    return fd;
  } catch (const bi::interprocess_exception& e) {
    return Err(e.get_native_error() == EACCES ? ErrorCode::forbidden : ErrorCode::io_error,
               fmt::format("cannot open the arena {}: {}; run this as the service's user", name,
                           e.what()));
  }
}

}  // namespace perdure::shm
