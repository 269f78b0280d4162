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
  // All of it is on the disk, without a trace of what has come and gone meanwhile, and the file is
  // closed. Its name is for the caller to sync.
  Status Finish();

 private:
  CopyFile(std::filesystem::path file, uint64_t map_bytes)
      : file_(std::move(file)), map_bytes_(map_bytes) {}
  template <class Run>
  Status Call(Run run);
  Status Commit();
  int OpenNew(const std::filesystem::path& file, MDB_env** env) const;
  Status Compact();

  const std::filesystem::path file_;
  const uint64_t map_bytes_;
  MDB_env* env_ = nullptr;
  MDB_txn* txn_ = nullptr;
  std::map<std::string, MDB_dbi> databases_;
  uint64_t bytes_ = 0;     // since the last commit
  bool has_free_ = false;  // pages that something was in
  bool is_broken_ = false;
};

}  // namespace perdure::snapshot
