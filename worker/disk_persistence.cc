#include "worker/disk_persistence.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <span>
#include <system_error>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/masked.h"
#include "base/private_folder.h"
#include "snapshot/guarded.h"

namespace perdure::worker {

using snapshot::KvFile;
using snapshot::StoredConversation;
using snapshot::StoredPage;
using snapshot::StoredTurn;
using snapshot::TurnFile;
using snapshot::TurnOwner;

namespace {

TurnFile::Options TurnOptions(const DiskPersistence::Options& options) {
  return {.file = options.dir / "turns.mdb",
          .model = options.model,
          .bytes_max = options.turns_bytes_max,
          .sync = options.sync,
          .lock_wait_ms = options.lock_wait_ms};
}

KvFile::Options KvOptions(const DiskPersistence::Options& options) {
  return {.file = options.dir / "kv.mdb",
          .model = options.model,
          .bytes_max = options.kv_bytes_max,
          .sync = options.sync,
          .compression = options.kv_compression,
          .lock_wait_ms = options.lock_wait_ms};
}

size_t BytesOf(const StoredTurn& turn) {
  size_t bytes = sizeof turn + turn.ids.size() * (sizeof(TokenId) + 1);
  for (const std::string& message : turn.messages) bytes += message.size() + sizeof(uint64_t);
  return bytes;
}

void LogProblems(const std::vector<std::string>& problems) {
  for (const std::string& problem : problems) LogWarning("{}", problem);
}

}  // namespace

DiskPersistence::DiskPersistence(const Options& options)
    : options_(options), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Result<DiskPersistence::Opened> DiskPersistence::Open(const Options& options) {
  RETURN_IF_ERROR(PrepareFolder(options.dir, "the folder of conversations"));
  snapshot::InstallGuard();
  Opened opened;
  opened.persistence.reset(new DiskPersistence(options));
  DiskPersistence& self = *opened.persistence;
  if (!self.event_) return ErrFromErrno("eventfd");
  ASSIGN_OR_RETURN(self.turns_, TurnFile::Open(TurnOptions(options)));
  ASSIGN_OR_RETURN(self.pages_, KvFile::Open(KvOptions(options)));
  LogProblems(self.turns_->problems());
  LogProblems(self.pages_->problems());
  opened.conversations = self.turns_->TakeConversations();
  opened.pages = self.pages_->TakePages();
  self.turn_thread_ = std::make_unique<JobThread>("turns", false, limits::kPersistencePeriodMs,
                                                  [&self] { self.IdleTurns(); });
  self.page_thread_ = std::make_unique<JobThread>("pages", true, limits::kPersistencePeriodMs,
                                                  [&self] { self.IdlePages(); });
  return opened;
}

DiskPersistence::~DiskPersistence() {
  backup_.reset();
  turn_thread_.reset();
  page_thread_.reset();
}

// --- Answers -----------------------------------------------------------------------------------

void DiskPersistence::Answer(PersistenceAnswer answer) {
  const std::lock_guard lock(mutex_);
  answers_.push_back(std::move(answer));
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof one);
}

std::vector<PersistenceAnswer> DiskPersistence::TakeAnswers() {
  const std::lock_guard lock(mutex_);
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(event_.get(), &count, sizeof count);
  return std::exchange(answers_, {});
}

void DiskPersistence::Wait(int64_t timeout_ms) {
  const int64_t end_ms = MonotonicMs() + timeout_ms;
  turn_thread_->WaitIdle(timeout_ms);
  page_thread_->WaitIdle(std::max<int64_t>(0, end_ms - MonotonicMs()));
}

// --- Turns -------------------------------------------------------------------------------------

// Says once that it has begun to fail, and once that it works again.
void DiskPersistence::NoteTurns(const Status& status) {
  const std::string trouble = status ? "" : status.error().message;
  if (turns_ && turns_->environment().is_broken()) turns_.reset();
  if (trouble == turns_trouble_) return;
  if (trouble.empty())
    LogInfo("conversations of {} are stored again", options_.model);
  else
    LogError("conversations of {} are not stored, and kept in memory alone: {}", options_.model,
             trouble);
  turns_trouble_ = trouble;
}

