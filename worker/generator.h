// The requests of one worker: admitted, scheduled, computed, sampled, folded into events.
//
// Knows no sockets: messages go to a sink. Nothing here blocks but the engine. Not thread-safe.
//
// The life of a request: Submit → Accepted → Event… → End per choice → Release. Failed may come
// instead of anything after Submit, and nothing follows it. After Cancel nothing is sent at all.
// Resume begins in the middle: what a worker before this one had sent is neither drawn nor sent
// again.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "engine/sampler.h"
#include "protocol/messages.h"
#include "shm/layout.h"
#include "shm/page_store.h"
#include "text/chat/answer_fold.h"
#include "text/output/output_fold.h"
#include "worker/admission.h"
#include "worker/cache_operator.h"
#include "worker/cache_types.h"
#include "worker/conversation_import.h"
#include "worker/conversations.h"
#include "worker/model.h"
#include "worker/persistence.h"
#include "worker/scheduler.h"
#include "worker/step_pace.h"

namespace perdure::worker {

// Where messages go: Cleared to the supervisor, all others to the frontend. Never blocks.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void Send(const protocol::Accepted& message) = 0;
  virtual void Send(const protocol::Begun& message) = 0;
  virtual void Send(const protocol::Event& message) = 0;
  virtual void Send(const protocol::End& message) = 0;
  virtual void Send(const protocol::Failed& message) = 0;
  virtual void Send(const protocol::CacheAnswer& message) = 0;
  virtual void Send(const protocol::ConversationAnswer& message) = 0;
  virtual void Send(const protocol::ConversationFile& message, UniqueFd file) = 0;
  virtual void Send(const protocol::Forgotten& message) = 0;
  virtual void Send(const protocol::Cleared& message) = 0;
};

struct GeneratorOptions {
  AdmissionSettings admission;
  SchedulerLimits scheduler;
  // A request that waits longer for credit is given up: a guard behind the frontend's own.
  int64_t slow_client_timeout_us = 0;
  int64_t (*now_us)() = nullptr;  // a monotonic clock
  std::function<int64_t()> unix_ms = [] { return int64_t{0}; };
  CacheTypes cache_types;
  ConversationSettings conversations;
  Persistence* persistence = nullptr;  // none: nothing is stored; outlives the generator
  std::vector<snapshot::StoredConversation> stored_conversations;  // what it has
  std::vector<snapshot::StoredPage> stored_pages;
  // Asks for more memory for KV, and waits for it; false: there is none. May be empty.
  std::function<bool()> grow_kv;
  uint64_t stored_bytes_max = 0;           // of pages
  std::filesystem::path transfer_dir;      // where files lie that have no name
  std::filesystem::path saved_dir;         // of this model's conversations that were saved by name
  uint64_t saved_bytes_max = 0;            // of each tenant's
  int64_t retention_ms = INT64_MAX;        // of conversations that are not gone on with
  uint64_t fingerprint = 0, numerics = 0;  // of the model, and of how this machine computes
  // Beginnings of prompts that all tenants may find cached, as tokens.
  std::vector<std::vector<TokenId>> shared_prefixes;
};

class Generator : private PrefixFinder {
 public:
  // All that is pointed to must outlive the generator; the store and the status are its alone.
  Generator(const Model* model, const GeneratorOptions& options, shm::PageStore* store,
            shm::StatusShm* status, EventSink* sink);
  ~Generator() override;

  // Errors of the request itself become Failed. A returned error (protocol_error) is a fault of the
  // frontend: the request id is in use, or what it has of an answer does not add up.
  Status Submit(const protocol::Submit& submit);
  Status Resume(const protocol::Resume& resume);
  // Ids that are not known belong to requests that ended in the meantime: no effect.
  void Cancel(protocol::RequestId rid);
  void Release(protocol::RequestId rid);
  void Credit(protocol::RequestId rid, uint32_t bytes);
  // The frontend is gone: nobody reads.
  void CancelAll();
  // From now on Submit fails with shutting_down.
  void StopAdmitting() { admitting_ = false; }
  // Fails every request that has not ended.
  void FailAll(const Error& error);
  // Fails those that waited for credit too long.
  void FailSlowClients();

  // True when Step would compute something.
  bool HasWork() const { return scheduler_.HasWork(); }
  // One forward pass and what follows from it.
  void Step();

