// Conversations on their way to files and from them. For generator*.cc alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "protocol/messages.h"
#include "worker/conversation_export.h"
#include "worker/conversation_import.h"
#include "worker/generator.h"

namespace perdure::worker {

struct Generator::Export {
  protocol::ConversationFileCommand command;
  snapshot::StoredConversation stored;
  std::shared_ptr<ConversationExport> file;
  std::vector<std::pair<PageIndex, uint64_t>> pages;  // in memory, if anywhere there; chain hash
  std::vector<uint32_t> positions;                    // of them
  size_t next = 0;
  bool is_busy = true;     // a job is under way
  bool is_ending = false;  // its last one is
};

struct Generator::Import {
  enum class Stage { kVerify, kCommit, kPages };
  uint64_t owner = 0;
  std::string id;  // as it was asked for, then as it is
  std::shared_ptr<ConversationImport> file;
  Stage stage = Stage::kVerify;
  snapshot::StoredConversation stored;
  std::vector<ConversationImport::PageToImport> pages;  // that are not stored yet
  size_t next = 0;
  uint32_t kept = 0;        // pages of the file that are stored now
  std::string reason;       // why not all of them
  bool is_deleted = false;  // since it is there
  bool is_awaited = true;   // by a client
};

struct Generator::Transfers {
  std::map<protocol::RequestId, Export> exports;
  std::map<protocol::RequestId, Import> imports;
  // What the pages' thread answers of what is saved.
  std::map<protocol::RequestId, std::shared_ptr<protocol::ConversationAnswer>> saved;
  size_t size() const { return exports.size() + imports.size() + saved.size(); }
};

}  // namespace perdure::worker
