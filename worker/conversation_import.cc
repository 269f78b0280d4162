#include "worker/conversation_import.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "engine/kv_page.h"
#include "worker/cache_schedule.h"

namespace perdure::worker {

using snapshot::ConversationFileReader;
using snapshot::FilePageRecord;

namespace {

tl::unexpected<Error> Wrong(std::string_view what) {
  return Err(ErrorCode::invalid_request,
             fmt::format("The file is no conversation that can be imported: {}.", what));
}

}  // namespace

Status ConversationImport::Begin() {
  if (saved_) {
    ASSIGN_OR_RETURN(fd_, saved_->first.Open(saved_->second));
  }
  reader_.emplace(fd_.get());
  RETURN_IF_ERROR(reader_->Begin());
  const snapshot::FileHeaderRecord& header = reader_->header();
  ASSIGN_OR_RETURN(conversation_, ParseConversation(reader_->TakeDocument(), model_.vocab_size,
                                                    model_.max_context));
  snapshot::StoredTurn& turn = conversation_.turn;
  turn.numerics = header.numerics;
  if (header.fingerprint != turn.fingerprint)
    return Wrong("its header names other weights than its document");
  if (header.tokens != turn.ids.size())
    return Wrong("its header has another number of tokens than its document");
  if (header.fingerprint != model_.fingerprint)
    useless_ = "the pages were computed with other weights than this model's";
  else if (header.numerics != model_.numerics)
    useless_ = "the pages were computed by other instructions than this machine uses";
  return {};
}

// That it is of this conversation, and as this model keeps it.
Status ConversationImport::CheckPage(const FilePageRecord& page) {
  const snapshot::StoredTurn& turn = conversation_.turn;
  const size_t begin = size_t{page.position} * engine::kPageTokens;
  // The last token is never computed.
  if (begin + page.tokens.size() + 1 > turn.ids.size() ||
      !std::equal(page.tokens.begin(), page.tokens.end(),
                  turn.ids.begin() + static_cast<ptrdiff_t>(begin)))
    return Wrong(fmt::format("page {} is of other tokens than the document's", page.position));
  if (!useless_.empty()) return {};
  const auto format = static_cast<shm::PageFormat>(page.format);
  if (format != FormatOf(turn.schedule, page.position) ||
      page.mask != MaskOf(turn.schedule, page.position)) {
    useless_ = "the pages are not kept as the conversation's cache says";
  } else if (page.data_bytes != model_.kv.PageBytes(PrecisionOf(format))) {
    useless_ = "the pages have another size than this model's";
  } else if (!engine::AreFinite(model_.kv, PrecisionOf(format), numbers_)) {
    return Wrong(fmt::format("page {} has numbers that are none", page.position));
  }
  return {};
}

Status ConversationImport::VerifySome(bool* is_done) {
  if (!reader_) RETURN_IF_ERROR(Begin());
  const uint64_t end = reader_->offset() + limits::kTransferStepBytes;
  while (reader_->offset() < end) {
    ASSIGN_OR_RETURN(auto page, reader_->Next(&numbers_));
    if (!page) {
      *is_done = true;
      if (!useless_.empty()) pages_.clear();
      return {};
    }
    ++pages_in_file_;
    RETURN_IF_ERROR(CheckPage(page->record));
    if (useless_.empty()) pages_.push_back(std::move(*page));
  }
  return {};
}

bool ConversationImport::Verify() {
  bool is_done = false;
  if (const Status status = VerifySome(&is_done); !status) {
    error_ = status.error();
    return true;
  }
  return is_done;
}

bool ConversationImport::WriteBatch(snapshot::KvFile* file) {
  write_problem_.clear();
  if (file == nullptr) {
    write_problem_ = "pages cannot be stored at the moment";
    return true;
  }
  std::vector<std::vector<std::byte>> numbers(batch.size());
  std::vector<snapshot::PageToWrite> writes;
  for (size_t i = 0; i < batch.size(); ++i) {
    if (const Status read = reader_->ReadNumbers(batch[i].in_file, &numbers[i]); !read) {
      write_problem_ = read.error().message;
      return true;
    }
    writes.push_back({batch[i].page, numbers[i]});
  }
  if (const Status written = file->Write(writes); !written)
    write_problem_ = written.error().message;
  return true;
}

}  // namespace perdure::worker