// Again, after it has broken.
Status DiskPersistence::EnsureOpen() {
  if (turns_) return {};
  ASSIGN_OR_RETURN(turns_, TurnFile::Open(TurnOptions(options_)));
  LogProblems(turns_->problems());
  return {};
}

Result<StoredConversation> DiskPersistence::Commit(const Unsaved& unsaved) {
  RETURN_IF_ERROR(EnsureOpen());
  auto stored = turns_->Commit(unsaved.owner, unsaved.turn);
  turns_dirty_ = turns_dirty_ || stored.has_value();
  return stored;
}

// In the order in which they ended; false: some are left.
bool DiskPersistence::SaveUnsaved() {
  while (!unsaved_.empty()) {
    const Unsaved& first = unsaved_.front();
    auto stored = Commit(first);
    // What is not the disk's fault would not go away, and keep all later ones waiting.
    const bool is_disk =
        !stored && stored.error().code != ErrorCode::invalid_request &&
        (!turns_ || turns_->environment().is_broken() ||
         turns_->environment().last_failure() != snapshot::Environment::Failure::kNone);
    if (!stored && !is_disk) {
      LogError("a turn of conversation {} is not stored: {}", Masked(first.owner.id),
               stored.error().message);
      Answer(TurnKept{first.turn.rid, first.turn.choice, std::nullopt});
      unsaved_bytes_ -= first.bytes;
      unsaved_.pop_front();
      continue;
    }
    NoteTurns(stored ? Status() : Status(Err(stored.error())));
    if (!stored) {
      retry_turns_ms_ = MonotonicMs() + limits::kPersistenceRetryMs;
      return false;
    }
    Answer(TurnKept{first.turn.rid, first.turn.choice, std::move(*stored)});
    unsaved_bytes_ -= first.bytes;
    unsaved_.pop_front();
  }
  return true;
}

void DiskPersistence::KeepTurn(TurnOwner owner, StoredTurn turn) {
  auto job = std::make_shared<Unsaved>();
  job->bytes = BytesOf(turn);
  job->owner = std::move(owner);
  job->turn = std::move(turn);
  turn_thread_->Post([this, job] {
    unsaved_bytes_ += job->bytes;
    unsaved_.push_back(std::move(*job));
    const uint64_t rid = unsaved_.back().turn.rid;
    const uint32_t choice = unsaved_.back().turn.choice;
    if ((unsaved_.size() == 1 || MonotonicMs() >= retry_turns_ms_) && SaveUnsaved()) return;
    Answer(TurnKept{rid, choice, std::nullopt});
    while (unsaved_bytes_ > limits::kUnsavedTurnsBytesMax) {
      LogError("a turn of conversation {} is not stored: too many wait for the disk",
               Masked(unsaved_.front().owner.id));
      unsaved_bytes_ -= unsaved_.front().bytes;
      unsaved_.pop_front();
    }
  });
}

void DiskPersistence::IdleTurns() {
  if (!unsaved_.empty() && MonotonicMs() >= retry_turns_ms_) SaveUnsaved();
  if (turns_dirty_ && !options_.sync && turns_)
    if (const Status status = turns_->environment().Sync(); !status) NoteTurns(status);
  turns_dirty_ = false;
  if (!turns_ || !scrub_turns_.IsDue(turns_->environment().needs_scrub(), MonotonicMs())) return;
  const Status status = turns_->Compact();
  if (status) return;
  scrub_turns_.Retry(MonotonicMs());
  LogError("what was deleted may still stand in the file of conversations: {}",
           status.error().message);
  if (turns_->environment().is_broken()) NoteTurns(status);
}

void DiskPersistence::Manage(uint64_t rid, Job job) {
  turn_thread_->Post([this, rid, job = std::move(job)] {
    Managed managed;
    if (const Status open = EnsureOpen(); open) {
      managed = job(*turns_);
      if (turns_->environment().is_broken()) turns_.reset();
    } else {
      managed.answer.error_code = static_cast<uint16_t>(ErrorCode::io_error);
      managed.answer.text = "conversations cannot be read at the moment: " + open.error().message;
    }
    managed.answer.rid = rid;
    Answer(std::move(managed));
  });
}