  // Of the cache as a whole; the answer comes now or later.
  void Command(const protocol::CacheCommand& command) { operator_.Handle(command); }
  // Of stored conversations.
  void Command(const protocol::ConversationCommand& command);
  // And of files of them.
  void Command(const protocol::ConversationFileCommand& command);
  void Command(const protocol::ConversationUpload& upload, UniqueFd file);
  // How long whose conversations are kept. Before the first call none is too old.
  void SetTenants(const protocol::TenantSettings& settings);
  bool IsDeleting() const { return !deletions_.empty(); }
  // Of pages that were copied for the disk and are not stored yet.
  size_t storing_bytes() const { return keeping_bytes_; }
  // What such a command has begun goes on, beside requests and where there are none.
  bool HasUpkeep() const {
    return HasChainsToForget() || operator_.HasWork(!HasWork()) || HasPagesToKeep();
  }
  void Upkeep();
  // Pages that a predecessor left and nobody has used are to be verified; Scrub does a few of them,
  // for when there is no work.
  bool NeedsScrub() const { return store_->needs_scrub(); }
  void Scrub();
  // What is due at times, whether there is work or not.
  void Tick();

  // Takes what the disk has answered; after persistence's fd was readable, or at any time.
  void TakeAnswers();
  // Stores what is still to be stored, while there is time.
  void KeepAll(int64_t timeout_ms);

  // How many tokens of prompt and answer memory has room for, in a cache of this kind.
  int MemoryTokens(const CacheSchedule& schedule);
  const ConversationTable& conversations() const { return conversations_; }

  // Requests that have neither ended nor failed.
  size_t live() const { return live_ + fetching_.size() + transfers(); }

  // The tokens of an answer and their logprobs, until the request is released. Tokens that another
  // worker drew have NaN.
  struct AnswerView {
    std::span<const TokenId> ids;
    std::span<const float> logprobs;
  };
  std::optional<AnswerView> answer(protocol::RequestId rid, int choice) const;

 private:
  struct Choice;
  struct Request;
  struct PageLoad;
  struct Fetching;
  struct Deletion;
  struct ChainHashes;
  using ConversationName = std::pair<uint64_t, std::string>;  // owner and id
  struct Place {                                              // whose sequence it is
    Request* request = nullptr;
    Choice* choice = nullptr;
  };

  std::optional<Error> Refusal() const;
  Request* Open(protocol::RequestId rid, std::unique_ptr<Request> request,
                AdmittedRequest* admitted, uint32_t credit_bytes,
                const protocol::GenerationRequest& asked);
  text::AnswerFold FoldOf(const Request& request, const protocol::GenerationRequest& asked,
                          const AdmittedRequest& admitted, const Json& tools) const;
  Choice* AddChoice(Request* request, const text::AnswerFold& fold,
                    const AdmittedRequest& admitted);
  void Schedule(Request* request, Choice* choice, bool suspect);
  void Replay(Request* request, Choice* choice, const AdmittedRequest& admitted,
              const protocol::ChoiceSoFar& so_far);
  void SendEcho(Request* request, Choice* choice, std::string_view text);
  void Deliver(Request* request, Choice* choice, protocol::Event event);
  void Finish(Request* request, Choice* choice, protocol::FinishReason reason);
  void Flush(Request* request);
  void NoteEnd(Request* request);
  void Fail(Request* request, const Error& error);
  void FailUnknown(protocol::RequestId rid, const Error& error);
  void Forget(protocol::RequestId rid);
  void Compute(const StepPlan& plan);

  void Accept(const protocol::Submit& submit, Prompt prompt, int64_t received_us);

  // Of what is on disk (generator_snapshots.cc).
  bool FetchConversation(const protocol::Submit& submit, Prompt* prompt, int64_t received_us);
  void OnAnswer(TurnFetched answer);
  void OnAnswer(TurnKept answer);
  void OnAnswer(PageFetched answer);
  void OnAnswer(PagesKept answer);
  void OnAnswer(Managed answer);
  void OnAnswer(PagesReopened answer);
  void ListConversations(const protocol::ConversationCommand& command);
  // Of operators (generator_tenants.cc).
  std::optional<uint64_t> ScopeOf(const protocol::ConversationCommand& command) const;
  Result<uint64_t> OwnerOf(const protocol::ConversationCommand& command) const;
  Result<uint64_t> OwnerOf(const protocol::ConversationFileCommand& command) const;
  Result<uint64_t> OnlyOwnerOf(const std::string& id, bool also_not_stored) const;
  void ListTenants(const protocol::ConversationCommand& command);

