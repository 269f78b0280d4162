#include "cli/backup/backup.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/file.h"
#include "base/percent_encode.h"
#include "base/private_folder.h"
#include "base/version.h"
#include "cli/backup/content.h"
#include "cli/backup/files.h"
#include "cli/backup/model_copy.h"
#include "cli/table.h"
#include "protocol/heritage.h"

namespace perdure::cli {
namespace {

namespace fs = std::filesystem;

// Those that have a folder of conversations, in order.
Result<std::vector<std::string>> ModelsIn(const fs::path& state_dir) {
  const fs::path folder = state_dir / "conversations";
  std::vector<std::string> models;
  std::error_code error;
  fs::directory_iterator it(folder, error);
  for (const fs::directory_iterator end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const auto model = PercentDecode(name);
    if (!it->is_directory() || it->is_symlink() || !model || PercentEncode(*model, ".") != name)
      continue;
    if (fs::exists(it->path() / "turns.mdb") || fs::exists(it->path() / "kv.mdb"))
      models.push_back(*model);
  }
  if (error && error != std::errc::no_such_file_or_directory)
    return Err(ErrorCode::io_error,
               fmt::format("cannot read the folder {}: {}", folder.string(), error.message()));
  std::ranges::sort(models);
  return models;
}

Result<std::vector<std::string>> ChosenModels(const fs::path& state_dir,
                                              const std::vector<std::string>& wanted) {
  ASSIGN_OR_RETURN(std::vector<std::string> models, ModelsIn(state_dir));
  for (const std::string& model : wanted)
    if (!std::ranges::binary_search(models, model))
      return Err(
          ErrorCode::not_found,
          fmt::format("there are no conversations of \"{}\" in {}; there are some of: {}", model,
                      state_dir.string(),
                      models.empty() ? "no model" : fmt::format("{}", fmt::join(models, ", "))));
  if (wanted.empty()) return models;
  std::erase_if(
      models, [&](const auto& model) { return std::ranges::find(wanted, model) == wanted.end(); });
  return models;
}

// Where the backup is made: beside its place, so that it gets there by being renamed.
struct Place {
  fs::path destination, partial;
};

bool IsWithin(const fs::path& path, const fs::path& folder) {
  const fs::path relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

Result<Place> FindPlace(const fs::path& state_dir, const std::string& named) {
  std::error_code error;
  fs::path destination = fs::absolute(named, error).lexically_normal();
  if (!destination.has_filename()) destination = destination.parent_path();
  for (const char* source : {"conversations", "saved"})
    if (IsWithin(destination, state_dir / source))
      return Err(
          ErrorCode::io_error,
          fmt::format("{} is within what is backed up: name another folder", destination.string()));
  struct stat st {
  }, above{};
  if (lstat(destination.c_str(), &st) == 0) {
    if (!IsEmptyFolder(destination) || S_ISLNK(st.st_mode))
      return Err(ErrorCode::io_error,
                 fmt::format("{} is there already: name a folder that does not exist, or an empty "
                             "one",
                             destination.string()));
    if (stat(destination.parent_path().c_str(), &above) == 0 && above.st_dev != st.st_dev)
      return Err(ErrorCode::io_error,
                 fmt::format("{} is the root of a file system: name a new folder below it",
                             destination.string()));
  }
  const fs::path partial = destination.string() + ".partial";
  if (lstat(partial.c_str(), &st) == 0)
    return Err(ErrorCode::io_error,
               fmt::format("{} is there already, of a backup that is under way or was ended: "
                           "remove it, or name another folder",
                           partial.string()));
  return Place{std::move(destination), partial};
}

class Maker {
 public:
  Maker(const fs::path& state_dir, const fs::path& runtime_dir, const BackupOptions& options,
        fs::path to)
      : state_dir_(state_dir), runtime_dir_(runtime_dir), options_(options), to_(std::move(to)) {}

  Result<BackupResult> Make(const std::vector<std::string>& models) {
    RETURN_IF_ERROR(MakeFolder(to_));
    result_.manifest.program = kVersion;
    result_.manifest.created_unix_ms = UnixMs();
    for (const std::string& model : models) RETURN_IF_ERROR(AddModel(model));
    if (options_.models.empty()) RETURN_IF_ERROR(AddSaved());
    RETURN_IF_ERROR(WriteFileAtomically(to_ / kManifestName, ManifestText(result_.manifest), 0600));
    RETURN_IF_ERROR(SyncFolders(to_));
    return std::move(result_);
  }

 private:
  Status AddModel(const std::string& model) {
    const fs::path folder = PathOf(BackupKind::kTurns, model).parent_path();
    ASSIGN_OR_RETURN(const std::string no_pages, CopyModel({.runtime_dir = runtime_dir_,
                                                            .from = state_dir_ / folder,
                                                            .to = to_ / folder,
                                                            .model = model,
                                                            .kv = options_.kv,
                                                            .wait_ms = options_.wait_ms}));
    if (!no_pages.empty())
      Warn(fmt::format("{}: its KV is not in the backup, and will be computed again: {}", model,
                       no_pages));
    for (const BackupKind kind : {BackupKind::kTurns, BackupKind::kKv})
      RETURN_IF_ERROR(AddFile(kind, model));
    return {};
  }

  // What was copied is read as a restore will read it.
  Status AddFile(BackupKind kind, const std::string& model) {
    BackupFile file;
    file.path = PathOf(kind, model).string();
    file.kind = kind;
    file.model = model;
    const fs::path path = to_ / file.path;
    if (!fs::exists(path)) return {};
    auto content = ReadContent(path, kind, model);
    if (content && !content->problems.empty()) {
      for (const std::string& problem : content->problems)
        Warn(fmt::format("{}: what is damaged is not in the backup: {}", model, problem));
      RETURN_IF_ERROR(RepairContent(path, kind, model));
      content = ReadContent(path, kind, model);
    }
    if (content && !content->problems.empty())
      return Err(ErrorCode::io_error,
                 fmt::format("the copy {} is damaged: {}", path.string(), content->problems[0]));
    if (!content) return Err(std::move(content).error());
    file.conversations = content->conversations;
    file.turns = content->turns;
    file.pages = content->pages;
    return Add(std::move(file));
  }

  Status AddSaved() {
    const fs::path saved = state_dir_ / "saved";
    if (!fs::exists(saved)) return {};
    ASSIGN_OR_RETURN(const auto files, FilesBelow(saved));
    for (const fs::path& each : files) {
      BackupFile file;
      file.path = (fs::path("saved") / each).string();
      if (Json::parse(DumpJson(file.path)) != Json(file.path))
        return Err(ErrorCode::unsupported,
                   fmt::format("the name {} is no UTF-8: rename it", (saved / each).string()));
      const auto copied = CopyWhole(saved / each, to_ / file.path);
      // Saved anew or deleted meanwhile.
      if (!copied && !fs::exists(saved / each)) {
        fs::remove(to_ / file.path);
        continue;
      }
      if (!copied) return Err(copied.error());
      RETURN_IF_ERROR(Add(std::move(file)));
    }
    return {};
  }

  Status Add(BackupFile file) {
    ASSIGN_OR_RETURN(const FileSum sum, SumOf(to_ / file.path));
    file.bytes = sum.bytes;
    file.checksum = sum.checksum;
    result_.manifest.files.push_back(std::move(file));
    return {};
  }

  void Warn(std::string text) { result_.warnings.push_back(std::move(text)); }

  const fs::path state_dir_, runtime_dir_;
  const BackupOptions& options_;
  const fs::path to_;
  BackupResult result_;
};

}  // namespace

Result<BackupResult> MakeBackup(const fs::path& state_dir, const fs::path& runtime_dir,
                                const BackupOptions& options) {
  RETURN_IF_ERROR(CheckFolder(state_dir, "state folder"));
  ASSIGN_OR_RETURN(const auto models, ChosenModels(state_dir, options.models));
  if (models.empty() && !fs::exists(state_dir / "saved"))
    return Err(ErrorCode::not_found,
               fmt::format("there are no conversations in {}: name the service's folder with "
                           "--state-dir",
                           state_dir.string()));
  ASSIGN_OR_RETURN(const Place place, FindPlace(state_dir, options.destination));
  auto made = Maker(state_dir, runtime_dir, options, place.partial).Make(models);
  if (made && rename(place.partial.c_str(), place.destination.c_str()) != 0)
    made = ErrFromErrno(
        fmt::format("cannot rename {} to {}", place.partial.string(), place.destination.string()));
  if (!made) {
    RemoveAll(place.partial);
    return made;
  }
  RETURN_IF_ERROR(SyncFolder(place.destination.parent_path()));
  return made;
}

std::string FormatManifest(const Manifest& manifest) {
  std::vector<std::vector<std::string>> rows{{"MODEL", "CONVERSATIONS", "TURNS", "PAGES", "BYTES"}};
  uint64_t saved = 0, saved_bytes = 0, bytes = 0;
  for (const BackupFile& file : manifest.files) {
    bytes += file.bytes;
    if (file.kind == BackupKind::kSaved) {
      ++saved;
      saved_bytes += file.bytes;
    } else if (file.kind == BackupKind::kTurns) {
      rows.push_back(
          {file.model, Grouped(file.conversations), Grouped(file.turns), "-", Bytes(file.bytes)});
    } else if (rows.back()[0] == file.model) {
      rows.back()[3] = fmt::format("{} in {}", Grouped(file.pages), Bytes(file.bytes));
    } else {
      rows.push_back({file.model, "-", "-", Grouped(file.pages), Bytes(file.bytes)});
    }
  }
  std::string text = rows.size() > 1 ? Table(rows) : std::string();
  if (saved > 0) text += fmt::format("{} saved files in {}\n", Grouped(saved), Bytes(saved_bytes));
  return text + fmt::format("{} files, {}\n", Grouped(manifest.files.size()), Bytes(bytes));
}

int RunBackup(const fs::path& state_dir, const fs::path& runtime_dir, const BackupOptions& options,
              bool json) {
  const auto made = MakeBackup(state_dir, runtime_dir, options);
  if (!made) {
    fmt::print(stderr, "perdure: no backup was made: {}\n", made.error().message);
    return protocol::kExitSystem;
  }
  for (const std::string& warning : made->warnings)
    fmt::print(stderr, "perdure: warning: {}\n", warning);
  if (json) {
    Json answer = ManifestJson(made->manifest);
    answer["folder"] = options.destination;
    answer["warnings"] = made->warnings;
    fmt::print("{}\n", DumpJson(answer));
  } else {
    fmt::print("{}backup of {}: {}\n", FormatManifest(made->manifest), state_dir.string(),
               options.destination);
  }
  return protocol::kExitOk;
}

}  // namespace perdure::cli
