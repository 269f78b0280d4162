#include "cli/backup/restore.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/folder_lock.h"
#include "base/limits.h"
#include "base/private_folder.h"
#include "base/unique_fd.h"
#include "cli/backup/backup.h"
#include "cli/backup/check.h"
#include "cli/backup/files.h"
#include "cli/table.h"
#include "protocol/heritage.h"
#include "shm/arena_segment.h"
#include "snapshot/file_lock.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;

// Files of a backup on their way; what is left of it after a crash is a copy.
constexpr const char* kStaging = "restore.partial";

// What is put in its place as a whole: a model's folder, and what was saved.
std::map<fs::path, std::string> UnitsOf(const Manifest& manifest) {
  std::map<fs::path, std::string> units;  // and the model
  for (const BackupFile& file : manifest.files)
    units.emplace(
        file.kind == BackupKind::kSaved ? fs::path("saved") : fs::path(file.path).parent_path(),
        file.model);
  return units;
}

// Something that would be missed: not the locks that a process has left.
bool HasContent(const fs::path& folder) {
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error);
  for (const fs::recursive_directory_iterator end; !error && it != end; it.increment(error))
    if (!it->is_directory() && it->path().extension() != ".lock") return true;
  return static_cast<bool>(error) && fs::exists(folder);
}

class Restorer {
 public:
  Restorer(fs::path state_dir, fs::path backup, Manifest manifest)
      : state_dir_(std::move(state_dir)),
        backup_(std::move(backup)),
        staging_(state_dir_ / kStaging),
        manifest_(std::move(manifest)),
        units_(UnitsOf(manifest_)) {}

  Result<RestoreResult> Run(bool force) {
    RETURN_IF_ERROR(LockFiles());
    RETURN_IF_ERROR(LookAtState(force));
    RETURN_IF_ERROR(CheckRoom());
    RemoveAll(staging_);
    Status status = Stage();
    if (status) {
      status = PutAll();
      if (!status)
        status = ErrWithContext(
            fmt::format("a part is restored{}",
                        aside_.empty() ? "" : ", and what was there is in " + aside_.string()),
            status.error());
    }
    RemoveAll(staging_);
    RETURN_IF_ERROR(status);
    ForgetMemory();
    return RestoreResult{std::move(manifest_), std::move(aside_)};
  }

 private:
  // A worker of a service that was killed may be about to end.
  Status LockFiles() {
    for (const auto& [unit, model] : units_) {
      std::error_code error;
      if (model.empty() || !fs::is_directory(state_dir_ / unit, error)) continue;
      for (const char* name : {"turns.mdb", "kv.mdb"}) {
        ASSIGN_OR_RETURN(UniqueFd lock,
                         snapshot::LockFile(state_dir_ / unit / name, limits::kSnapshotLockWaitMs));
        locks_.push_back(std::move(lock));
      }
    }
    return {};
  }

  Status LookAtState(bool force) {
    std::vector<std::string> there;
    for (const auto& [unit, model] : units_) {
      std::error_code error;
      if (!fs::exists(fs::symlink_status(state_dir_ / unit, error))) continue;
      if (!HasContent(state_dir_ / unit)) continue;
      moved_.push_back(unit);
      there.push_back((state_dir_ / unit).string());
    }
    if (!there.empty() && !force)
      return Err(ErrorCode::invalid_request,
                 fmt::format("there is something already: {}; with --force it is moved aside, and "
                             "nothing of it is deleted",
                             fmt::join(there, ", ")));
    if (moved_.empty()) return {};
    // A name that nothing has.
    for (int64_t unix_s = UnixSeconds();; ++unix_s) {
      aside_ = state_dir_ / fmt::format("before-restore-{}", unix_s);
      if (!fs::exists(aside_)) return {};
    }
  }

  Status CheckRoom() {
    uint64_t bytes = 0;
    for (const BackupFile& file : manifest_.files) bytes += file.bytes;
    struct statvfs disk {};
    if (statvfs(state_dir_.c_str(), &disk) != 0 || disk.f_bavail * disk.f_frsize >= bytes)
      return {};
    return Err(
        ErrorCode::io_error,
        fmt::format("the backup takes {}, and {} has room for {}: free some space there",
                    Bytes(bytes), state_dir_.string(), Bytes(disk.f_bavail * disk.f_frsize)));
  }

  Status Stage() {
    RETURN_IF_ERROR(MakeFolder(staging_));
    for (const BackupFile& file : manifest_.files) {
      ASSIGN_OR_RETURN(const FileSum sum, CopyWhole(backup_ / file.path, staging_ / file.path));
      if (sum.bytes != file.bytes || sum.checksum != file.checksum)
        return Err(ErrorCode::io_error,
                   fmt::format("{} has changed since it was looked at", file.path));
    }
    return SyncFolders(staging_);
  }

