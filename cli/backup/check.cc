#include "cli/backup/check.h"

#include <fmt/format.h>

#include <set>
#include <string>
#include <utility>

#include "base/file.h"
#include "base/limits.h"
#include "cli/backup/content.h"
#include "cli/backup/files.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;

tl::unexpected<Error> Damaged(const fs::path& file, std::string_view why) {
  return Err(ErrorCode::io_error,
             fmt::format("the backup is damaged: {} {}; take another backup", file.string(), why));
}

Status CheckNames(const fs::path& folder, const Manifest& manifest) {
  auto found = FilesBelow(folder);
  if (!found) return Err(std::move(found).error());
  std::set<std::string> missing;
  for (const BackupFile& file : manifest.files) missing.insert(file.path);
  for (const fs::path& file : *found)
    if (file != kManifestName && missing.erase(file.string()) == 0)
      return Damaged(folder / file, fmt::format("is not in its {}", kManifestName));
  if (!missing.empty()) return Damaged(folder / *missing.begin(), "is missing");
  return {};
}

Status CheckContent(const fs::path& path, const BackupFile& file) {
  auto content = ReadContent(path, file.kind, file.model);
  if (!content) {
    // Of a newer version, say: that is no damage.
    if (content.error().code == ErrorCode::unsupported) return Err(std::move(content).error());
    return Damaged(path, fmt::format("cannot be read: {}", content.error().message));
  }
  if (!content->problems.empty()) return Damaged(path, "has damage: " + content->problems[0]);
  if (content->conversations != file.conversations || content->turns != file.turns ||
      content->pages != file.pages)
    return Damaged(path, fmt::format("has {} conversations, {} turns and {} pages, not {}, {} and "
                                     "{}",
                                     content->conversations, content->turns, content->pages,
                                     file.conversations, file.turns, file.pages));
  return {};
}

}  // namespace

Result<Manifest> CheckBackup(const fs::path& folder) {
  const fs::path path = folder / kManifestName;
  std::error_code error;
  if (!fs::exists(path, error))
    return Err(ErrorCode::not_found, fmt::format("{} is no backup: there is no {} in it",
                                                 folder.string(), kManifestName));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, limits::kBackupManifestBytesMax));
  ASSIGN_OR_RETURN(Manifest manifest, ParseManifest(text, path.string()));
  RETURN_IF_ERROR(CheckNames(folder, manifest));
  for (const BackupFile& file : manifest.files) {
    ASSIGN_OR_RETURN(const FileSum sum, SumOf(folder / file.path));
    if (sum.bytes != file.bytes)
      return Damaged(folder / file.path,
                     fmt::format("has {} bytes, not {}", sum.bytes, file.bytes));
    if (sum.checksum != file.checksum)
      return Damaged(folder / file.path, "has another checksum than when it was made");
  }
  for (const BackupFile& file : manifest.files)
    if (file.kind != BackupKind::kSaved) RETURN_IF_ERROR(CheckContent(folder / file.path, file));
  return manifest;
}

}  // namespace perdure::cli
