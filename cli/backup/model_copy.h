// One model's conversations, copied to a backup: by this program while nobody uses them, else by
// the model's own process, which goes on serving.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/result.h"

namespace perdure::cli {

struct ModelCopyOptions {
  std::filesystem::path runtime_dir;  // of the service, if one runs
  std::filesystem::path from;         // the model's folder, turns.mdb in it
  std::filesystem::path to;           // a new folder
  std::string model;
  bool kv = false;
  int wait_ms = 0;  // for a process that has the files and does not hand them out
};

// Why there are no pages of KV in the copy, though they were wanted; empty: they are, or there are
// none. On success all is on the disk but the names.
Result<std::string> CopyModel(const ModelCopyOptions& options);

}  // namespace perdure::cli
