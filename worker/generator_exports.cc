// Conversations that go to files: for a client, or saved by name.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/limits.h"
#include "shm/hashes.h"
#include "worker/cache_schedule.h"
#include "worker/conversation_json.h"
#include "worker/generator_state.h"
#include "worker/generator_transfers.h"

namespace perdure::worker {

using protocol::ConversationFileCommand;
using protocol::ConversationFileOperation;
using protocol::RequestId;
using snapshot::StoredPage;
using snapshot::StoredTurn;

namespace {

constexpr size_t kPage = engine::kPageTokens;

protocol::ConversationAnswer Failure(RequestId rid, const Error& error) {
  return {rid, static_cast<uint16_t>(error.code), error.message, error.param};
}

// From how many of its pages, those that are present before it, a conversation can be gone on with:
// all that is looked at from there on is.
size_t PagesToGoOnFrom(const CacheSchedule& schedule, size_t tokens,
                       const std::vector<bool>& present) {
  std::vector<size_t> missing(present.size() + 1);  // before each page
  for (size_t i = 0; i < present.size(); ++i) missing[i + 1] = missing[i] + (present[i] ? 0 : 1);
  for (size_t pages = present.size();; --pages) {
    const auto computed = static_cast<int>(std::min(pages * kPage, tokens));
    const NeededPages needed = NeededFrom(schedule, computed);
    const size_t first = std::min(needed.first, pages), from = std::min(needed.from, pages);
    if (missing[first] == 0 && missing[pages] == missing[from]) return pages;
  }
}

protocol::ConversationAnswer ListOf(RequestId rid, const SavedFolder& folder) {
  const auto saved = folder.List();
  if (!saved) return Failure(rid, saved.error());
  Json data = Json::array();
  for (const SavedConversation& each : *saved) {
    Json json = {{"name", each.name},
                 {"object", "saved_conversation"},
                 {"bytes", each.bytes},
                 {"saved_at", each.saved_unix_ms / 1000}};
    if (each.is_readable) {
      json["id"] = each.conversation;
      json["tokens"] = each.tokens;
      json["pages"] = each.pages;
    } else {
      json["damaged"] = true;
    }
    data.push_back(std::move(json));
  }
  return {rid, 0, DumpJson({{"object", "list"}, {"data", std::move(data)}}), {}};
}

protocol::ConversationAnswer DeleteOf(RequestId rid, const SavedFolder& folder,
                                      const std::string& name) {
  if (const Status deleted = folder.Delete(name); !deleted) return Failure(rid, deleted.error());
  return {rid,
          0,
          DumpJson({{"object", "saved_conversation.deleted"}, {"name", name}, {"deleted", true}}),
          {}};
}

}  // namespace

// --- What is asked for -------------------------------------------------------------------------

// Why it is not begun.
std::optional<Error> Generator::TransferRefusal() const {
  if (options_.persistence == nullptr)
    return Error{ErrorCode::unsupported,
                 "Conversations of this model are not stored: see [snapshots] and the log.",
                 {},
                 0};
  if (!admitting_) return Error{ErrorCode::shutting_down, "The model is being shut down.", {}, 5};
  if (transfers_->size() >= limits::kTransfersMax)
    return Error{ErrorCode::overloaded,
                 fmt::format("{} conversations are being written to files or read from them, as "
                             "many as there may be.",
                             transfers_->size()),
                 {},
                 1};
  return std::nullopt;
}

void Generator::Command(const ConversationFileCommand& command) {
  if (const auto refusal = TransferRefusal()) return sink_->Send(Failure(command.rid, *refusal));
  const auto whose = OwnerOf(command);
  if (!whose) return sink_->Send(Failure(command.rid, whose.error()));
  const uint64_t owner = *whose;
  switch (command.operation) {
    case ConversationFileOperation::kExport:
    case ConversationFileOperation::kSave:
      return StartExport(command, owner);
    case ConversationFileOperation::kLoad:
      return StartImport(command.rid, owner, command.id,
                         std::make_shared<ConversationImport>(
                             SavedFolder(options_.saved_dir, owner), command.name, ImportModel()));
    case ConversationFileOperation::kListSaved:
    case ConversationFileOperation::kDeleteSaved: {
      auto answer = std::make_shared<protocol::ConversationAnswer>();
      transfers_->saved[command.rid] = answer;
      return options_.persistence->WithPages(
          command.rid, [answer, command, folder = SavedFolder(options_.saved_dir, owner)](auto*) {
            *answer = command.operation == ConversationFileOperation::kListSaved
                          ? ListOf(command.rid, folder)
                          : DeleteOf(command.rid, folder, command.name);
            return true;
          });
    }
  }
  sink_->Send(Failure(command.rid, {ErrorCode::unsupported, "There is no such operation.", {}, 0}));
}

// --- Its turn ----------------------------------------------------------------------------------

void Generator::StartExport(const ConversationFileCommand& command, uint64_t owner) {
  const snapshot::StoredConversation* const stored = stored_.Find(owner, command.id);
  if (stored == nullptr)
    return sink_->Send(Failure(
        command.rid,
        {ErrorCode::not_found, fmt::format("There is no conversation {}.", command.id), "id", 0}));
  Export& it = transfers_->exports[command.rid];
  it.command = command;
  it.stored = *stored;
  const engine::KvShape& kv = model_->engine->info().kv;
  if (command.operation == ConversationFileOperation::kSave)
    it.file = std::make_shared<ConversationExport>(
        ConversationExport::Saving{SavedFolder(options_.saved_dir, owner), command.name,
                                   command.overwrite, options_.saved_bytes_max},
        command.rid, kv);
  else
    it.file = std::make_shared<ConversationExport>(options_.transfer_dir, kv);
  options_.persistence->Manage(command.rid, [of_it = *stored](snapshot::TurnFile& file) {
    Managed managed;
    auto loaded = file.Load(of_it.owner, of_it.id);
    auto turns = file.Turns(of_it.owner, of_it.id);
    if (!loaded || !turns) {
      managed.answer = Failure(0, loaded ? turns.error() : loaded.error());
      return managed;
    }
    managed.answer.text = DumpJson(ConversationJson(of_it, *loaded, *turns, true));
    managed.loaded = std::move(*loaded);
    return managed;
  });
}

// Which of its pages there are: all that it takes to go on from its end, or from the last page
// before that.
void Generator::PlanExport(const StoredTurn& turn, Export* it) {
  if (!it->command.kv || turn.ids.empty() || turn.fingerprint != options_.fingerprint ||
      turn.numerics != options_.numerics || !IsSound(turn.schedule))
    return;
  const auto computed = std::span(turn.ids).first(turn.ids.size() - 1);
  const size_t shared = SharedPages(turn.ids);
  const uint64_t owner = it->stored.owner;
  const auto key = [&](size_t page) { return KeyOf(turn.schedule, owner, shared, page); };
  const std::vector<PageIndex> path = store_->FindPath(computed, key);
  const Conversation* const known = conversations_.Get(owner, it->stored.id);
  std::vector<std::pair<PageIndex, uint64_t>> all;
  std::vector<bool> present;
  uint64_t hash = stored_pages_.root();
  for (size_t at = 0; at < computed.size(); at += kPage) {
    const auto tokens = computed.subspan(at, std::min(kPage, computed.size() - at));
    hash = shm::ChainHash(hash, key(all.size()), shm::TokensHash(tokens));
    PageIndex page = all.size() < path.size() ? path[all.size()] : shm::kNoPage;
    if (tokens.size() < kPage) {
      if (known != nullptr && known->tail != shm::kNoPage) page = known->tail;
      for (const auto& [waiting, of_it] : to_keep_)
        if (of_it == hash) page = waiting;
    }
    all.emplace_back(page, hash);
    present.push_back(IsInMemory(all.back()) || stored_pages_.Has(hash) || keeping_.contains(hash));
  }
  const size_t pages = PagesToGoOnFrom(turn.schedule, computed.size(), present);
  const size_t before = pages > 0 ? (pages - 1) * kPage : 0;
  const NeededPages needed = NeededFrom(turn.schedule, static_cast<int>(before));
  for (size_t i = 0; i < pages; ++i) {
    if (!needed.Has(i) || !present[i]) continue;
    it->pages.push_back(all[i]);
    it->positions.push_back(static_cast<uint32_t>(i));
  }
}

bool Generator::IsInMemory(const std::pair<PageIndex, uint64_t>& page) const {
  return page.first != shm::kNoPage && store_->IsCached(page.first, page.second) &&
         store_->is_loaded(page.first);
}

void Generator::BeginExport(RequestId rid, Managed managed) {
  Export& it = transfers_->exports.at(rid);
  if (managed.answer.error_code != 0) {
    managed.answer.rid = rid;
    transfers_->exports.erase(rid);
    return sink_->Send(managed.answer);
  }
  const StoredTurn& turn = *managed.loaded;
  PlanExport(turn, &it);
  snapshot::FileHeaderRecord header;
  header.created_unix_ms = options_.unix_ms();
  header.model = model_->name;
  header.conversation = it.stored.id;
  header.tokens = static_cast<uint32_t>(turn.ids.size());
  header.fingerprint = turn.fingerprint;
  header.numerics = turn.numerics;
  auto document = std::make_shared<std::string>(std::move(managed.answer.text));
  options_.persistence->WithPages(
      rid, [file = it.file, header, document](auto*) { return file->Begin(header, *document); });
}

// --- Its pages ---------------------------------------------------------------------------------

// Some of them, as far as their copies may take memory, or the end.
void Generator::ContinueExport(RequestId rid, Export* it) {
  std::vector<PageToKeep>& batch = it->file->batch;
  size_t bytes = 0;
  bool is_waiting = false;
  for (; it->next < it->pages.size() && bytes < limits::kTransferCopyBytes; ++it->next) {
    const auto& page = it->pages[it->next];
    std::vector<uint64_t> ignored;
    if (IsInMemory(page)) {
      if (auto copy = CopyToKeep(page.first, &ignored)) {
        bytes += copy->data.size();
        batch.push_back(std::move(*copy));
        continue;
      }
    }
    if (const StoredPage* stored = stored_pages_.Get(page.second)) {
      batch.push_back({*stored, {}});
    } else if (keeping_.contains(page.second)) {
      is_waiting = true;  // it is on its way to the disk
      break;
    } else {
      it->pages.resize(it->next);  // it is nowhere any more, and those behind it are of no use
    }
  }
  if (batch.empty() && is_waiting) return;
  it->is_busy = true;
  if (!batch.empty())
    return options_.persistence->WithPages(
        rid, [file = it->file](snapshot::KvFile* pages) { return file->WriteBatch(pages); });
  it->is_ending = true;
  options_.persistence->WithPages(rid, [file = it->file](auto*) { return file->End(); });
}

void Generator::OnExportStep(RequestId rid) {
  Export& it = transfers_->exports.at(rid);
  it.is_busy = false;
  ConversationExport& file = *it.file;
  if (file.error()) {
    const Error error = *file.error();
    transfers_->exports.erase(rid);
    return sink_->Send(Failure(rid, error));
  }
  if (file.is_short()) it.next = it.pages.size();
  if (!it.is_ending) return ContinueExport(rid, &it);
  const Export done = std::move(it);
  transfers_->exports.erase(rid);
  if (done.command.operation == ConversationFileOperation::kExport)
    return sink_->Send(protocol::ConversationFile{rid, done.stored.id, done.file->bytes()},
                       done.file->TakeFile());
  sink_->Send(protocol::ConversationAnswer{rid,
                                           0,
                                           DumpJson({{"object", "saved_conversation"},
                                                     {"name", done.command.name},
                                                     {"id", done.stored.id},
                                                     {"bytes", done.file->bytes()},
                                                     {"tokens", done.stored.tokens},
                                                     {"pages", done.file->pages()}}),
                                           {}});
}

// --- Both ways ---------------------------------------------------------------------------------

size_t Generator::transfers() const { return transfers_->size(); }

void Generator::OnAnswer(FileStepDone answer) {
  const RequestId rid = answer.ticket;
  if (transfers_->exports.contains(rid)) {
    OnExportStep(rid);
  } else if (transfers_->imports.contains(rid)) {
    OnImportStep(rid);
  } else if (const auto saved = transfers_->saved.extract(rid)) {
    sink_->Send(*saved.mapped());
  }
}

// True: it was for a file.
bool Generator::TakeForTransfer(Managed* managed) {
  const RequestId rid = managed->answer.rid;
  if (transfers_->exports.contains(rid)) {
    BeginExport(rid, std::move(*managed));
  } else if (transfers_->imports.contains(rid)) {
    OnImportCommitted(rid, std::move(*managed));
  } else {
    return managed->loaded.has_value();  // that was cancelled meanwhile
  }
  return true;
}

// Those that wait for pages which were on their way to the disk.
void Generator::ContinueTransfers() {
  std::vector<RequestId> waiting;
  for (const auto& [rid, it] : transfers_->exports)
    if (!it.is_busy) waiting.push_back(rid);
  for (const RequestId rid : waiting) ContinueExport(rid, &transfers_->exports.at(rid));
}

// The client is gone. What is imported already gets its pages all the same.
void Generator::CancelTransfer(RequestId rid) {
  transfers_->exports.erase(rid);
  transfers_->saved.erase(rid);
  const auto it = transfers_->imports.find(rid);
  if (it == transfers_->imports.end()) return;
  if (it->second.stage == Import::Stage::kVerify)
    transfers_->imports.erase(it);
  else
    it->second.is_awaited = false;
}

void Generator::CancelTransfers() {
  transfers_->exports.clear();
  transfers_->saved.clear();
  std::vector<RequestId> imports;
  for (const auto& [rid, it] : transfers_->imports) imports.push_back(rid);
  for (const RequestId rid : imports) CancelTransfer(rid);
}

void Generator::FailTransfers(const Error& error) {
  for (const auto& [rid, it] : transfers_->exports) sink_->Send(Failure(rid, error));
  for (const auto& [rid, it] : transfers_->imports)
    if (it.is_awaited) sink_->Send(Failure(rid, error));
  for (const auto& [rid, it] : transfers_->saved) sink_->Send(Failure(rid, error));
  *transfers_ = {};
}

void Generator::ForgetTransfers(uint64_t owner, const std::string& id) {
  std::vector<RequestId> exports;
  for (const auto& [rid, it] : transfers_->exports)
    if (it.stored.owner == owner && it.stored.id == id) exports.push_back(rid);
  for (const RequestId rid : exports) {
    transfers_->exports.erase(rid);
    sink_->Send(Failure(rid, {ErrorCode::not_found,
                              fmt::format("Conversation {} was deleted meanwhile.", id), "id", 0}));
  }
  for (auto& [rid, it] : transfers_->imports)
    if (it.owner == owner && it.id == id && it.stage == Import::Stage::kPages) it.is_deleted = true;
}

}  // namespace perdure::worker
