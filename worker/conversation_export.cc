#include "worker/conversation_export.h"

#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/private_file.h"
#include "engine/kv_page.h"
#include "worker/cache_schedule.h"

namespace perdure::worker {

using snapshot::FilePageRecord;

ConversationExport::~ConversationExport() {
  if (!draft_.empty()) unlink(draft_.c_str());
}

// Where it has failed nothing more is done. True.
bool ConversationExport::Note(const Status& status) {
  if (!status && !error_) error_ = status.error();
  return true;
}

Status ConversationExport::Open() {
  if (!saving_) {
    ASSIGN_OR_RETURN(fd_, OpenUnlinkedFile(folder_));
    return {};
  }
  ASSIGN_OR_RETURN(bytes_max_,
                   saving_->folder.RoomFor(saving_->name, saving_->overwrite, saving_->bytes_max));
  ASSIGN_OR_RETURN(SavedFolder::Draft draft, saving_->folder.Begin(number_));
  fd_ = std::move(draft.fd);
  draft_ = std::move(draft.path);
  return {};
}

bool ConversationExport::Begin(const snapshot::FileHeaderRecord& header,
                               const std::string& document) {
  if (const Status opened = Open(); !opened) return Note(opened);
  writer_.emplace(fd_.get());
  return Note(writer_->Begin(header, document));
}

Status ConversationExport::Add(PageToKeep* page) {
  const snapshot::StoredPage& stored = page->page;
  const engine::KvPrecision precision = PrecisionOf(stored.key.format);
  FilePageRecord record;
  record.position = stored.position;
  record.format = static_cast<uint8_t>(stored.key.format);
  record.mask = stored.key.mask;
  record.tokens = stored.tokens;
  record.drawn = stored.drawn;
  record.data_bytes = stored.data_bytes;
  record.data_checksum = stored.data_checksum;
  if (stored.tokens.size() < engine::kPageTokens) {
    // What lies behind may be others'.
    engine::ClearBehind(kv_, precision, static_cast<int>(stored.tokens.size()), page->data);
    record.data_checksum = Hash64(page->data);
  }
  RETURN_IF_ERROR(writer_->Add(record, page->data));
  if (bytes() > bytes_max_)
    return Err(ErrorCode::insufficient_storage,
               fmt::format("All that you have saved may take {} bytes: delete some of it, or save "
                           "with \"kv\": false.",
                           saving_->bytes_max));
  return {};
}

bool ConversationExport::WriteBatch(snapshot::KvFile* pages) {
  for (size_t bytes = 0; written_ < batch.size() && !error_ && !is_short_; ++written_) {
    if (bytes >= limits::kTransferStepBytes) return false;
    PageToKeep& page = batch[written_];
    if (page.data.empty()) {
      Status read = Err(ErrorCode::io_error, "pages cannot be read at the moment");
      if (pages != nullptr) {
        page.data.resize(page.page.data_bytes);
        read = pages->Read(page.page, page.data);
      }
      if (read && page.data.size() != kv_.PageBytes(PrecisionOf(page.page.key.format)))
        read = Err(ErrorCode::io_error, "a page has another size than this model's");
      if (!read) {
        LogWarning("a conversation is exported without its last pages: {}", read.error().message);
        is_short_ = true;
        break;
      }
    }
    Note(Add(&page));
    bytes += page.data.size();
    page.data = {};
  }
  batch.clear();
  written_ = 0;
  return true;
}

Status ConversationExport::Finish() {
  RETURN_IF_ERROR(writer_->End());
  if (!saving_) return {};
  // Others may have saved meanwhile.
  ASSIGN_OR_RETURN(const uint64_t room,
                   saving_->folder.RoomFor(saving_->name, saving_->overwrite, saving_->bytes_max));
  if (bytes() > room)
    return Err(ErrorCode::insufficient_storage,
               fmt::format("All that you have saved may take {} bytes: delete some of it.",
                           saving_->bytes_max));
  SavedFolder::Draft draft{std::move(fd_), draft_};
  RETURN_IF_ERROR(saving_->folder.Keep(draft, saving_->name));
  draft_.clear();
  return {};
}

bool ConversationExport::End() { return error_ ? true : Note(Finish()); }

}  // namespace perdure::worker
