#include "cli/backup/content.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstddef>
#include <memory>
#include <system_error>
#include <utility>

#include "base/limits.h"
#include "snapshot/kv_file.h"
#include "snapshot/turn_file.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;
using snapshot::KvFile;
using snapshot::TurnFile;

// Both have the same options. More room than there is: what is dropped takes some for a moment.
template <class Options>
Options OptionsOf(const fs::path& file, const std::string& model, bool read_only) {
  std::error_code error;
  const auto bytes = static_cast<uint64_t>(fs::file_size(file, error));
  return {.file = file,
          .model = model,
          .bytes_max = error ? limits::kSnapshotReserveBytes
                             : bytes + bytes / 2 + limits::kSnapshotReserveBytes,
          .sync = false,
          .read_only = read_only};
}

BackupContent ContentOf(TurnFile* file) {
  BackupContent content;
  for (const snapshot::StoredConversation& conversation : file->TakeConversations()) {
    ++content.conversations;
    content.turns += conversation.turns;
  }
  content.problems = file->problems();
  return content;
}

BackupContent ContentOf(KvFile* file) {
  BackupContent content;
  content.problems = file->problems();
  std::vector<std::byte> data;
  for (const snapshot::StoredPage& page : file->TakePages()) {
    data.resize(page.data_bytes);
    const Status read = file->Read(page, data);
    if (read)
      ++content.pages;
    else if (content.problems.size() < limits::kSnapshotProblemsShown)
      content.problems.push_back(read.error().message);
  }
  return content;
}

template <class File>
Result<BackupContent> Read(const fs::path& file, const std::string& model) {
  ASSIGN_OR_RETURN(const auto open,
                   File::Open(OptionsOf<typename File::Options>(file, model, true)));
  return ContentOf(open.get());
}

template <class File>
Status Repair(const fs::path& file, const std::string& model) {
  ASSIGN_OR_RETURN(const auto open,
                   File::Open(OptionsOf<typename File::Options>(file, model, false)));
  ContentOf(open.get());  // pages that are wrong go as they are read
  RETURN_IF_ERROR(open->Compact());
  RETURN_IF_ERROR(open->environment().Sync());
  unlink((file.string() + ".lock").c_str());
  return {};
}

}  // namespace

Result<BackupContent> ReadContent(const fs::path& file, BackupKind kind, const std::string& model) {
  return kind == BackupKind::kTurns ? Read<TurnFile>(file, model) : Read<KvFile>(file, model);
}

Status RepairContent(const fs::path& file, BackupKind kind, const std::string& model) {
  return kind == BackupKind::kTurns ? Repair<TurnFile>(file, model) : Repair<KvFile>(file, model);
}

}  // namespace perdure::cli
