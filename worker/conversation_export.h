// A conversation that is being written to a file, on the pages' thread: unlinked, for a client, or
// saved by name. What is not kept goes with this object.
//
// The generator and the pages' thread use it in turns: the one fills `batch` and looks at what has
// become of it while no job is under way, the other does the job.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "engine/kv_view.h"
#include "snapshot/conversation_file.h"
#include "snapshot/kv_file.h"
#include "worker/persistence.h"
#include "worker/saved_folder.h"

namespace perdure::worker {

class ConversationExport {
 public:
  struct Saving {
    SavedFolder folder;
    std::string name;
    bool overwrite = false;
    uint64_t bytes_max = 0;  // of all that its tenant has saved
  };
  // Unlinked, below that folder.
  ConversationExport(std::filesystem::path folder, const engine::KvShape& kv)
      : kv_(kv), folder_(std::move(folder)) {}
  // `number`: of this export among all.
  ConversationExport(Saving saving, uint64_t number, const engine::KvShape& kv)
      : kv_(kv), saving_(std::move(saving)), number_(number) {}
  ~ConversationExport();
  ConversationExport(const ConversationExport&) = delete;
  ConversationExport& operator=(const ConversationExport&) = delete;

  // --- The generator's ---

  // The next pages, in order; those without data are read from the file of pages.
  std::vector<PageToKeep> batch;
  // A page could not be read: it, and those behind it, are left out.
  bool is_short() const { return is_short_; }
  const std::optional<Error>& error() const { return error_; }
  uint64_t bytes() const { return writer_ ? writer_->bytes() : 0; }
  uint32_t pages() const { return writer_ ? writer_->pages() : 0; }
  UniqueFd TakeFile() { return std::move(fd_); }

  // --- The pages' thread's: false, there is more to be done ---

  bool Begin(const snapshot::FileHeaderRecord& header, const std::string& document);
  bool WriteBatch(snapshot::KvFile* pages);
  bool End();

 private:
  Status Open();
  Status Add(PageToKeep* page);
  Status Finish();
  bool Note(const Status& status);

  const engine::KvShape kv_;
  const std::filesystem::path folder_;
  const std::optional<Saving> saving_;
  const uint64_t number_ = 0;
  UniqueFd fd_;
  std::filesystem::path draft_;  // empty: there is none
  uint64_t bytes_max_ = UINT64_MAX;
  std::optional<snapshot::ConversationFileWriter> writer_;
  size_t written_ = 0;  // of the batch
  bool is_short_ = false;
  std::optional<Error> error_;
};

}  // namespace perdure::worker
