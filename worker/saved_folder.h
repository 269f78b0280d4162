// Conversations that a tenant has saved by name: a folder of files (snapshot/conversation_file.h).
// A name is percent-encoded; what is being written has another one, which no name is encoded to.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace perdure::worker {

struct SavedConversation {
  std::string name;
  uint64_t bytes = 0;
  int64_t saved_unix_ms = 0;
  std::string conversation;  // its id when it was saved
  uint32_t tokens = 0, pages = 0;
  bool is_readable = false;  // false: what stands above from `conversation` on is unknown
};

class SavedFolder {
 public:
  // `of_model`: has a folder for each tenant. Nothing is made yet.
  SavedFolder(const std::filesystem::path& of_model, uint64_t owner);

  // What may be written as `name`, in bytes, so that all of the tenant's take up to `bytes_max`.
  // invalid_request: there is one, and it is not to be replaced. insufficient_storage: there are
  // too many.
  Result<uint64_t> RoomFor(const std::string& name, bool overwrite, uint64_t bytes_max) const;

  // A file that is being written.
  struct Draft {
    UniqueFd fd;
    std::filesystem::path path;
  };
  // `number` is unique among those of this folder.
  Result<Draft> Begin(uint64_t number) const;
  // The draft, whole, is on the disk as `name`, or there is an error.
  Status Keep(const Draft& draft, const std::string& name) const;

  Result<UniqueFd> Open(const std::string& name) const;
  // By name.
  Result<std::vector<SavedConversation>> List() const;
  // not_found where there is none.
  Status Delete(const std::string& name) const;

 private:
  std::filesystem::path PathOf(const std::string& name) const;
  const std::filesystem::path folder_;
};

// Drafts that a crash has left, of all tenants. While nobody writes one.
void RemoveDrafts(const std::filesystem::path& of_model);

}  // namespace perdure::worker
