// What a worker sends to who makes a backup: one file after another, in portions. Both ends know of
// each other's death by the end of the stream.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "snapshot/portion.h"

namespace perdure::snapshot {

// Both ends may be of different versions of the program.
inline constexpr uint32_t kBackupStreamVersion = 1;

enum class PartKind : uint8_t {
  kFile = 1,     // begins: text is its name, "turns.mdb"
  kPortion = 2,  // of the file that was begun
  kFileEnd = 3,
  kSkipped = 4,  // instead of the file's rest, which can be done without; text says why
  kDone = 5,     // the last part
  kFailed = 6,   // the last part; text says why
};

struct BackupPart {
  PartKind kind = PartKind::kDone;
  uint32_t version = kBackupStreamVersion;
  std::string text{};
  uint64_t bytes_max = 0;  // kFile: as large as it may become meanwhile
  std::vector<CopiedRecord> records{};
  auto Fields() { return std::tie(kind, version, text, bytes_max, records); }
};

// Waits for the other end, up to kBackupSilenceMs, and no longer than `ends` is false.
Status SendPart(int socket, const BackupPart& part, const std::atomic<bool>& ends);
// Waits likewise. worker_lost: the other end is gone.
Result<BackupPart> ReceivePart(int socket);

}  // namespace perdure::snapshot
