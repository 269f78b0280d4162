// A backup of what is stored, beside all else: the threads of the disk read a portion between two
// of their jobs, and a thread of its own sends it. What reads it may be slow; nothing else is then.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "snapshot/environment.h"
#include "worker/job_thread.h"

namespace perdure::worker {

class DiskBackup {
 public:
  struct File {
    std::string name;  // "turns.mdb"
    JobThread* thread = nullptr;
    // On that thread. The error says why it cannot be read.
    std::function<Result<snapshot::Environment*>()> environment;
    uint64_t bytes_max = 0;
    bool may_be_skipped = false;  // without it the backup is worth something, too
  };
  // Begins at once. `to`: see snapshot/backup_stream.h.
  DiskBackup(std::vector<File> files, UniqueFd to);
  // Ends it, complete or not. The threads of the files still live, and do their jobs.
  ~DiskBackup();
  DiskBackup(const DiskBackup&) = delete;
  DiskBackup& operator=(const DiskBackup&) = delete;

  bool is_done() const { return is_done_; }

 private:
  void Run();
  Status SendAll();
  Status SendFile(const File& file);
  // What the file's thread comes to.
  Result<snapshot::Portion> NextPortion(const File& file, bool is_first) const;

  const std::vector<File> files_;
  const UniqueFd to_;
  std::atomic<bool> ends_ = false, is_done_ = false;
  std::thread thread_;  // the last: it uses all above
};

// Says on `to` why there is no backup.
void RefuseBackup(const UniqueFd& to, const std::string& why);

}  // namespace perdure::worker
