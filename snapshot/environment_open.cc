#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/limits.h"
#include "snapshot/aside.h"
#include "snapshot/environment.h"
#include "snapshot/file_lock.h"
#include "snapshot/format.h"
#include "snapshot/lmdb_calls.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;


// LMDB 0.9's first two pages, as far as they are looked at before LMDB follows them. It divides by
// their page size and maps as many pages as they say.
struct MetaPageDisk {
  uint64_t page_number;
  uint16_t pad, flags;
  uint32_t bounds;
  uint32_t magic, version;
  uint64_t address, map_bytes;
  struct {
    uint32_t page_bytes;  // of the first one
    uint16_t flags, depth;
    uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
  } tree[2];
  uint64_t last_page, transaction;
};
static_assert(sizeof(MetaPageDisk) == 152);
constexpr uint16_t kMetaFlag = 8;
constexpr uint32_t kMagic = 0xBEEFC0DE, kVersion = 1;
constexpr uint64_t kNoPage = UINT64_MAX;
constexpr uint64_t kAddressesMax = uint64_t{1} << 46;
constexpr uint16_t kDepthMax = 32;

bool IsMetaPage(const MetaPageDisk& meta) {
  const uint64_t page = meta.tree[0].page_bytes;
  return (meta.flags & kMetaFlag) != 0 && meta.magic == kMagic && meta.version == kVersion &&
         page >= 512 && page <= 32768 && (page & (page - 1)) == 0;
}

// Of the newer one only: LMDB takes back a commit that has failed in the middle of the other.
bool MakesSense(const MetaPageDisk& meta) {
  if (meta.last_page < 1 || meta.last_page >= kAddressesMax / meta.tree[0].page_bytes) return false;
  for (const auto& tree : meta.tree)
    if (tree.depth > kDepthMax || (tree.root != kNoPage && tree.root > meta.last_page))
      return false;
  return true;
}

struct Described {
  uint64_t file_bytes = 0;
  uint64_t needed_bytes = 0;  // as its newest state says; a file may lack free pages at its end
};

// Nothing where it is no environment of LMDB's.
std::optional<Described> Describe(int fd, uint64_t file_bytes) {
  MetaPageDisk meta[2];
  if (pread(fd, &meta[0], sizeof meta[0], 0) != sizeof meta[0] || !IsMetaPage(meta[0]))
    return std::nullopt;
  const uint32_t page = meta[0].tree[0].page_bytes;
  if (pread(fd, &meta[1], sizeof meta[1], page) != sizeof meta[1] || !IsMetaPage(meta[1]) ||
      meta[1].tree[0].page_bytes != page)
    return std::nullopt;
  const MetaPageDisk& newest = meta[meta[1].transaction > meta[0].transaction ? 1 : 0];
  if (!MakesSense(newest)) return std::nullopt;
  return Described{file_bytes, (newest.last_page + 1) * page};
}

tl::unexpected<Error> Wrong(const fs::path& file, std::string_view what) {
  return Err(ErrorCode::io_error, fmt::format("{} {}", file.string(), what));
}

bool IsShort(const fs::path& file) {
  const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat st {};
  if (!fd || fstat(fd.get(), &st) != 0) return false;
  const auto described = Describe(fd.get(), static_cast<uint64_t>(st.st_size));
  return described && described->needed_bytes > described->file_bytes;
}

}  // namespace

fs::path CompactPath(const fs::path& file) { return file.string() + ".compact"; }

namespace {

// What a process that was killed has written, and the file's name, are on the disk before anything
// in it counts as stored.
Status SyncFile(const fs::path& file) {
  ASSIGN_OR_RETURN(const UniqueFd fd, OpenOurs(file, O_RDWR));
  if (!fd) return {};
  if (fdatasync(fd.get()) != 0) return ErrFromErrno(fmt::format("cannot sync {}", file.string()));
  return SyncFolder(file.parent_path());
}

}  // namespace

Result<std::unique_ptr<Environment>> Environment::Open(const EnvironmentOptions& options,
                                                       const std::vector<std::string>& databases) {
  InstallGuard();
  CHECK(options.lock || options.read_only);
  std::unique_ptr<Environment> environment(new Environment(options));
  environment->names_ = databases;
  if (options.lock) RETURN_IF_ERROR(environment->Lock());
  if (options.read_only) {
    RETURN_IF_ERROR(environment->OpenToRead());
    return environment;
  }
  // Of a compaction that was ended in the middle.
  unlink(CompactPath(options.file).c_str());
  RETURN_IF_ERROR(SyncFile(options.file));
  RETURN_IF_ERROR(environment->OpenOrBegin());
  return environment;
}