  // Of what goes (generator_deletion.cc).
  bool IsKnown(uint64_t owner, const std::string& id) const;
  std::vector<snapshot::StoredConversation> AllOf(std::optional<uint64_t> owner,
                                                  const std::string& user) const;
  // Nothing of them is found any more, and what runs with them leaves nothing.
  void ForgetConversations(const std::set<ConversationName>& names);
  // At once out of reach; `rid` is answered when they are deleted.
  void DeleteConversations(protocol::RequestId rid,
                           std::vector<snapshot::StoredConversation> conversations);
  // Pages of turns behind this one, and then what `rid` has asked for.
  void ForgetTurnsBehind(uint32_t turn, const snapshot::StoredConversation& conversation,
                         protocol::RequestId rid, Persistence::Job then);
  void Begin(Deletion deletion);
  void ReadMore(uint64_t ticket, Deletion* deletion);
  void OnAnswer(ChainsFetched answer);
  void OnAnswer(PagesErased answer);
  void OnAnswer(ConversationsDeleted answer);
  bool HasChainsToForget() const;
  void ForgetSomeChains();
  void AfterChains(uint64_t ticket, Deletion* deletion);
  void EndDeletion(uint64_t ticket);
  ChainHashes HashesOf(uint64_t owner, const snapshot::TurnChain& chain) const;
  void NeedChain(uint64_t owner, const snapshot::TurnChain& chain, Deletion* deletion);
  void ForgetChain(uint64_t owner, const snapshot::TurnChain& chain, Deletion* deletion);
  void ForgetInMemory(uint64_t owner, const snapshot::TurnChain& chain);
  void DropPastRetention();

  // Of stored pages that come back (generator_loading.cc).
  void ScheduleOrLoad(Request* request, bool suspect);
  bool StartLoad(Request* request, bool suspect);
  void FetchMore(Request* request);
  void EndLoad(Request* request);
  void AbandonLoad(Request* request);
  void ScheduleAll(Request* request, bool suspect);
  static bool IsToSchedule(const Choice& choice);

  // Of pages and turns on disk (generator_snapshots.cc).
  void KeepTurn(const Place& place, const std::string& conversation_id, protocol::End end);
  void NoteStored(const Conversation& conversation);
  bool HasPagesToKeep() const;
  void KeepSomePages();
  void KeepBeforeEviction(PageIndex page);
  std::optional<PageToKeep> CopyToKeep(PageIndex page, std::vector<uint64_t>* superseded);
  void MakeRoomOnDisk(uint64_t bytes);
  void TakeStored();

  // Of conversations as files (generator_exports.cc, generator_imports.cc).
  struct Export;
  struct Import;
  struct Transfers;
  size_t transfers() const;
  std::optional<Error> TransferRefusal() const;
  void OnAnswer(FileStepDone answer);
  bool TakeForTransfer(Managed* managed);
  void StartExport(const protocol::ConversationFileCommand& command, uint64_t owner);
  void PlanExport(const snapshot::StoredTurn& turn, Export* it);
  bool IsInMemory(const std::pair<PageIndex, uint64_t>& page) const;
  void BeginExport(protocol::RequestId rid, Managed managed);
  void ContinueExport(protocol::RequestId rid, Export* it);
  void OnExportStep(protocol::RequestId rid);
  ConversationImport::Model ImportModel() const;
  void StartImport(protocol::RequestId rid, uint64_t owner, const std::string& id,
                   std::shared_ptr<ConversationImport> file);
  void OnImportStep(protocol::RequestId rid);
  void CommitImport(protocol::RequestId rid, Import* it);
  void OnImportCommitted(protocol::RequestId rid, Managed managed);
  void PlanImport(Import* it);
  void ContinueImport(protocol::RequestId rid, Import* it);
  void OnPagesImported(protocol::RequestId rid, Import* it);
  void EndImport(protocol::RequestId rid);
  void ContinueTransfers();
  void CancelTransfer(protocol::RequestId rid);
  void CancelTransfers();
  void FailTransfers(const Error& error);
  void ForgetTransfers(uint64_t owner, const std::string& id);

