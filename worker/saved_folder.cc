#include "worker/saved_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <system_error>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/percent_encode.h"
#include "base/private_file.h"
#include "base/private_folder.h"
#include "snapshot/conversation_file.h"

namespace perdure::worker {
namespace {

namespace fs = std::filesystem;

// No percent-encoded text begins so.
constexpr std::string_view kDraft = "%draft-";

std::string FileNameOf(const std::string& name) {
  const bool is_dots = name.find_first_not_of('.') == std::string::npos;
  return PercentEncode(name, is_dots ? "" : ".");
}

std::optional<int> HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

// Nothing where FileNameOf does not make it.
std::optional<std::string> NameOf(const std::string& file_name) {
  std::string name;
  for (size_t i = 0; i < file_name.size(); ++i) {
    if (file_name[i] != '%') {
      name += file_name[i];
      continue;
    }
    if (i + 2 >= file_name.size()) return std::nullopt;
    const auto high = HexDigit(file_name[i + 1]), low = HexDigit(file_name[i + 2]);
    if (!high || !low) return std::nullopt;
    name += static_cast<char>(*high << 4 | *low);
    i += 2;
  }
  if (name.empty() || FileNameOf(name) != file_name) return std::nullopt;
  return name;
}

Result<std::vector<std::string>> NamesIn(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder, error); !error && it != fs::directory_iterator();
       it.increment(error))
    if (auto name = NameOf(it->path().filename().string())) names.push_back(std::move(*name));
  if (error && error != std::errc::no_such_file_or_directory)
    return Err(ErrorCode::io_error,
               fmt::format("cannot read the folder {}: {}", folder.string(), error.message()));
  std::ranges::sort(names);
  return names;
}

Status SyncFolder(const fs::path& folder) {
  const UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || fsync(fd.get()) != 0) return FileError(fmt::format("cannot sync {}", folder.string()));
  return {};
}

tl::unexpected<Error> NoSuch(const std::string& name) {
  return Err(ErrorCode::not_found, fmt::format("There is no saved conversation {}.", name), "name");
}

}  // namespace

SavedFolder::SavedFolder(const fs::path& of_model, uint64_t owner)
    : folder_(of_model / fmt::format("{:016x}", owner)) {}

fs::path SavedFolder::PathOf(const std::string& name) const { return folder_ / FileNameOf(name); }

Result<uint64_t> SavedFolder::RoomFor(const std::string& name, bool overwrite,
                                      uint64_t bytes_max) const {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, NamesIn(folder_));
  const bool is_there = std::ranges::binary_search(names, name);
  if (is_there && !overwrite)
    return Err(ErrorCode::invalid_request,
               fmt::format("There is a saved conversation {} already: choose another name, or say "
                           "\"overwrite\": true.",
                           name),
               "name");
  if (!is_there && names.size() >= limits::kSavedMax)
    return Err(
        ErrorCode::insufficient_storage,
        fmt::format("There are {} saved conversations, as many as there may be: delete some.",
                    names.size()));
  uint64_t bytes = 0;
  for (const std::string& each : names) {
    std::error_code error;
    const uint64_t size = fs::file_size(PathOf(each), error);
    if (!error && each != name) bytes += size;
  }
  return bytes_max - std::min(bytes_max, bytes);
}

Result<SavedFolder::Draft> SavedFolder::Begin(uint64_t number) const {
  RETURN_IF_ERROR(PrepareFolder(folder_, "the folder of saved conversations"));
  Draft draft;
  draft.path = folder_ / fmt::format("{}{:016x}", kDraft, number);
  ASSIGN_OR_RETURN(draft.fd, CreateFile(draft.path));
  return draft;
}

Status SavedFolder::Keep(const Draft& draft, const std::string& name) const {
  if (fsync(draft.fd.get()) != 0) return FileError("cannot sync the saved conversation");
  if (rename(draft.path.c_str(), PathOf(name).c_str()) != 0)
    return FileError("cannot name the saved conversation");
  return SyncFolder(folder_);
}

Result<UniqueFd> SavedFolder::Open(const std::string& name) const {
  UniqueFd fd(open(PathOf(name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd && errno == ENOENT) return NoSuch(name);
  if (!fd) return FileError(fmt::format("cannot open the saved conversation {}", name));
  return fd;
}

Result<std::vector<SavedConversation>> SavedFolder::List() const {
  ASSIGN_OR_RETURN(std::vector<std::string> names, NamesIn(folder_));
  std::vector<SavedConversation> saved;
  for (std::string& name : names) {
    const auto fd = Open(name);
    struct stat st {};
    if (!fd || fstat(fd->get(), &st) != 0) continue;  // deleted meanwhile
    SavedConversation each;
    each.name = std::move(name);
    each.bytes = static_cast<uint64_t>(st.st_size);
    each.saved_unix_ms = int64_t{st.st_mtim.tv_sec} * 1000 + st.st_mtim.tv_nsec / 1'000'000;
    if (auto summary = snapshot::ConversationFileReader::Summary(fd->get())) {
      each.conversation = std::move(summary->header.conversation);
      each.tokens = summary->header.tokens;
      each.pages = summary->pages;
      each.is_readable = true;
    }
    saved.push_back(std::move(each));
  }
  return saved;
}

Status SavedFolder::Delete(const std::string& name) const {
  if (unlink(PathOf(name).c_str()) != 0) {
    if (errno == ENOENT) return NoSuch(name);
    return FileError(fmt::format("cannot delete the saved conversation {}", name));
  }
  return SyncFolder(folder_);
}

void RemoveDrafts(const fs::path& of_model) {
  std::error_code error;
  for (auto it = fs::recursive_directory_iterator(of_model, error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (!it->path().filename().string().starts_with(kDraft)) continue;
    std::error_code ignored;
    if (fs::remove(it->path(), ignored))
      LogInfo("{} is removed: it was not saved whole", it->path().string());
  }
}

}  // namespace perdure::worker
