// backup.json: what a backup consists of. docs/backup.md has its members.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"

namespace perdure::cli {

inline constexpr std::string_view kManifestName = "backup.json";
// Of what this code writes; a reader knows all up to its own.
inline constexpr int64_t kManifestVersion = 1;

enum class BackupKind { kTurns, kKv, kSaved };

struct BackupFile {
  std::string path{};  // within the backup, and within a state folder
  BackupKind kind = BackupKind::kSaved;
  std::string model{};  // of kTurns and kKv
  uint64_t bytes = 0;
  uint64_t checksum = 0;  // XXH3, 64 bits
  // What was found in it.
  uint64_t conversations = 0, turns = 0;  // kTurns
  uint64_t pages = 0;                     // kKv
};

struct Manifest {
  std::string program;  // the version that made it
  int64_t created_unix_ms = 0;
  std::vector<BackupFile> files;
};

// "conversations/MODEL/turns.mdb", "conversations/MODEL/kv.mdb".
std::filesystem::path PathOf(BackupKind kind, std::string_view model);

Json ManifestJson(const Manifest& manifest);
// With a checksum of all of it.
std::string ManifestText(const Manifest& manifest);
// io_error where it is damaged or names what no backup has; unsupported where a newer version has
// made it. `what` names it.
Result<Manifest> ParseManifest(std::string_view text, std::string_view what);

}  // namespace perdure::cli
