// The copy of an environment, as its portions come (Environment::NextPortion). For one thread.
#pragma once

#include <lmdb.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "snapshot/portion.h"

namespace perdure::snapshot {

class CopyFile {
 public:
  // Begins a new file (0600). `bytes_max`: of the original, as it may become meanwhile.
  static Result<std::unique_ptr<CopyFile>> Begin(const std::filesystem::path& file,
                                                 uint64_t bytes_max);
  ~CopyFile();
  CopyFile(const CopyFile&) = delete;
  CopyFile& operator=(const CopyFile&) = delete;

  // After an error there is nothing left to do but to remove the file.
  Status Apply(const Portion& portion);
  // All of it is on the disk, and the file is closed. Its name is for the caller to sync.
  Status Finish();

 private:
  explicit CopyFile(std::filesystem::path file) : file_(std::move(file)) {}
  template <class Run>
  Status Call(Run run);
  Status Commit();

  const std::filesystem::path file_;
  MDB_env* env_ = nullptr;
  MDB_txn* txn_ = nullptr;
  std::map<std::string, MDB_dbi> databases_;
  uint64_t bytes_ = 0;  // since the last commit
  bool is_broken_ = false;
};

}  // namespace perdure::snapshot
