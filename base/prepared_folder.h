// The folder of prepared files: who makes which, and how much of the disk they may take.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "base/limits.h"
#include "base/prepared_file.h"
#include "base/result.h"

namespace perdure {

struct PreparedFolder {
  std::filesystem::path dir;  // made (0700) where it does not exist; empty: nothing is prepared
  uint64_t bytes_max = 0;     // of all files; 0: half of what they and the free disk are together
  int wait_ms = limits::kPreparedWaitMs;  // for another process that writes, but does not get on
  // Smaller sources are not worth a file.
  uint64_t weights_bytes_min = limits::kPreparedWeightsBytesMin;
  uint64_t tokenizer_bytes_min = limits::kPreparedTokenizerBytesMin;
};

// The file `name` of the folder as `make` made it from what the fingerprint stands for: an earlier
// one if it is good, else a new one. Where another process is making it, it is waited for as long
// as its file grows; `alive` is called each time it has. Not found to be good: the log says why.
// Files of the longest ago last use make room for `bytes`, about what the new one takes; those that
// are in use stay. Errors: those of `make`, and io_error where no file can be written.
Result<PreparedFile> OpenOrPrepare(const PreparedFolder& folder, const std::string& name,
                                   uint64_t fingerprint, uint64_t bytes,
                                   const std::function<Status(PreparedWriter&)>& make,
                                   const std::function<void()>& alive);

// Removes what killed writers left, and files until all of them take at most bytes_max - `bytes`;
// `keep` stays.
void TrimPreparedFolder(const PreparedFolder& folder, uint64_t bytes, const std::string& keep);

// A number that changes with the file: its name, size, time of change and inode. Not with the
// folder it lies in. 0 where there is no such file.
uint64_t FileFingerprint(const std::filesystem::path& path);

// "<stem>-<hash of the folder's place>.<extension>": one file for each model folder, however it is
// reached.
std::string PreparedName(const std::filesystem::path& model_dir, std::string_view extension);

}  // namespace perdure