void DiskPersistence::FetchTurn(uint64_t ticket, uint64_t owner, const std::string& id) {
  turn_thread_->Post([this, ticket, owner, id] {
    TurnFetched answer{ticket, std::nullopt};
    if (EnsureOpen()) {
      auto turn = turns_->Load(owner, id);
      if (turn) {
        answer.turn = std::move(*turn);
      } else {
        answer.is_gone = turn.error().code == ErrorCode::not_found;
        LogWarning("conversation {} cannot be read, and begins anew: {}", Masked(id),
                   turn.error().message);
        if (turns_->environment().is_broken()) turns_.reset();
      }
    }
    Answer(std::move(answer));
  });
}

void DiskPersistence::FetchChains(uint64_t ticket, std::vector<TurnsOf> turns) {
  turn_thread_->Post([this, ticket, turns = std::move(turns)] {
    ChainsFetched answer{ticket, {}};
    size_t tokens = 0;
    for (const TurnsOf& each : turns) {
      ChainsFetched::OfOne& of_it = answer.conversations.emplace_back();
      if (!EnsureOpen()) continue;
      auto read = turns_->ReadChains(each.owner, each.id, each.from, each.to,
                                     limits::kChainTokensRead - tokens);
      if (read) {
        of_it = {std::move(read->chains), read->next};
      } else if (turns_->environment().is_broken()) {
        turns_.reset();
      }
      for (const snapshot::TurnChain& chain : of_it.chains) tokens += chain.ids.size();
      if (of_it.next != 0 || tokens >= limits::kChainTokensRead) break;
    }
    Answer(std::move(answer));
  });
}

void DiskPersistence::Delete(uint64_t ticket,
                             std::vector<std::pair<uint64_t, std::string>> conversations) {
  turn_thread_->Post([this, ticket, conversations = std::move(conversations)] {
    ConversationsDeleted answer;
    answer.ticket = ticket;
    const auto remove = [this](auto some) -> Status {
      RETURN_IF_ERROR(EnsureOpen());
      Status status = turns_->Delete(some);
      if (status) scrub_turns_.Set(MonotonicMs());
      if (turns_->environment().is_broken()) turns_.reset();
      return status;
    };
    const std::span all(conversations);
    if (remove(all)) {
      answer.removed = conversations;
    } else {
      for (size_t i = 0; i < all.size(); ++i) {
        const Status status = remove(all.subspan(i, 1));
        (status ? answer.removed : answer.kept).push_back(all[i]);
        if (!status && answer.why.empty()) answer.why = status.error().message;
      }
    }
    // What waits for the disk is deleted too.
    const std::set<std::pair<uint64_t, std::string>> removed(answer.removed.begin(),
                                                             answer.removed.end());
    std::erase_if(unsaved_, [&](const Unsaved& each) {
      const bool is_removed = removed.contains({each.owner.owner, each.owner.id});
      if (is_removed) unsaved_bytes_ -= each.bytes;
      return is_removed;
    });
    Answer(std::move(answer));
  });
}

// --- Pages -------------------------------------------------------------------------------------

void DiskPersistence::NotePages(const Status& status) {
  const std::string trouble = status ? "" : status.error().message;
  if (pages_ && pages_->environment().is_broken()) {
    pages_.reset();
    retry_pages_ms_ = MonotonicMs() + limits::kPersistenceRetryMs;
  }
  if (trouble == pages_trouble_) return;
  if (trouble.empty())
    LogInfo("KV pages of {} are stored again", options_.model);
  else
    LogError("KV pages of {} are not stored, so conversations are computed again: {}",
             options_.model, trouble);
  pages_trouble_ = trouble;
}

// Again, some time after it has broken. What is to be erased nobody learns of.
void DiskPersistence::ReopenPages() {
  if (pages_ || MonotonicMs() < retry_pages_ms_) return;
  retry_pages_ms_ = MonotonicMs() + limits::kPersistenceRetryMs;
  auto opened = KvFile::Open(KvOptions(options_));
  if (!opened) return NotePages(Err(opened.error()));
  pages_ = std::move(*opened);
  LogProblems(pages_->problems());
  PagesReopened answer{pages_->TakePages()};
  std::erase_if(answer.pages,
                [this](const StoredPage& page) { return to_erase_.contains(page.chain_hash); });
  NotePages({});
  Answer(std::move(answer));
}

