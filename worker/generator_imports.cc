// Conversations that come from files. A turn is committed once all of its file was checked; then
// its pages are stored, where this model can use them, as its owner's own.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "base/limits.h"
#include "shm/hashes.h"
#include "worker/conversation_json.h"
#include "worker/generator_state.h"
#include "worker/generator_transfers.h"

namespace perdure::worker {

using protocol::RequestId;
using snapshot::StoredPage;
using snapshot::StoredTurn;

namespace {

constexpr size_t kPage = engine::kPageTokens;

protocol::ConversationAnswer Failure(RequestId rid, const Error& error) {
  return {rid, static_cast<uint16_t>(error.code), error.message, error.param};
}

Error ThereIsOne(const std::string& id) {
  return {ErrorCode::invalid_request,
          fmt::format("There is a conversation {} already: name another id.", id), "id", 0};
}

}  // namespace

ConversationImport::Model Generator::ImportModel() const {
  const engine::ModelInfo& info = model_->engine->info();
  return {info.vocab_size, options_.admission.max_context, info.kv, options_.fingerprint,
          options_.numerics};
}

void Generator::Command(const protocol::ConversationUpload& upload, UniqueFd file) {
  if (const auto refusal = TransferRefusal()) return sink_->Send(Failure(upload.rid, *refusal));
  StartImport(upload.rid, upload.owner.value_or(OwnerOf(upload.tenant)), upload.id,
              std::make_shared<ConversationImport>(std::move(file), ImportModel()));
}

void Generator::StartImport(RequestId rid, uint64_t owner, const std::string& id,
                            std::shared_ptr<ConversationImport> file) {
  Import& it = transfers_->imports[rid];
  it.owner = owner;
  it.id = id;
  it.file = std::move(file);
  options_.persistence->WithPages(rid, [file = it.file](auto*) { return file->Verify(); });
}

void Generator::OnImportStep(RequestId rid) {
  Import& it = transfers_->imports.at(rid);
  if (it.stage == Import::Stage::kVerify)
    CommitImport(rid, &it);
  else
    OnPagesImported(rid, &it);
}

// --- Its turn ----------------------------------------------------------------------------------

void Generator::CommitImport(RequestId rid, Import* it) {
  const auto refuse = [&](const Error& error) {
    transfers_->imports.erase(rid);
    sink_->Send(Failure(rid, error));
  };
  if (it->file->error()) return refuse(Error(*it->file->error()));
  ImportedConversation& imported = it->file->conversation();
  if (!it->id.empty()) {
    imported.owner.id = it->id;
    imported.owner.named = true;
  }
  it->id = imported.owner.id;
  if (stored_.Find(it->owner, it->id) != nullptr || IsKnown(it->owner, it->id))
    return refuse(ThereIsOne(it->id));
  imported.owner.owner = it->owner;
  imported.turn.rid = rid;
  imported.turn.unix_ms = options_.unix_ms();
  it->stage = Import::Stage::kCommit;
  options_.persistence->Manage(rid, [file = it->file](snapshot::TurnFile& turns) {
    const ImportedConversation& of_it = file->conversation();
    Managed managed;
    // Another one may have begun it meanwhile.
    if (turns.Load(of_it.owner.owner, of_it.owner.id)) {
      managed.answer = Failure(0, ThereIsOne(of_it.owner.id));
      return managed;
    }
    auto stored = turns.Commit(of_it.owner, of_it.turn);
    if (!stored)
      managed.answer = Failure(0, stored.error());
    else
      managed.stored = std::move(*stored);
    return managed;
  });
}

void Generator::OnImportCommitted(RequestId rid, Managed managed) {
  Import& it = transfers_->imports.at(rid);
  if (!managed.stored) {
    managed.answer.rid = rid;
    if (it.is_awaited) sink_->Send(managed.answer);
    transfers_->imports.erase(rid);
    return;
  }
  it.stage = Import::Stage::kPages;
  it.stored = std::move(*managed.stored);
  PlanImport(&it);
  ContinueImport(rid, &it);
}

// --- Its pages ---------------------------------------------------------------------------------

// Which are to be stored, under hashes of the new owner.
void Generator::PlanImport(Import* it) {
  it->reason = it->file->useless();
  if (it->file->pages_in_file() == 0) it->reason = "the file has no pages";
  const StoredTurn& turn = it->file->conversation().turn;
  const auto ids = std::span(turn.ids);
  const size_t shared = SharedPages(turn.ids);
  const auto now_s = static_cast<uint32_t>(options_.unix_ms() / 1000);
  auto& in_file = it->file->pages();
  uint64_t hash = stored_pages_.root(), file_bytes = 0;
  size_t at = 0;
  for (size_t i = 0; at < in_file.size(); ++i) {
    const size_t count = std::min(kPage, ids.size() - i * kPage);
    const bool is_in_file = in_file[at].record.position == i;
    const shm::PageKey key = KeyOf(turn.schedule, it->owner, shared, i);
    const auto tokens = is_in_file ? std::span<const TokenId>(in_file[at].record.tokens)
                                   : ids.subspan(i * kPage, count);
    const uint64_t parent = std::exchange(hash, shm::ChainHash(hash, key, shm::TokensHash(tokens)));
    if (!is_in_file) continue;
    snapshot::ConversationFileReader::Page& from = in_file[at++];
    if (i < shared) {
      // Others would find what nobody here has computed.
      it->reason = "pages of a prompt that all share are not taken from a file";
    } else if (stored_pages_.Has(hash)) {
      ++it->kept;
    } else {
      StoredPage page;
      page.chain_hash = hash;
      page.parent = parent;
      page.position = from.record.position;
      page.key = key;
      page.tokens = from.record.tokens;
      page.drawn = from.record.drawn;
      page.data_checksum = from.record.data_checksum;
      page.data_bytes = from.record.data_bytes;
      page.used_unix_s = now_s;
      file_bytes += snapshot::PageFileBytes(page.data_bytes);
      it->pages.push_back({std::move(from), std::move(page)});
    }
  }
  if (file_bytes > options_.stored_bytes_max) {
    it->reason = fmt::format("its pages take {} bytes, and all that are stored may take {}",
                             file_bytes, options_.stored_bytes_max);
    it->pages.clear();
  }
}

void Generator::ContinueImport(RequestId rid, Import* it) {
  if (it->is_deleted) {
    it->reason = "the conversation was deleted meanwhile";
    it->kept = 0;
    it->next = it->pages.size();
  }
  if (it->next >= it->pages.size()) return EndImport(rid);
  std::vector<ConversationImport::PageToImport>& batch = it->file->batch;
  batch.clear();
  size_t bytes = 0;
  uint64_t file_bytes = 0;
  for (; it->next < it->pages.size() && bytes < limits::kKeepPagesBytes; ++it->next) {
    batch.push_back(std::move(it->pages[it->next]));
    bytes += batch.back().page.data_bytes;
    file_bytes += snapshot::PageFileBytes(batch.back().page.data_bytes);
  }
  MakeRoomOnDisk(file_bytes);
  options_.persistence->WithPages(
      rid, [file = it->file](snapshot::KvFile* pages) { return file->WriteBatch(pages); });
}

void Generator::OnPagesImported(RequestId rid, Import* it) {
  ConversationImport& file = *it->file;
  if (!file.write_problem().empty()) {
    it->reason = file.write_problem();
    it->next = it->pages.size();
  } else if (it->is_deleted) {
    std::vector<uint64_t> dropped;
    for (const auto& each : file.batch)
      if (!stored_pages_.Has(each.page.chain_hash)) dropped.push_back(each.page.chain_hash);
    if (!dropped.empty()) options_.persistence->DropPages(std::move(dropped));
  } else {
    for (auto& each : file.batch) stored_pages_.Add(std::move(each.page));
    it->kept += static_cast<uint32_t>(file.batch.size());
  }
  ContinueImport(rid, it);
}

void Generator::EndImport(RequestId rid) {
  const Import it = std::move(transfers_->imports.at(rid));
  transfers_->imports.erase(rid);
  if (!it.is_awaited) return;
  Json json = ConversationJson(it.stored);
  json["kv"] = {{"pages", it.kept}, {"used", it.kept > 0}};
  if (it.kept < it.file->pages_in_file() || it.kept == 0) json["kv"]["reason"] = it.reason;
  sink_->Send(protocol::ConversationAnswer{rid, 0, DumpJson(json), {}});
}

}  // namespace perdure::worker