Status Environment::Lock() {
  ASSIGN_OR_RETURN(lock_, LockFile(options_.file, options_.lock_wait_ms));
  return {};
}

bool Environment::IsWanted() const { return lock_ && IsLockWanted(lock_.get()); }

Status Environment::OpenToRead() {
  struct stat st {};
  if (stat(options_.file.c_str(), &st) != 0)
    return ErrFromErrno(fmt::format("cannot open {}", options_.file.string()));
  std::optional<Refusal> refusal = OpenFile();
  if (!refusal) refusal = OpenDatabases();
  if (!refusal) return {};
  Close();
  return Err(std::move(refusal->error));
}

Status Environment::OpenOrBegin() {
  for (bool is_first = true;; is_first = false) {
    std::optional<Refusal> refusal = OpenFile();
    if (!refusal) refusal = OpenDatabases();
    if (!refusal) return {};
    Close();
    if (!refusal->is_damaged || !is_first) return Err(std::move(refusal->error));
    RETURN_IF_ERROR(PutAside(options_.file, refusal->error.message));
    is_broken_ = false;
    failure_ = Failure::kNone;
    failure_code_ = 0;
  }
}

std::optional<Environment::Refusal> Environment::OpenFile() {
  auto file = options_.read_only ? OpenToLook(options_.file) : OpenOurs(options_.file, O_RDWR);
  if (!file) return Refusal{std::move(file).error()};
  struct stat st {};
  if (*file && fstat(file->get(), &st) != 0)
    return Refusal{ErrFromErrno(fmt::format("cannot open {}", options_.file.string())).value()};
  const auto bytes = static_cast<uint64_t>(st.st_size);
  if ((bytes != 0 || options_.read_only) && !Describe(file->get(), bytes))
    return Refusal{Wrong(options_.file, "is not a file of conversations, or damaged").value(),
                   true};
  std::optional<Refusal> refusal = OpenLmdb(bytes == 0);
  // What a full disk has left of a new one.
  if (refusal && bytes == 0 && !options_.read_only) unlink(options_.file.c_str());
  return refusal;
}

std::optional<Environment::Refusal> Environment::OpenLmdb(bool is_new) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  map_bytes_ = (std::max<uint64_t>(options_.bytes_max, 16 * page) + page - 1) / page * page;
  const unsigned flags = kEnvironmentFlags | (options_.read_only ? MDB_RDONLY
                                              : options_.sync    ? 0
                                                                 : MDB_NOMETASYNC);
  mdb_filehandle_t fd = -1;
  MDB_envinfo info{};
  const int code = Call([&] {
    int result = mdb_env_create(&env_);
    if (result != 0) return result;
    mdb_env_set_assert(env_, LeaveOnAssert);
    mdb_env_set_maxdbs(env_, static_cast<MDB_dbi>(names_.size()) + 1 + kDatabasesBeside);
    result = mdb_env_set_mapsize(env_, map_bytes_);
    if (result == 0) result = mdb_env_open(env_, options_.file.c_str(), flags, 0600);
    if (result == 0) result = mdb_env_get_fd(env_, &fd);
    return result != 0 ? result : mdb_env_info(env_, &info);
  });
  if (code != 0) return Refused(code);
  map_bytes_ = info.me_mapsize;  // or more: what is there already
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  if (!is_new) return std::nullopt;
  if (Status synced = SyncFolder(options_.file.parent_path()); !synced)
    return Refusal{std::move(synced).error()};
  return std::nullopt;
}

Environment::Refusal Environment::Refused(int code) {
  Error error = Failed("open", code).value();
  // Whether the disk fails or the file is too short looks the same.
  const bool is_damaged =
      FailureOf(code) == Failure::kDamaged || (code == kFileUnreadable && IsShort(options_.file));
  return {std::move(error), is_damaged};
}

std::optional<Environment::Refusal> Environment::OpenDatabases() {
  databases_.assign(names_.size(), 0);
  MDB_txn* txn = nullptr;
  int code = 0;
  // One that was cut short is found out now, as far as its trees reach beyond its end.
  if (IsShort(options_.file)) code = Call([&] { return ReadAll(env_); });
  const unsigned flags = options_.read_only ? MDB_RDONLY : 0;
  if (code == 0) code = Call([&] { return mdb_txn_begin(env_, nullptr, flags, &txn); });
  if (code != 0) return Refused(code);
  std::optional<Refusal> refusal;
  code = FindDatabases(txn, &refusal);
  if (code != 0 || refusal) {
    Abort(txn);
    if (!refusal) refusal = Refused(code);
    return refusal;
  }
  code = Call([&] { return mdb_txn_commit(txn); });
  if (code != 0) return Refused(code);
  return std::nullopt;
}