  // Each unit is the old one or the new one at any time, but for a moment where the file system
  // cannot exchange them.
  Status PutAll() {
    RETURN_IF_ERROR(MakeFolder(state_dir_ / "conversations"));
    if (!aside_.empty()) RETURN_IF_ERROR(MakeFolder(aside_ / "conversations"));
    for (const auto& [unit, model] : units_) {
      if (std::ranges::find(moved_, unit) != moved_.end()) {
        RETURN_IF_ERROR(Exchange(unit));
        continue;
      }
      RemoveAll(state_dir_ / unit);  // locks, if anything
      RETURN_IF_ERROR(Move(staging_ / unit, state_dir_ / unit));
    }
    if (!aside_.empty()) RETURN_IF_ERROR(SyncFolders(aside_));
    RETURN_IF_ERROR(SyncFolder(state_dir_ / "conversations"));
    return SyncFolder(state_dir_);
  }

  Status Exchange(const fs::path& unit) {
    const fs::path now = state_dir_ / unit, kept = aside_ / unit;
    RETURN_IF_ERROR(Move(staging_ / unit, kept));
    if (renameat2(AT_FDCWD, kept.c_str(), AT_FDCWD, now.c_str(), RENAME_EXCHANGE) == 0) return {};
    if (errno != EINVAL && errno != ENOSYS)
      return ErrFromErrno(fmt::format("cannot exchange {} and {}", kept.string(), now.string()));
    RETURN_IF_ERROR(Move(kept, staging_ / unit));
    RETURN_IF_ERROR(Move(now, kept));
    return Move(staging_ / unit, now);
  }

  static Status Move(const fs::path& from, const fs::path& to) {
    if (rename(from.c_str(), to.c_str()) == 0) return {};
    return ErrFromErrno(fmt::format("cannot rename {} to {}", from.string(), to.string()));
  }

  // Shared memory in which a killed service has left what is newer than the backup.
  void ForgetMemory() const {
    const std::string instance = shm::InstanceName(state_dir_);
    for (const shm::OrphanedArena& orphan : shm::ListOrphanedArenas())
      for (const auto& [unit, model] : units_)
        if (!model.empty() && orphan.name == shm::ArenaName(instance, model))
          shm::RemoveArena(orphan.name);
  }

  const fs::path state_dir_, backup_, staging_;
  Manifest manifest_;
  const std::map<fs::path, std::string> units_;
  std::vector<UniqueFd> locks_;
  std::vector<fs::path> moved_;
  fs::path aside_;
};

}  // namespace

Result<RestoreResult> Restore(const fs::path& state_dir, const RestoreOptions& options) {
  std::error_code error;
  const fs::path backup = fs::absolute(options.backup, error).lexically_normal();
  UniqueFd lock;
  // Told before minutes of reading.
  if (!options.verify && fs::exists(state_dir, error)) {
    RETURN_IF_ERROR(CheckFolder(state_dir, "state folder"));
    ASSIGN_OR_RETURN(lock, LockFolder(state_dir, "--state-dir"));
  }
  ASSIGN_OR_RETURN(Manifest manifest, CheckBackup(backup));
  if (options.verify) return RestoreResult{std::move(manifest), {}};
  if (!lock) {
    RETURN_IF_ERROR(PrepareFolder(state_dir, "state folder"));
    ASSIGN_OR_RETURN(lock, LockFolder(state_dir, "--state-dir"));
  }
  return Restorer(state_dir, backup, std::move(manifest)).Run(options.force);
}

int RunRestore(const fs::path& state_dir, const RestoreOptions& options, bool json) {
  const auto restored = Restore(state_dir, options);
  if (!restored) {
    fmt::print(stderr, "perdure: {} was not {}: {}\n", options.backup,
               options.verify ? "verified" : "restored", restored.error().message);
    return protocol::kExitSystem;
  }
  if (json) {
    Json answer = ManifestJson(restored->manifest);
    if (!options.verify) answer["state_dir"] = state_dir.string();
    answer["moved_aside"] = restored->aside.empty() ? Json() : Json(restored->aside.string());
    fmt::print("{}\n", DumpJson(answer));
    return protocol::kExitOk;
  }
  fmt::print("{}", FormatManifest(restored->manifest));
  if (!restored->aside.empty())
    fmt::print("what was there before is in {}\n", restored->aside.string());
  if (options.verify)
    fmt::print("{} is whole\n", options.backup);
  else
    fmt::print("restored to {}\n", state_dir.string());
  return protocol::kExitOk;
}

}  // namespace perdure::cli
