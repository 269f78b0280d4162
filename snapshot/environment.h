// One LMDB environment, opened for this process alone. For one thread at a time.
//
// Errors never end the process: what a disk does becomes an io_error that says what and where.
// After some of them (is_broken) the environment cannot be used any more.
//
// Durability. A commit writes its pages to places that no older state uses, waits for the disk
// (fdatasync), and only then writes the page that makes them count. With `sync` it waits for that
// page, too: what Write has done is there after a power cut. Without, that page reaches the disk
// with the next commit, with Sync, or when the system gets to it: a power cut may undo the last
// Write, never more, and never leaves a damaged file. (LMDB's MDB_NOMETASYNC. Its MDB_NOSYNC, which
// would not wait at all, can ruin a whole file.) The death of the process alone undoes nothing.
#pragma once

#include <lmdb.h>

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "snapshot/portion.h"

namespace perdure::snapshot {

struct EnvironmentOptions {
  std::filesystem::path file;  // created 0600; its folder exists. FILE.lock is left beside it
  std::string name;            // "turns", "kv": as its format record says
  std::string model;
  uint64_t bytes_max = 0;  // of the file; what makes room may exceed it a little
  bool sync = true;        // see above
  // How long to wait for a process that has it; overloaded then.
  int lock_wait_ms = 0;
  // Nothing is begun, put aside, changed or made private: whatever is wrong is an error.
  bool read_only = false;
  bool lock = true;  // false: nobody uses it; with read_only alone
};

// A database within an environment.
using Database = MDB_dbi;

class Environment;

// What a transaction does. Ends with the function that was given it.
class Transaction {
 public:
  // The value lives as long as the transaction, and no longer than the next Put or Delete.
  Result<std::optional<std::string_view>> Get(Database database, std::string_view key);
  // In the place of *value; false where there is none. For many or large values.
  Result<bool> GetTo(Database database, std::string_view key, std::string* value);
  Status Put(Database database, std::string_view key, std::string_view value);
  // No error where there is none.
  Status Delete(Database database, std::string_view key);
  // This deletes what is to leave no trace: Environment::needs_scrub from its commit on.
  Status NoteDeletion();
  // All of a database from the key `from` on, in order, until `visit` returns false. Key and value
  // live as long as the visit, which changes nothing.
  Status Scan(Database database, std::string_view from,
              const std::function<bool(std::string_view key, std::string_view value)>& visit);
  // Without copies, those whose keys begin with `prefix`, up to kSnapshotPageBytesMax of them read
  // ahead: `look` sees them where they are, and may be left in its middle when the file cannot be
  // read (snapshot/guarded.h), so nothing in it wants to be destroyed.
  Status Look(
      Database database, std::string_view prefix,
      const std::function<bool(std::string_view key, std::span<const std::byte> value)>& look);
  // The same with how long the values are, without reading them.
  Status ScanSizes(Database database, std::string_view from,
                   const std::function<bool(std::string_view key, size_t value_bytes)>& visit);
  // The same without reading values.
  Status ScanKeys(Database database, std::string_view from,
                  const std::function<bool(std::string_view key)>& visit);

 private:
  friend class Environment;
  using Visit = std::function<bool(std::string_view key, std::string_view value)>;
  using VisitSize = std::function<bool(std::string_view key, size_t value_bytes)>;
  Transaction(Environment* environment, MDB_txn* transaction)
      : environment_(environment), transaction_(transaction) {}
  // One of both is there.
  Status ScanWith(Database database, std::string_view from, const Visit& visit,
                  const VisitSize& visit_size);
  Status EndScan(MDB_cursor* cursor, int code);

  Environment* environment_;
  MDB_txn* transaction_;
  std::deque<std::string> got_;
  uint64_t put_bytes_ = 0, deleted_bytes_ = 0;
  bool notes_deletion_ = false;
};

class Environment {
 public:
  struct Copying;

  // Opens it, or begins a new one, with these databases. A file that is none, or one of another
  // model or environment, or one that is damaged beyond use is put aside (FILE.damaged-UNIXTIME),
  // with an error in the log, and a new one begun; one of a newer format is refused (unsupported).
  static Result<std::unique_ptr<Environment>> Open(const EnvironmentOptions& options,
                                                   const std::vector<std::string>& databases);
  ~Environment();
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

  // By its place among those of Open; the same as long as the environment lives.
  Database database(size_t index) const { return databases_[index]; }

