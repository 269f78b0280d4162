// A conversation that is being taken from a file, on the pages' thread: first all of the file is
// read and checked, then its pages are written to the file of pages. Used in turns, as
// ConversationExport is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "engine/kv_view.h"
#include "snapshot/conversation_file.h"
#include "snapshot/kv_file.h"
#include "worker/conversation_json.h"
#include "worker/saved_folder.h"

namespace perdure::worker {

class ConversationImport {
 public:
  // Of the model that it is for.
  struct Model {
    int32_t vocab_size = 0;
    int max_context = 0;
    engine::KvShape kv;
    uint64_t fingerprint = 0, numerics = 0;
  };
  ConversationImport(UniqueFd file, const Model& model) : model_(model), fd_(std::move(file)) {}
  // One that was saved by name.
  ConversationImport(SavedFolder folder, std::string name, const Model& model)
      : model_(model), saved_(std::pair(std::move(folder), std::move(name))) {}

  // --- The generator's ---

  struct PageToImport {
    snapshot::ConversationFileReader::Page in_file;
    snapshot::StoredPage page;
  };
  const std::optional<Error>& error() const { return error_; }
  // After Verify, where there is no error.
  ImportedConversation& conversation() { return conversation_; }
  // In their order; empty where they are of no use, and then why.
  std::vector<snapshot::ConversationFileReader::Page>& pages() { return pages_; }
  uint32_t pages_in_file() const { return pages_in_file_; }
  const std::string& useless() const { return useless_; }
  // The next pages that are to be written.
  std::vector<PageToImport> batch;
  // Why it was not.
  const std::string& write_problem() const { return write_problem_; }

  // --- The pages' thread's: false, there is more to be done ---

  bool Verify();
  bool WriteBatch(snapshot::KvFile* file);

 private:
  Status VerifySome(bool* is_done);
  Status Begin();
  Status CheckPage(const snapshot::FilePageRecord& page);

  const Model model_;
  const std::optional<std::pair<SavedFolder, std::string>> saved_;
  UniqueFd fd_;
  std::optional<snapshot::ConversationFileReader> reader_;
  ImportedConversation conversation_;
  std::vector<snapshot::ConversationFileReader::Page> pages_;
  uint32_t pages_in_file_ = 0;
  std::string useless_, write_problem_;
  std::vector<std::byte> numbers_;
  std::optional<Error> error_;
};

}  // namespace perdure::worker
