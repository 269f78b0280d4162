#include "snapshot/copy_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/limits.h"
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
  std::unique_ptr<CopyFile> copy(new CopyFile(file));
  // Only of addresses. What is written again finds its pages full: it may take twice its room.
  const uint64_t map_bytes =
      2 * std::min<uint64_t>(bytes_max, limits::kSnapshotBytesMax) + limits::kSnapshotReserveBytes;
  RETURN_IF_ERROR(copy->Call([&] {
    int result = mdb_env_create(&copy->env_);
    if (result != 0) return result;
    mdb_env_set_assert(copy->env_, LeaveOnAssert);
    mdb_env_set_maxdbs(copy->env_, kDatabasesMax);
    const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    mdb_env_set_mapsize(copy->env_, (map_bytes + page - 1) / page * page);
    // MDB_NOSYNC: nobody opens it before it is complete and synced.
    return mdb_env_open(copy->env_, file.c_str(), kEnvironmentFlags | MDB_NOSYNC, 0600);
  }));
  return copy;
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
        const int code = mdb_del(txn_, *database, &key, nullptr);
        return code == MDB_NOTFOUND ? 0 : code;
      }
      // In order its pages become full.
      const int code = mdb_put(txn_, *database, &key, &value, MDB_APPEND);
      return code == MDB_KEYEXIST ? mdb_put(txn_, *database, &key, &value, 0) : code;
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
  RETURN_IF_ERROR(Call([&] { return mdb_env_sync(env_, 1); }));
  mdb_env_close(std::exchange(env_, nullptr));
  return {};
}

}  // namespace perdure::snapshot
