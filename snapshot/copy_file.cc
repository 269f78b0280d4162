#include "snapshot/copy_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/limits.h"
#include "snapshot/format.h"
#include "snapshot/lmdb_calls.h"

namespace perdure::snapshot {
namespace {

constexpr unsigned kDatabasesMax = 32;  // those of an environment, and of newer ones
// LMDB tells of a write that was cut short as of any other error of the disk.
constexpr uint64_t kNearlyFullBytes = 1 << 20;

bool DiskIsFull(const std::filesystem::path& file) {
  struct statvfs disk {};
  return statvfs(file.c_str(), &disk) == 0 && disk.f_bavail * disk.f_frsize < kNearlyFullBytes;
}

}  // namespace

template <class Run>
Status CopyFile::Call(Run run) {
  int code = is_broken_ ? kBrokenBefore : CallGuarded(run);
  if (code == kFileUnreadable || code == kLedAstray || code == kAssertFailed) is_broken_ = true;
  if (code == 0) return {};
  const bool is_full =
      FailureOf(code) == Environment::Failure::kFull || (code == EIO && DiskIsFull(file_));
  return Err(ErrorCode::io_error,
             fmt::format("cannot write {}: {}", file_.string(),
                         is_full ? "its disk is full; free some space there" : TextOf(code)));
}

Result<std::unique_ptr<CopyFile>> CopyFile::Begin(const std::filesystem::path& file,
                                                  uint64_t bytes_max) {
  InstallGuard();
  // Only of addresses. What is written again finds its pages full: it may take twice its room.
  const uint64_t bytes =
      2 * std::min<uint64_t>(bytes_max, limits::kSnapshotBytesMax) + limits::kSnapshotReserveBytes;
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  std::unique_ptr<CopyFile> copy(new CopyFile(file, (bytes + page - 1) / page * page));
  RETURN_IF_ERROR(copy->Call([&] { return copy->OpenNew(file, &copy->env_); }));
  return copy;
}

int CopyFile::OpenNew(const std::filesystem::path& file, MDB_env** env) const {
  const int code = mdb_env_create(env);
  if (code != 0) return code;
  mdb_env_set_assert(*env, LeaveOnAssert);
  mdb_env_set_maxdbs(*env, kDatabasesMax);
  mdb_env_set_mapsize(*env, map_bytes_);
  // MDB_NOSYNC: nobody opens it before it is complete and synced.
  return mdb_env_open(*env, file.c_str(), kEnvironmentFlags | MDB_NOSYNC, 0600);
}

CopyFile::~CopyFile() {
  if (txn_ != nullptr && !is_broken_) mdb_txn_abort(txn_);
  if (txn_ != nullptr && is_broken_) Abandon(txn_);
  if (env_ != nullptr && !is_broken_) mdb_env_close(env_);
  if (env_ != nullptr && is_broken_) Abandon(env_);
}

Status CopyFile::Apply(const Portion& portion) {
  for (const CopiedRecord& record : portion.records) {
    RETURN_IF_ERROR(Call([&] {
      if (txn_ != nullptr) return 0;
      return mdb_txn_begin(env_, nullptr, 0, &txn_);
    }));
    MDB_dbi* const database = &databases_[record.database];
    MDB_val key = ValOf(record.key);
    MDB_val value = record.value ? ValOf(*record.value) : MDB_val{};
    RETURN_IF_ERROR(Call([&] {
      if (*database == 0) {
        const int code = mdb_dbi_open(txn_, record.database.c_str(), MDB_CREATE, database);
        if (code != 0) return code;
      }
      if (record.key.empty()) return 0;
      if (!record.value) {
        has_free_ = true;
        const int code = mdb_del(txn_, *database, &key, nullptr);
        return code == MDB_NOTFOUND ? 0 : code;
      }
      // In order its pages become full.
      const int code = mdb_put(txn_, *database, &key, &value, MDB_APPEND);
      if (code != MDB_KEYEXIST) return code;
      has_free_ = true;
      return mdb_put(txn_, *database, &key, &value, 0);
    }));
    bytes_ += record.key.size() + value.mv_size;
    if (bytes_ >= limits::kSnapshotCopyBytes) RETURN_IF_ERROR(Commit());
  }
  return {};
}

Status CopyFile::Commit() {
  bytes_ = 0;
  if (txn_ == nullptr) return {};
  return Call([&] { return mdb_txn_commit(std::exchange(txn_, nullptr)); });
}

Status CopyFile::Finish() {
  RETURN_IF_ERROR(Commit());
  if (has_free_) return Compact();
  RETURN_IF_ERROR(Call([&] { return mdb_env_sync(env_, 1); }));
  mdb_env_close(std::exchange(env_, nullptr));
  return {};
}

Status CopyFile::Compact() {
  const std::filesystem::path file = CompactPath(file_);
  MDB_env* compact = nullptr;
  const Status copied = Call([&] {
    const int code = OpenNew(file, &compact);
    return code != 0 ? code : CopyAll(env_, compact, kScrubKey);  // which syncs it
  });
  if (compact != nullptr && is_broken_) Abandon(compact);
  if (compact != nullptr && !is_broken_) mdb_env_close(compact);
  if (!copied) {
    unlink(file.c_str());
    return copied;
  }
  mdb_env_close(std::exchange(env_, nullptr));
  if (rename(file.c_str(), file_.c_str()) == 0) return {};
  return ErrFromErrno(fmt::format("cannot rename {} to {}", file.string(), file_.string()));
}

}  // namespace perdure::snapshot