void DiskPersistence::ErasePages(uint64_t ticket, std::vector<uint64_t> chain_hashes) {
  const auto post = [this](std::span<const uint64_t> some) {
    page_thread_->Post([this, hashes = std::vector<uint64_t>(some.begin(), some.end())] {
      to_erase_.insert(hashes.begin(), hashes.end());
      has_to_erase_ = true;
      EraseWaiting();
    });
  };
  // Also where there are none: older states of the file may have had some.
  std::span<const uint64_t> rest = chain_hashes;
  do {
    const size_t count = std::min(rest.size(), limits::kSnapshotDropsAtOnce);
    post(rest.first(count));
    rest = rest.subspan(count);
  } while (!rest.empty());
  page_thread_->Post([this, ticket] { Answer(PagesErased{ticket}); });
}

// What is left is tried again.
void DiskPersistence::EraseWaiting() {
  while (pages_ && has_to_erase_) {
    std::vector<uint64_t> some;
    for (const uint64_t hash : to_erase_) {
      if (some.size() == limits::kSnapshotDropsAtOnce) break;
      some.push_back(hash);
    }
    const Status status = pages_->Erase(some);
    if (!status) {
      retry_pages_ms_ = MonotonicMs() + limits::kPersistenceRetryMs;
      return NotePages(status);
    }
    for (const uint64_t hash : some) to_erase_.erase(hash);
    has_to_erase_ = !to_erase_.empty();
    pages_dirty_ = true;
    scrub_pages_.Set(MonotonicMs());
  }
}

void DiskPersistence::FetchPages(uint64_t ticket, std::vector<PageToFetch> pages) {
  // One job each: what is more urgent comes between.
  for (PageToFetch& fetch : pages) {
    page_thread_->Post([this, ticket, fetch = std::move(fetch)] {
      PageFetched answer{ticket, fetch.page.chain_hash, fetch.place, fetch.page.data_checksum};
      if (pages_) {
        const Status status = pages_->Read(fetch.page, fetch.to);
        answer.is_read = status.has_value();
        if (!status)
          LogWarning("a stored page of KV is computed again: {}", status.error().message);
        if (pages_->environment().is_broken()) NotePages(status);
      }
      Answer(std::move(answer));
    });
  }
}

Status DiskPersistence::WritePages(std::vector<PageToKeep>* pages, PagesKept* answer) {
  const auto is_disk = [this] {
    return pages_->environment().is_broken() ||
           pages_->environment().last_failure() != snapshot::Environment::Failure::kNone;
  };
  std::vector<snapshot::PageToWrite> writes;
  for (const PageToKeep& page : *pages) writes.push_back({page.page, page.data});
  const Status all = pages_->Write(writes, &answer->pages);
  if (!all && is_disk()) return all;
  for (size_t i = 0; !all && i < pages->size(); ++i) {
    const Status one = pages_->Write(std::span(writes).subspan(i, 1), &answer->pages);
    if (one) continue;
    if (is_disk()) return one;
    LogWarning("{}", one.error().message);
    answer->refused.push_back(writes[i].page.chain_hash);
    std::erase(answer->chain_hashes, answer->refused.back());
  }
  for (const StoredPage& page : answer->pages) to_erase_.erase(page.chain_hash);
  return {};
}

void DiskPersistence::KeepPages(std::vector<PageToKeep> pages, std::vector<uint64_t> superseded) {
  auto job = std::make_shared<std::vector<PageToKeep>>(std::move(pages));
  page_thread_->Post([this, job, superseded = std::move(superseded)] {
    PagesKept answer;
    for (const PageToKeep& page : *job) {
      answer.bytes += page.data.size();
      answer.chain_hashes.push_back(page.page.chain_hash);
    }
    if (pages_) {
      Status status = WritePages(job.get(), &answer);
      if (status && answer.refused.empty() && !superseded.empty())
        status = pages_->Delete(superseded);
      pages_dirty_ = pages_dirty_ || status.has_value();
      NotePages(status);
      if (!status)
        answer.pages.clear();
      else if (answer.refused.empty())
        answer.superseded = superseded;
    }
    Answer(std::move(answer));
  });
}