  // Of what is cached (generator_cache.cc).
  uint64_t OwnerOf(protocol::RequestId rid, const protocol::GenerationRequest& asked) const;
  static uint64_t OwnerOf(const std::string& tenant);
  size_t SharedPages(std::span<const TokenId> ids) const;
  void Remember(const protocol::GenerationRequest& asked, Request* request);
  protocol::Accepted Recognize(const protocol::GenerationRequest& asked,
                               std::vector<TokenId>* prompt_ids, Request* request);
  shm::PageKey KeyOf(const Request& request, size_t page) const;
  shm::PageKey KeyOf(const CacheSchedule& schedule, uint64_t owner, size_t shared_pages,
                     size_t page) const;
  uint32_t DrawnOf(const Place& place, size_t page, size_t count) const;
  CachedPages CachedPrefix(SequenceId id) override;
  Room GiveWay() override;
  PageIndex OwnEnd(SequenceId id) const override;
  std::optional<shm::PageTree::Match> FragmentBehind(const Request& request,
                                                     std::span<const TokenId> tokens,
                                                     std::span<const PageIndex> path,
                                                     size_t pages) const;
  bool TakeFound(const Request& request, std::span<const TokenId> tokens,
                 std::span<const PageIndex> path, bool* with_fragment, CachedPages* found);
  PageIndex SealPage(const Place& place, size_t page, size_t count, PageIndex open);
  void SealFullPages(const StepEntry& entry, const Place& place);
  void SealTail(const Place& place);
  void ShareTail(const Place& place);
  // The id of the conversation that the turn is of; empty where it is not remembered.
  std::string Leave(const Place& place, bool has_ended);
  std::string Commit(const Place& place);
  void EndConversation(Request* request);
  void DropOwn(const Place& place);
  void CountRequest(const Request& request);
  CacheOperator::Context OperatorContext();
  static std::span<const TokenId> TokensOf(const Place& place, size_t start, size_t count,
                                           std::vector<TokenId>* joined);
  void Draw(const Place& place, std::span<const float> logits);
  void LogComeback(const Place& place);
  protocol::TokenLogprobs LogprobsOf(const Choice& choice, const engine::SampledToken& token,
                                     std::span<const float> logits, int top);
  void Take(const Place& place, TokenId id, float logprob,
            std::optional<protocol::TokenLogprobs> logprobs);
  void Clear(const Place& place);
  void PublishCounts();
  Place PlaceOf(SequenceId id) const;

  const Model* const model_;
  const GeneratorOptions options_;
  shm::PageStore* const store_;
  shm::StatusShm* const status_;
  EventSink* const sink_;
  ConversationTable conversations_;
  CacheOperator operator_;
  Scheduler scheduler_;
  StepPace pace_;
  engine::Sampler sampler_;
  StoredConversations stored_;
  snapshot::KvIndex stored_pages_;
  std::map<protocol::RequestId, Fetching> fetching_;
  size_t filling_ = 0;  // open pages that are written to from the disk
  const std::unique_ptr<Transfers> transfers_;
  // Pages of conversations that are not stored yet, by chain hash; in this order.
  std::deque<std::pair<PageIndex, uint64_t>> to_keep_;
  std::unordered_set<uint64_t> to_keep_hashes_;
  std::unordered_map<uint64_t, PageIndex> keeping_;  // that are being written
  size_t keeping_bytes_ = 0;
  int64_t keep_from_us_ = 0;  // not before: the disk has failed
  int64_t next_retention_us_ = 0;
  bool knows_tenants_ = false;
  std::unordered_map<uint64_t, int64_t> retention_ms_of_;  // of owners that have their own
  std::map<uint64_t, Deletion> deletions_;                 // by the ticket of their jobs
  uint64_t last_deletion_ = 0;
  std::set<ConversationName> deleting_;
  std::map<protocol::RequestId, std::unique_ptr<Request>> requests_;
  std::map<SequenceId, Place> places_;
  std::deque<protocol::RequestId> ended_;  // oldest first; may name released ones
  size_t live_ = 0;
  size_t prompt_tokens_ = 0;  // of live requests
  uint64_t step_ = 0;
  int64_t next_expiry_us_ = 0;
  std::optional<std::pair<CacheSchedule, int>> memory_tokens_;  // the last answer
  bool admitting_ = true;
};

}  // namespace perdure::worker
