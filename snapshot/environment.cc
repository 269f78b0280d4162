#include "snapshot/environment.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "base/limits.h"
#include "snapshot/aside.h"
#include "snapshot/format.h"
#include "snapshot/lmdb_calls.h"

namespace perdure::snapshot {
namespace {

// A transaction that puts no more than this before it fails may be about to delete.
constexpr uint64_t kSmallBytes = 64 << 10;
// LMDB tells of a write that was cut short as of any other error of the disk.
constexpr uint64_t kNearlyFullBytes = 1 << 20;

}  // namespace

int Environment::Noted(int code) {
  // Left in the middle.
  if (code == kFileUnreadable || code == kLedAstray || code == kAssertFailed) is_broken_ = true;
  return code;
}

int Environment::CopyOut(const MDB_val& from, std::string* to) {
  return is_broken_ ? kBrokenBefore : Noted(CopyValue(from, to));
}

bool Environment::DiskIsFull() const {
  struct statvfs disk {};
  if (statvfs(options_.file.c_str(), &disk) == 0 &&
      disk.f_bavail * disk.f_frsize < kNearlyFullBytes)
    return true;
  struct rlimit most {};
  return getrlimit(RLIMIT_FSIZE, &most) == 0 && most.rlim_cur != RLIM_INFINITY &&
         file_bytes() + kNearlyFullBytes > most.rlim_cur;
}

tl::unexpected<Error> Environment::Failed(std::string_view what, int code) {
  // What follows from an error hides it no more.
  if (failure_code_ == 0) {
    failure_code_ = code;
    failure_ = code == EIO && DiskIsFull() ? Failure::kFull : FailureOf(code);
  }
  std::string reason = TextOf(code);
  if (code == MDB_MAP_FULL)
    reason +=
        fmt::format(" ({} MiB); delete conversations or allow more", options_.bytes_max >> 20);
  else if (failure_ == Failure::kFull)
    reason += "; free some space on its disk";
  return Err(ErrorCode::io_error,
             fmt::format("cannot {} {}: {}", what, options_.file.string(), reason));
}

// --- Reading and writing -------------------------------------------------------------------------

void Environment::Abort(MDB_txn* txn) {
  const int code = Call([&] {
    mdb_txn_abort(txn);
    return 0;
  });
  if (code != 0) Abandon(txn);
}

// After a failed write of the page that makes a commit count LMDB wants to be opened again.
int Environment::Begin(unsigned flags, MDB_txn** txn) {
  const auto begin = [&] { return mdb_txn_begin(env_, nullptr, flags, txn); };
  const int code = Call(begin);
  if (code != MDB_PANIC) return code;
  Close();
  std::optional<Refusal> refusal = OpenFile();
  if (!refusal) refusal = OpenDatabases();
  if (!refusal) return Call(begin);
  is_broken_ = true;
  return code;
}

Status Environment::Read(const Work& work) {
  failure_ = Failure::kNone;
  failure_code_ = 0;
  MDB_txn* txn = nullptr;
  const int code = Begin(MDB_RDONLY, &txn);
  if (code != 0) return Failed("read", code);
  Transaction transaction(this, txn);
  Status status = work(transaction);
  Abort(txn);
  return status;
}

Status Environment::WriteOnce(const Work& work, const May& may, Written* written) {
  failure_ = Failure::kNone;
  failure_code_ = 0;
  MDB_txn* txn = nullptr;
  int code = Begin(0, &txn);
  if (code != 0) return Failed("write", code);
  Transaction transaction(this, txn);
  Status status = work(transaction);
  *written = {transaction.put_bytes_, transaction.deleted_bytes_};
  if (status && may && !may(*written)) status = Failed("write", MDB_MAP_FULL);
  if (!status) {
    Abort(txn);
    return status;
  }
  code = Call([&] { return mdb_txn_commit(txn); });
  if (is_broken_) Abandon(txn);
  if (code != 0) return Failed("write", code);
  needs_scrub_ = needs_scrub_ || transaction.notes_deletion_;
  return {};
}

Status Environment::WriteAgain(const Work& work, uint64_t room, const May& may, Written* written) {
  RETURN_IF_ERROR(SetMapBytes(map_bytes_ + room));
  Status status = WriteOnce(work, may, written);
  RETURN_IF_ERROR(SetMapBytes(map_bytes_));
  return status;
}

// LMDB uses what was deleted only two commits later, and wants long values to lie in one piece: a
// file may be full with much of it free. And it writes changed pages anew before the old ones come
// free: half of the reserve is kept for what deletes.
Status Environment::Write(const Work& work) {
  const auto is_full = [this] { return failure_code_ == MDB_MAP_FULL; };
  Written written;
  Status status = WriteOnce(work, nullptr, &written);
  if (status || !is_full()) return status;
  const uint64_t used = used_bytes();
  const auto fits = [&](const Written& w) {
    return used + w.put <= options_.bytes_max + w.deleted;
  };
  if (used < options_.bytes_max)
    status = WriteAgain(work, limits::kSnapshotReserveBytes / 2, fits, &written);
  if (status || !is_full() || (written.deleted == 0 && written.put > kSmallBytes)) return status;
  const auto shrinks = [](const Written& w) { return w.put <= w.deleted; };
  return WriteAgain(work, limits::kSnapshotReserveBytes, shrinks, &written);
}

// Of addresses. LMDB makes it no smaller than what is in use.
Status Environment::SetMapBytes(uint64_t bytes) {
  const int code = Call([&] { return mdb_env_set_mapsize(env_, bytes); });
  if (code == 0) return {};
  is_broken_ = true;  // the old map is gone
  return Failed("map", code);
}

Status Environment::Sync() {
  failure_ = Failure::kNone;
  failure_code_ = 0;
  const int code = Call([&] { return mdb_env_sync(env_, 1); });
  if (code != 0) return Failed("sync", code);
  return {};
}

uint64_t Environment::file_bytes() const {
  struct stat st {};
  return stat(options_.file.c_str(), &st) == 0 ? static_cast<uint64_t>(st.st_size) : 0;
}

uint64_t Environment::used_bytes() {
  MDB_stat stat{};
  MDB_envinfo info{};
  size_t free_pages = 0;
  const int code = Call([&] {
    int result = mdb_env_stat(env_, &stat);
    if (result == 0) result = mdb_env_info(env_, &info);
    return result != 0 ? result : CountFreePages(env_, &free_pages);
  });
  const size_t pages = info.me_last_pgno + 1;
  return code == 0 ? (pages - std::min(free_pages, pages)) * stat.ms_psize : 0;
}

// --- Compaction ----------------------------------------------------------------------------------

// Record by record: LMDB's own copies (mdb_env_copy2) keep what was deleted within a page, and read
// the file in a thread that nobody guards.
Status Environment::CopyTo(const std::filesystem::path& to) {
  MDB_env* copy = nullptr;
  int code = Call([&] {
    int result = mdb_env_create(&copy);
    if (result != 0) return result;
    mdb_env_set_assert(copy, LeaveOnAssert);
    mdb_env_set_maxdbs(copy, static_cast<MDB_dbi>(names_.size()) + 1 + kDatabasesBeside);
    mdb_env_set_mapsize(copy, std::max(map_bytes_, file_bytes()) + limits::kSnapshotReserveBytes);
    // MDB_NOSYNC: nobody opens it before it is complete and synced.
    result = mdb_env_open(copy, to.c_str(), kEnvironmentFlags | MDB_NOSYNC, 0600);
    return result != 0 ? result : CopyAll(env_, copy, kScrubKey);
  });
  if (is_broken_ && copy != nullptr)
    Abandon(copy);
  else if (copy != nullptr)
    mdb_env_close(copy);
  if (code != 0) return Failed("compact", code);
  return {};
}

Status Environment::Compact() {
  failure_ = Failure::kNone;
  failure_code_ = 0;
  const std::filesystem::path copy = CompactPath(options_.file);
  unlink(copy.c_str());
  Status status = CopyTo(copy);
  if (status && rename(copy.c_str(), options_.file.c_str()) != 0) status = Failed("compact", errno);
  if (!status) {
    unlink(copy.c_str());
    return status;
  }
  status = SyncFolder(options_.file.parent_path());
  Close();
  std::optional<Refusal> refusal = OpenFile();
  if (!refusal) refusal = OpenDatabases();
  if (!refusal) return status;
  is_broken_ = true;
  failure_ = Failure::kDisk;
  return Err(std::move(refusal->error));
}

Status Environment::BeginAnew(std::string_view why) {
  EndCopy();
  Close();
  failure_ = Failure::kNone;
  failure_code_ = 0;
  RETURN_IF_ERROR(PutAside(options_.file, fmt::format("{}: {}", options_.file.string(), why)));
  is_broken_ = false;
  return OpenOrBegin();
}

}  // namespace perdure::snapshot