void DiskPersistence::TouchPages(std::vector<std::pair<uint64_t, uint32_t>> used_unix_s) {
  page_thread_->Post([this, used = std::move(used_unix_s)] {
    if (pages_) NotePages(pages_->Touch(used));
  });
}

void DiskPersistence::DropPages(std::vector<uint64_t> chain_hashes) {
  page_thread_->Post([this, dropped = std::move(chain_hashes)] {
    if (pages_) NotePages(pages_->Delete(dropped));
  });
}

void DiskPersistence::WithPages(uint64_t ticket, PageJob job) {
  page_thread_->Post([this, ticket, job = std::move(job)] {
    const bool is_done = job(pages_.get());
    pages_dirty_ = true;
    if (pages_ && pages_->environment().is_broken())
      NotePages(Err(ErrorCode::io_error, "the file of pages cannot be used any more"));
    if (!is_done) return WithPages(ticket, job);
    Answer(FileStepDone{ticket});
  });
}

void DiskPersistence::IdlePages() {
  const int64_t now_ms = MonotonicMs();
  ReopenPages();
  if (has_to_erase_ && now_ms >= retry_pages_ms_) EraseWaiting();
  if (pages_dirty_ && !options_.sync && pages_)
    if (const Status status = pages_->environment().Sync(); !status) NotePages(status);
  pages_dirty_ = false;
  if (!pages_ || !scrub_pages_.IsDue(pages_->environment().needs_scrub(), now_ms)) return;
  const Status status = pages_->Compact();
  if (status) return;
  scrub_pages_.Retry(MonotonicMs());
  LogError("what was deleted may still stand in the file of pages: {}", status.error().message);
  if (pages_->environment().is_broken()) NotePages(status);
}

// --- Scrubbing ---------------------------------------------------------------------------------

void DiskPersistence::Due::Set(int64_t now_ms) {
  if (at_ms_ == 0) latest_ms_ = now_ms + limits::kScrubFilesDelayMaxMs;
  at_ms_ = std::min(now_ms + limits::kScrubFilesDelayMs, latest_ms_);
}

bool DiskPersistence::Due::IsDue(bool needs_scrub, int64_t now_ms) {
  if (!needs_scrub) at_ms_ = 0;
  if (needs_scrub && at_ms_ == 0) Set(now_ms);
  return at_ms_ != 0 && now_ms >= at_ms_;
}

void DiskPersistence::Due::Retry(int64_t now_ms) {
  at_ms_ = latest_ms_ = now_ms + limits::kScrubRetryMs;
}

// --- Backups -----------------------------------------------------------------------------------

void DiskPersistence::BackUp(UniqueFd to, bool kv) {
  if (backup_ && !backup_->is_done())
    return RefuseBackup(to, "another backup of this model is under way: wait for its end");
  // A file that was allowed to be larger once may be.
  const auto bytes_max = [](const std::filesystem::path& file, uint64_t allowed) {
    std::error_code error;
    const uint64_t bytes = std::filesystem::file_size(file, error);
    return error ? allowed : std::max(bytes, allowed);
  };
  std::vector<DiskBackup::File> files;
  const std::filesystem::path turns_file = TurnOptions(options_).file;
  files.push_back({.name = turns_file.filename().string(),
                   .thread = turn_thread_.get(),
                   .environment = [this]() -> Result<snapshot::Environment*> {
                     RETURN_IF_ERROR(EnsureOpen());
                     return &turns_->environment();
                   },
                   .bytes_max = bytes_max(turns_file, options_.turns_bytes_max)});
  const std::filesystem::path pages_file = KvOptions(options_).file;
  if (kv)
    files.push_back({.name = pages_file.filename().string(),
                     .thread = page_thread_.get(),
                     .environment = [this]() -> Result<snapshot::Environment*> {
                       if (!pages_) return Err(ErrorCode::io_error, pages_trouble_);
                       return &pages_->environment();
                     },
                     .bytes_max = bytes_max(pages_file, options_.kv_bytes_max),
                     .may_be_skipped = true});
  backup_.reset();  // the one before ends first
  backup_ = std::make_unique<DiskBackup>(std::move(files), std::move(to));
}

}  // namespace perdure::worker
