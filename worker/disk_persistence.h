// Conversations in two LMDB environments, each with a thread of its own: a commit of a turn does
// not wait for pages that are being written.
//
// What a disk refuses is no error of a request. A turn that could not be stored is kept in memory,
// up to limits::kUnsavedTurnsBytesMax, and tried again, before any later one; log and state() tell.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "snapshot/kv_file.h"
#include "worker/disk_backup.h"
#include "worker/job_thread.h"
#include "worker/persistence.h"

namespace perdure::worker {

class DiskPersistence : public Persistence {
 public:
  struct Options {
    std::filesystem::path dir;  // of this model; made where it is missing
    std::string model;
    bool sync = true;  // a turn is stored when it is on the disk, not before
    uint64_t turns_bytes_max = 0;
    uint64_t kv_bytes_max = 0;  // of the file
    KvCompression kv_compression = KvCompression::kNone;
    int lock_wait_ms = 0;  // for a process that has the files
  };
  // What is stored, beside it.
  struct Opened {
    std::unique_ptr<DiskPersistence> persistence;
    std::vector<snapshot::StoredConversation> conversations;
    std::vector<snapshot::StoredPage> pages;
  };
  static Result<Opened> Open(const Options& options);
  ~DiskPersistence() override;

  void KeepTurn(snapshot::TurnOwner owner, snapshot::StoredTurn turn) override;
  void Manage(uint64_t rid, Job job) override;
  void FetchTurn(uint64_t ticket, uint64_t owner, const std::string& id) override;
  void FetchPages(uint64_t ticket, std::vector<PageToFetch> pages) override;
  void KeepPages(std::vector<PageToKeep> pages, std::vector<uint64_t> superseded) override;
  void TouchPages(std::vector<std::pair<uint64_t, uint32_t>> used_unix_s) override;
  void DropPages(std::vector<uint64_t> chain_hashes) override;
  void WithPages(uint64_t ticket, PageJob job) override;
  void FetchChains(uint64_t ticket, std::vector<TurnsOf> turns) override;
  void ErasePages(uint64_t ticket, std::vector<uint64_t> chain_hashes) override;
  void Delete(uint64_t ticket,
              std::vector<std::pair<uint64_t, std::string>> conversations) override;
  void BackUp(UniqueFd to, bool kv) override;
  std::vector<PersistenceAnswer> TakeAnswers() override;
  int fd() const override { return event_.get(); }
  void Wait(int64_t timeout_ms) override;

 private:
  struct Unsaved {
    snapshot::TurnOwner owner;
    snapshot::StoredTurn turn;
    size_t bytes = 0;
  };
  // When a file is to be scrubbed: some time after the last deletion, but not too long after the
  // first.
  class Due {
   public:
    void Set(int64_t now_ms);
    bool IsDue(bool needs_scrub, int64_t now_ms);
    void Retry(int64_t now_ms);

   private:
    int64_t at_ms_ = 0, latest_ms_ = 0;  // 0: nothing was deleted
  };
  explicit DiskPersistence(const Options& options);
  void Answer(PersistenceAnswer answer);

  // On the turns' thread.
  Status EnsureOpen();
  Result<snapshot::StoredConversation> Commit(const Unsaved& unsaved);
  bool SaveUnsaved();
  void NoteTurns(const Status& status);
  void IdleTurns();
  // On the pages' thread.
  void NotePages(const Status& status);
  void ReopenPages();
  void EraseWaiting();
  // All at once; where one of them is wrong, one by one. The answer gets what is stored and
  // refused.
  Status WritePages(std::vector<PageToKeep>* pages, PagesKept* answer);
  void IdlePages();

  const Options options_;
  UniqueFd event_;
  std::mutex mutex_;
  std::vector<PersistenceAnswer> answers_;

  std::unique_ptr<snapshot::TurnFile> turns_;  // null after it has broken, until it opens again
  std::deque<Unsaved> unsaved_;
  size_t unsaved_bytes_ = 0;
  std::string turns_trouble_;
  bool turns_dirty_ = false;
  int64_t retry_turns_ms_ = 0;

  std::unique_ptr<snapshot::KvFile> pages_;  // null after it has broken, until it opens again
  std::string pages_trouble_;
  bool pages_dirty_ = false;
  int64_t retry_pages_ms_ = 0;
  bool has_to_erase_ = false;
  std::unordered_set<uint64_t> to_erase_;  // pages that the disk has refused to forget
  Due scrub_turns_, scrub_pages_;

  std::unique_ptr<JobThread> turn_thread_, page_thread_;  // they use all above
  std::unique_ptr<DiskBackup> backup_;                    // the last: it uses both
};

}  // namespace perdure::worker