  // All of what `work` does or nothing. Errors of `work` are handed on. io_error with kFull in
  // last_failure where the file has no room, or the disk has none; the next one may succeed.
  // Where the file is full, `work` may be run again with some room more, up to twice; that counts
  // if it makes the file's content no larger than bytes_max, or no larger than it is: what was
  // deleted is of use at once, however it lies, and deleting is always possible.
  Status Write(const std::function<Status(Transaction&)>& work);
  Status Read(const std::function<Status(Transaction&)>& work);
  // All that was written is on the disk.
  Status Sync();

  // A copy in portions, between which others may write (environment_copy.cc). One at a time:
  // BeginCopy begins anew. Who applies all portions in order (snapshot/copy_file.h) has what the
  // environment has when the last one is made. After an error, or EndCopy, there is no next one.
  void BeginCopy();
  Result<Portion> NextPortion();
  void EndCopy();
  bool is_copied() const;
  // Somebody waits for the lock that this one has.
  bool IsWanted() const;

  // Why the last call failed.
  enum class Failure { kNone, kFull, kDisk, kDamaged };
  Failure last_failure() const { return failure_; }
  bool is_broken() const { return is_broken_; }
  uint64_t file_bytes() const;  // as the system counts them
  uint64_t used_bytes();        // of it, by LMDB's pages that are in use

  // What was deleted may still stand in the file: until Compact, whoever opens it.
  bool needs_scrub() const { return needs_scrub_; }
  // Puts a copy without what was deleted in the place of the file, and goes on with that: no trace
  // of what was deleted is left in it. A crash at any point leaves the old one or the new one; an
  // error leaves the old one in use.
  Status Compact();
  // Puts the file aside, with an error in the log, and begins a new one, as Open does.
  Status BeginAnew(std::string_view why);

 private:
  friend class Transaction;
  using Work = std::function<Status(Transaction&)>;
  // Why a file was not opened.
  struct Refusal {
    Error error;
    bool is_damaged = false;  // to be put aside
  };
  explicit Environment(const EnvironmentOptions& options);

  // Opening (environment_open.cc).
  Status Lock();
  Status OpenOrBegin();
  std::optional<Refusal> OpenFile();
  std::optional<Refusal> OpenLmdb(bool is_new);
  std::optional<Refusal> OpenDatabases();
  Status OpenToRead();
  int FindDatabases(MDB_txn* txn, std::optional<Refusal>* refusal);
  int FindScrub(MDB_txn* txn);
  int BeginDatabases(MDB_txn* txn);
  std::optional<Refusal> CheckFormat(std::string_view record) const;
  Refusal Refused(int code);
  void Close();

  // Runs something of LMDB's, guarded, unless the environment is broken; LMDB's code, or one of
  // lmdb_calls.h.
  template <class Run>
  int Call(Run run);
  int CopyOut(const MDB_val& from, std::string* to);
  int Noted(int code);
  tl::unexpected<Error> Failed(std::string_view what, int code);
  bool DiskIsFull() const;

  void NoteChange(Database database, std::string_view key);
  Status ReadDatabases(Transaction& transaction, Portion* portion);
  Status ReadAgain(Transaction& transaction, Portion* portion);
  Result<Database> FindDatabase(Transaction& transaction, const std::string& name);

  int Begin(unsigned flags, MDB_txn** txn);
  // What a transaction may do, by the bytes that it puts and deletes.
  struct Written {
    uint64_t put = 0, deleted = 0;
  };
  using May = std::function<bool(const Written&)>;
  Status WriteOnce(const Work& work, const May& may, Written* written);
  Status WriteAgain(const Work& work, uint64_t room, const May& may, Written* written);
  void Abort(MDB_txn* txn);
  Status SetMapBytes(uint64_t bytes);
  Status CopyTo(const std::filesystem::path& to);

  const EnvironmentOptions options_;
  std::vector<std::string> names_;
  UniqueFd lock_;
  MDB_env* env_ = nullptr;
  std::vector<MDB_dbi> databases_;
  MDB_dbi meta_ = 0;
  bool needs_scrub_ = false;
  uint64_t map_bytes_ = 0;
  Failure failure_ = Failure::kNone;
  int failure_code_ = 0;
  bool is_broken_ = false;
  std::unique_ptr<Copying> copying_;  // nothing: no copy is under way
};

}  // namespace perdure::snapshot