int Environment::FindDatabases(MDB_txn* txn, std::optional<Refusal>* refusal) {
  MDB_dbi main = 0, meta = 0;
  MDB_stat stat{};
  MDB_val key = ValOf(kFormatKey), found{};
  bool has_meta = true;
  int code = Call([&] {
    int result = mdb_dbi_open(txn, nullptr, 0, &main);
    if (result == 0) result = mdb_stat(txn, main, &stat);
    if (result == 0) result = mdb_dbi_open(txn, kMeta, 0, &meta);
    if (result == MDB_NOTFOUND) {
      has_meta = false;
      return 0;
    }
    return result != 0 ? result : mdb_get(txn, meta, &key, &found);
  });
  if (code == 0 && !has_meta && stat.ms_entries == 0 && !options_.read_only)
    return BeginDatabases(txn);
  if (code == MDB_NOTFOUND || (code == 0 && !has_meta)) {
    *refusal = {Wrong(options_.file, "has no format record").value(), true};
    return 0;
  }
  std::string record;
  if (code == 0) code = CopyOut(found, &record);
  if (code != 0) return code;
  *refusal = CheckFormat(record);
  if (*refusal) return 0;
  meta_ = meta;
  code = FindScrub(txn);
  if (code != 0) return code;
  return Call([&] {
    for (size_t i = 0; i < names_.size(); ++i) {
      unsigned flags = 0;
      const unsigned create = options_.read_only ? 0 : MDB_CREATE;
      int result = mdb_dbi_open(txn, names_[i].c_str(), create, &databases_[i]);
      if (result == MDB_NOTFOUND) result = kMakesNoSense;
      if (result == 0) result = mdb_dbi_flags(txn, databases_[i], &flags);
      if (result == 0 && flags != 0) result = MDB_INCOMPATIBLE;
      if (result != 0) return result;
    }
    return 0;
  });
}

// Whatever it says, it says that something was deleted.
int Environment::FindScrub(MDB_txn* txn) {
  MDB_val key = ValOf(kScrubKey), found{};
  const int code = Call([&] { return mdb_get(txn, meta_, &key, &found); });
  needs_scrub_ = code == 0;
  return code == MDB_NOTFOUND ? 0 : code;
}

int Environment::BeginDatabases(MDB_txn* txn) {
  FormatRecord format;
  format.environment = options_.name;
  format.model = options_.model;
  format.created_unix_ms = UnixMs();
  const std::string record = Seal(kFormatKey, format);
  MDB_val key = ValOf(kFormatKey), value = ValOf(record);
  needs_scrub_ = false;
  return Call([&] {
    int result = mdb_dbi_open(txn, kMeta, MDB_CREATE, &meta_);
    if (result == 0) result = mdb_put(txn, meta_, &key, &value, 0);
    for (size_t i = 0; i < names_.size() && result == 0; ++i)
      result = mdb_dbi_open(txn, names_[i].c_str(), MDB_CREATE, &databases_[i]);
    return result;
  });
}

std::optional<Environment::Refusal> Environment::CheckFormat(std::string_view record) const {
  const auto damaged = [&](std::string_view what) {
    return Refusal{Wrong(options_.file, what).value(), true};
  };
  // A newer version of the record itself has the same fields first.
  const auto opened = OpenRecord(RecordKind::kFormat, UINT16_MAX, kFormatKey, record);
  if (!opened) return damaged(fmt::format("cannot be used: {}", opened.error().message));
  FormatRecord format;
  Reader reader(opened->payload);
  if (!reader.Get(format.version) || !reader.Get(format.reader_min))
    return damaged("has a malformed format record");
  if (format.reader_min > kFormatVersion)
    return Refusal{
        Err(ErrorCode::unsupported,
            fmt::format("{} was written by a newer version of Perdure (format {}, this one reads "
                        "up to {}): use that version, or move {} away",
                        options_.file.string(), format.version, kFormatVersion,
                        options_.file.filename().string()))
            .value()};
  if (!reader.Get(format.environment) || !reader.Get(format.model) ||
      !reader.Get(format.created_unix_ms) ||
      (opened->version == FormatRecord::kVersion && !reader.done()))
    return damaged("has a malformed format record");
  if (format.environment != options_.name)
    return damaged(fmt::format("is a file of {}, not of {}", format.environment, options_.name));
  if (format.model != options_.model)
    return damaged(fmt::format("is of the model {}, not of {}", format.model, options_.model));
  return std::nullopt;
}

void Environment::Close() {
  if (env_ == nullptr) return;
  const int code = Call([&] {
    mdb_env_close(env_);
    return 0;
  });
  if (code != 0) Abandon(env_);
  env_ = nullptr;
}

}  // namespace perdure::snapshot
