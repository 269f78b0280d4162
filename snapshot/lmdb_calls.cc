#include "snapshot/lmdb_calls.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <vector>

#include "base/limits.h"

namespace perdure::snapshot {
namespace {

constexpr size_t kPage = 4096;
constexpr MDB_dbi kFreePages = 0;  // LMDB's list of them
// Longer values are brought as a whole: the map itself is not read ahead.
constexpr size_t kReadAheadBytes = 4 * kPage;

thread_local char assert_text[200];

// Cursors and transactions of a guarded call, the newest last.
thread_local std::vector<const void*> underway;

// One byte of each page of it.
int TouchValue(const MDB_val& value) {
  const auto* const data = static_cast<const volatile char*>(value.mv_data);
  for (size_t at = 0; at < value.mv_size; at += kPage) (void)data[at];
  return 0;
}

template <class Visit>
int ForEach(MDB_txn* txn, MDB_dbi database, Visit visit) {
  MDB_cursor* cursor = nullptr;
  if (const int code = mdb_cursor_open(txn, database, &cursor); code != 0) return code;
  underway.push_back(cursor);
  MDB_val key, value;
  int code = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
  while (code == 0) {
    code = visit(key, value);
    if (code == 0) code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  mdb_cursor_close(cursor);
  underway.pop_back();
  return code == MDB_NOTFOUND ? 0 : code;
}

// Calls read(txn) in a transaction for reading.
template <class Read>
int InReading(MDB_env* env, Read read) {
  MDB_txn* txn = nullptr;
  if (const int code = mdb_txn_begin(env, nullptr, MDB_RDONLY, &txn); code != 0) return code;
  underway.push_back(txn);
  const int code = read(txn);
  mdb_txn_abort(txn);
  underway.pop_back();
  return code;
}

// Calls visit(name, database) for each named database.
template <class Visit>
int ForEachDatabase(MDB_txn* txn, Visit visit) {
  MDB_dbi main = 0;
  if (const int code = mdb_dbi_open(txn, nullptr, 0, &main); code != 0) return code;
  return ForEach(txn, main, [&](const MDB_val& key, const MDB_val&) {
    char name[kKeyBytesMax + 1] = {};
    if (key.mv_size > kKeyBytesMax) return kMakesNoSense;
    std::memcpy(name, key.mv_data, key.mv_size);
    MDB_dbi database = 0;
    unsigned flags = 0;
    int code = mdb_dbi_open(txn, name, 0, &database);
    if (code == 0) code = mdb_dbi_flags(txn, database, &flags);
    if (code == 0 && flags != 0) code = MDB_INCOMPATIBLE;
    return code != 0 ? code : visit(name, database);
  });
}

// A database in the making, committed in portions.
struct Copy {
  MDB_env* env;
  const char* name;
  MDB_txn* txn = nullptr;
  MDB_dbi database = 0;
  uint64_t bytes = 0;

  int Begin() {
    bytes = 0;
    const int code = mdb_txn_begin(env, nullptr, 0, &txn);
    return code != 0 ? code : mdb_dbi_open(txn, name, MDB_CREATE, &database);
  }
  int Commit() {
    const int code = mdb_txn_commit(txn);
    txn = nullptr;
    return code;
  }
  int Add(MDB_val key, MDB_val value) {
    // MDB_APPEND wants the order that a sound tree has.
    int code = mdb_put(txn, database, &key, &value, MDB_APPEND);
    if (code == MDB_KEYEXIST) return kMakesNoSense;
    bytes += key.mv_size + value.mv_size;
    if (code != 0 || bytes < limits::kSnapshotCopyBytes) return code;
    code = Commit();
    return code != 0 ? code : Begin();
  }
};

int CopyDatabase(MDB_txn* from, MDB_dbi source, MDB_env* to, const char* name,
                 std::string_view without) {
  Copy copy{to, name};
  const bool is_meta = std::strcmp(name, kMeta) == 0;
  int code = copy.Begin();
  if (code == 0)
    code = ForEach(from, source, [&](const MDB_val& key, const MDB_val& value) {
      if (value.mv_size > limits::kSnapshotValueBytesMax) return kMakesNoSense;
      if (is_meta && without == std::string_view(static_cast<char*>(key.mv_data), key.mv_size))
        return 0;
      return copy.Add(key, value);
    });
  if (code == 0) return copy.Commit();
  if (copy.txn != nullptr) mdb_txn_abort(copy.txn);
  return code;
}

}  // namespace

std::string TextOf(int code) {
  switch (code) {
    case kFileUnreadable:
      return "it cannot be read any more: the disk fails, or somebody has cut the file short";
    case kLedAstray:
      return "it is damaged: following it leads astray";
    case kAssertFailed:
      return std::string("it is damaged: ") + assert_text;
    case kBrokenBefore:
      return "it is out of use since an earlier error, until the model is started again";
    case kMakesNoSense:
      return "it is damaged: its order or its lengths make no sense";
    case MDB_MAP_FULL:
      return "the file is as large as it may become";
    default:
      return mdb_strerror(code);
  }
}

Environment::Failure FailureOf(int code) {
  using Failure = Environment::Failure;
  switch (code) {
    case 0:
      return Failure::kNone;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Failure::kFull;
    case kLedAstray:
    case kAssertFailed:
    case kMakesNoSense:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_CURSOR_FULL:
    case MDB_PAGE_FULL:
    case MDB_INCOMPATIBLE:
    case MDB_BAD_DBI:
    case MDB_KEYEXIST:
      return Failure::kDamaged;
    default:
      return Failure::kDisk;
  }
}

void LeaveOnAssert(MDB_env* /*env*/, const char* text) {
  std::strncpy(assert_text, text, sizeof assert_text - 1);
  LeaveGuard();
}

void Abandon(const void* object) {
  static std::mutex mutex;
  static auto& abandoned = *new std::vector<const void*>;
  const std::lock_guard lock(mutex);
  abandoned.push_back(object);
}

void AbandonUnderway() {
  for (const void* object : underway) Abandon(object);
  underway.clear();
}

void ReadAhead(const MDB_val& value) {
  if (value.mv_size <= kReadAheadBytes) return;
  const auto begin = reinterpret_cast<uintptr_t>(value.mv_data) & ~(kPage - 1);
  const auto end = reinterpret_cast<uintptr_t>(value.mv_data) + value.mv_size;
  // Where both ends are in memory what is between them was read with them.
  const auto is_there = [](uintptr_t at) {
    unsigned char there = 0;
    return mincore(reinterpret_cast<void*>(at), kPage, &there) == 0 && (there & 1) != 0;
  };
  if (is_there(begin) && is_there((end - 1) & ~(kPage - 1))) return;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
}

bool Extend(MDB_val* value, const MDB_val& next) {
  const auto begin = reinterpret_cast<uintptr_t>(value->mv_data), end = begin + value->mv_size;
  const auto next_begin = reinterpret_cast<uintptr_t>(next.mv_data);
  if (value->mv_size == 0 || next_begin < end || next_begin - end > kPage) return false;
  value->mv_size = next_begin + next.mv_size - begin;
  return true;
}

int CopyValue(const MDB_val& from, std::string* value) {
  if (from.mv_size > limits::kSnapshotValueBytesMax) return kMakesNoSense;
  value->resize(from.mv_size);
  char* const to = value->data();
  return CallGuarded([&] {
    ReadAhead(from);
    if (from.mv_size > 0) std::memcpy(to, from.mv_data, from.mv_size);
    return 0;
  });
}

int ListDatabases(MDB_env* env, std::vector<std::string>* names) {
  return InReading(env, [&](MDB_txn* txn) {
    return ForEachDatabase(txn, [&](const char* name, MDB_dbi) {
      names->emplace_back(name);
      return 0;
    });
  });
}

int CopyAll(MDB_env* from, MDB_env* to, std::string_view without) {
  const int code = InReading(from, [&](MDB_txn* txn) {
    return ForEachDatabase(txn, [&](const char* name, MDB_dbi database) {
      return CopyDatabase(txn, database, to, name, without);
    });
  });
  return code != 0 ? code : mdb_env_sync(to, 1);
}

int CountFreePages(MDB_env* env, size_t* pages) {
  *pages = 0;
  const auto add = [&](const MDB_val&, const MDB_val& value) {
    size_t count = 0;  // and then their numbers
    if (value.mv_size < sizeof count) return kMakesNoSense;
    std::memcpy(&count, value.mv_data, sizeof count);
    if (count > value.mv_size / sizeof count) return kMakesNoSense;
    *pages += count;
    return 0;
  };
  return InReading(env, [&](MDB_txn* txn) { return ForEach(txn, kFreePages, add); });
}

int ReadAll(MDB_env* env) {
  const auto touch = [](const MDB_val&, const MDB_val& value) { return TouchValue(value); };
  return InReading(env, [&](MDB_txn* txn) {
    const int code = ForEach(txn, kFreePages, touch);
    if (code != 0) return code;
    return ForEachDatabase(
        txn, [&](const char*, MDB_dbi database) { return ForEach(txn, database, touch); });
  });
}

}  // namespace perdure::snapshot
