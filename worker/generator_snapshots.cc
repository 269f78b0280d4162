// What the generator has on disk: turns that are stored, conversations and pages that come back.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/masked.h"
#include "worker/cache_schedule.h"
#include "worker/generator_state.h"
#include "worker/message_hashes.h"
#include "worker/turn_messages.h"

namespace perdure::worker {

using snapshot::StoredConversation;
using snapshot::StoredPage;
using snapshot::StoredTurn;

void Generator::TakeStored() {
  if (options_.persistence == nullptr) return;
  for (const StoredConversation& conversation : options_.stored_conversations)
    stored_.Put(conversation);
  for (const StoredPage& page : options_.stored_pages) stored_pages_.Add(page);
  // What a predecessor knew by name alone, as the pages had not come yet or are gone, is read
  // again.
  std::vector<std::pair<uint64_t, std::string>> names;
  for (const auto& conversation : conversations_.all())
    if (conversation->ids.empty() && stored_.Find(conversation->owner, conversation->id) != nullptr)
      names.emplace_back(conversation->owner, conversation->id);
  for (const auto& [owner, id] : names) conversations_.Remove(owner, id);
  // It may have left some that are not stored.
  for (const auto& conversation : conversations_.all()) NoteStored(*conversation);
  store_->SetOnEvict([this](PageIndex page) { KeepBeforeEviction(page); });
}

void Generator::TakeAnswers() {
  if (options_.persistence == nullptr) return;
  for (PersistenceAnswer& answer : options_.persistence->TakeAnswers())
    std::visit([this](auto& each) { OnAnswer(std::move(each)); }, answer);
  ContinueTransfers();
  PublishCounts();
}

// --- Conversations -----------------------------------------------------------------------------

// True: the conversation that this request goes on with is read first, as it is not in memory.
bool Generator::FetchConversation(const protocol::Submit& submit, Prompt* prompt,
                                  int64_t received_us) {
  const ConversationSettings& settings = options_.conversations;
  const protocol::GenerationRequest& asked = submit.request;
  if (options_.persistence == nullptr || !settings.enabled || stored_.size() == 0) return false;
  const uint64_t owner = OwnerOf(submit.rid, asked);
  const StoredConversation* stored = nullptr;
  if (!asked.conversation_id.empty())
    stored = stored_.Find(owner, asked.conversation_id);
  else if (settings.auto_detect)
    stored = stored_.FindBehind(owner, MessageHashes(asked.chat_json));
  if (stored == nullptr || conversations_.Get(owner, stored->id) != nullptr) return false;
  fetching_.emplace(submit.rid, Fetching{submit, std::move(*prompt), received_us, *stored});
  options_.persistence->FetchTurn(submit.rid, owner, stored->id);
  return true;
}

void Generator::OnAnswer(TurnFetched answer) {
  const auto it = fetching_.find(answer.ticket);
  if (it == fetching_.end()) return;
  Fetching fetching = std::move(it->second);
  fetching_.erase(it);
  const StoredConversation& stored = fetching.stored;
  if (!answer.turn) {
    if (answer.is_gone) stored_.Remove(stored.owner, stored.id);
  } else if (!fetching.is_deleted) {
    StoredTurn& turn = *answer.turn;
    Conversation conversation;
    conversation.id = stored.id;
    conversation.owner = stored.owner;
    conversation.named = stored.named;
    conversation.turns = stored.turns;
    if (IsSound(turn.schedule)) conversation.schedule = std::move(turn.schedule);
    // System messages at the beginning have no hash.
    const auto first = std::ranges::find_if(turn.message_hashes, [](uint64_t h) { return h != 0; });
    conversation.messages.assign(first, turn.message_hashes.end());
    conversation.message_count = conversation.messages.size();
    if (turn.fingerprint != options_.fingerprint) {
      LogInfo("conversation {} was kept with other weights of this model: it is computed again",
              Masked(stored.id));
    } else {
      conversation.ids = std::move(turn.ids);
      conversation.drawn = std::move(turn.drawn);
      if (turn.numerics != options_.numerics)
        LogInfo(
            "conversation {} was computed by other instructions than this machine uses: it is "
            "computed again",
            Masked(stored.id));
    }
    conversations_.Adopt(std::move(conversation));
  }
  Accept(fetching.submit, std::move(fetching.prompt), fetching.received_us);
}

// --- Turns -------------------------------------------------------------------------------------

// The client sees the end of its answer when the turn is stored, or cannot be.
void Generator::KeepTurn(const Place& place, const std::string& conversation_id,
                         protocol::End end) {
  Request& request = *place.request;
  Choice& choice = *place.choice;
  choice.keeping = end;
  StoredTurn turn;
  turn.rid = request.rid;
  turn.choice = static_cast<uint32_t>(choice.index);
  turn.unix_ms = options_.unix_ms();
  turn.finish = static_cast<uint8_t>(end.reason);
  turn.ids = request.prompt_ids;
  turn.ids.insert(turn.ids.end(), choice.ids.begin(), choice.ids.end());
  turn.drawn = request.prompt_drawn;
  turn.drawn.resize(turn.ids.size(), true);
  turn.prompt_tokens = static_cast<uint32_t>(request.prompt_ids.size());
  turn.messages = request.messages;
  turn.messages.push_back(AnswerMessage(request.kind, choice.said, request.rid, choice.index));
  std::vector<uint64_t> hashes = request.ticket.message_hashes;
  AddAnswer(choice.said, &hashes);
  turn.message_hashes.resize(turn.messages.size() - std::min(hashes.size(), turn.messages.size()));
  turn.message_hashes.insert(turn.message_hashes.end(), hashes.begin(), hashes.end());
  turn.message_hashes.resize(turn.messages.size());
  turn.schedule = request.ticket.cache;
  turn.fingerprint = options_.fingerprint;
  turn.numerics = options_.numerics;
  options_.persistence->KeepTurn(
      {request.owner, conversation_id, request.named && choice.index == 0, request.user},
      std::move(turn));
}

void Generator::OnAnswer(TurnKept answer) {
  if (answer.conversation &&
      !deleting_.contains({answer.conversation->owner, answer.conversation->id}))
    stored_.Put(*answer.conversation);
  const auto it = requests_.find(answer.rid);
  if (it == requests_.end() || answer.choice >= it->second->choices.size()) return;
  Choice& choice = it->second->choices[answer.choice];
  if (!choice.keeping) return;
  choice.unsent_end = std::exchange(choice.keeping, std::nullopt);
  choice.unsent_end->persisted = answer.conversation.has_value();
  Flush(it->second.get());
}

// --- Pages that go -----------------------------------------------------------------------------

// Which of a conversation's pages are to be stored; those that are were of use.
void Generator::NoteStored(const Conversation& conversation) {
  if (options_.persistence == nullptr || !conversation.stored) return;
  const uint32_t now_s = Seconds(options_.unix_ms());
  std::vector<std::pair<uint64_t, uint32_t>> used;
  std::vector<std::pair<PageIndex, uint64_t>> missing;
  for (PageIndex page = conversation.tail; page != shm::kNoPage; page = store_->parent(page)) {
    const uint64_t hash = store_->chain_hash(page);
    if (stored_pages_.Has(hash)) {
      if (stored_pages_.Touch(hash, now_s)) used.emplace_back(hash, now_s);
    } else if (store_->is_loaded(page) && !keeping_.contains(hash) &&
               to_keep_hashes_.insert(hash).second) {
      missing.emplace_back(page, hash);
    }
  }
  to_keep_.insert(to_keep_.end(), missing.rbegin(), missing.rend());
  if (!used.empty()) options_.persistence->TouchPages(std::move(used));
}

bool Generator::HasPagesToKeep() const {
  return !to_keep_.empty() && keeping_bytes_ == 0 && !HasWork() &&
         options_.now_us() >= keep_from_us_;
}

// A copy of a page's numbers, if they are there and whole; and which stored pages it makes
// needless.
std::optional<PageToKeep> Generator::CopyToKeep(PageIndex page, std::vector<uint64_t>* superseded) {
  if (!store_->Acquire(page)) return std::nullopt;
  PageToKeep copy;
  StoredPage& stored = copy.page;
  stored.chain_hash = store_->chain_hash(page);
  const PageIndex parent = store_->parent(page);
  stored.parent = parent == shm::kNoPage ? stored_pages_.root() : store_->chain_hash(parent);
  stored.position = store_->position(page);
  stored.key = {store_->format(page), store_->owner(page), store_->mask(page)};
  const auto tokens = store_->tokens(page);
  stored.tokens.assign(tokens.begin(), tokens.end());
  stored.drawn = store_->drawn(page);
  stored.used_unix_s = Seconds(options_.unix_ms());
  const auto data = std::span(store_->address(page), store_->page_bytes(stored.key.format));
  copy.data.assign(data.begin(), data.end());
  stored.data_bytes = static_cast<uint32_t>(data.size());
  stored.data_checksum = store_->data_checksum(page);
  store_->Release(page);
  for (const uint64_t child : stored_pages_.Children(stored.parent)) {
    const StoredPage& other = *stored_pages_.Get(child);
    if (other.key == stored.key && other.tokens.size() < stored.tokens.size() &&
        std::ranges::equal(other.tokens, std::span(stored.tokens).first(other.tokens.size())))
      superseded->push_back(child);
  }
  return copy;
}

// A few of those that wait, while nothing is computed. One job at a time.
void Generator::KeepSomePages() {
  if (!HasPagesToKeep()) return;
  std::vector<PageToKeep> pages;
  std::vector<uint64_t> superseded;
  size_t bytes = 0;
  uint64_t file_bytes = 0;
  while (!to_keep_.empty() && bytes < limits::kKeepPagesBytes) {
    const auto [page, hash] = to_keep_.front();
    to_keep_.pop_front();
    // It may have been written before its eviction, or be gone.
    if (to_keep_hashes_.erase(hash) == 0 || !store_->IsCached(page, hash) ||
        !store_->is_loaded(page))
      continue;
    auto copy = CopyToKeep(page, &superseded);
    if (!copy) continue;
    bytes += copy->data.size();
    file_bytes += snapshot::PageFileBytes(copy->page.data_bytes);
    keeping_.emplace(hash, page);
    pages.push_back(std::move(*copy));
  }
  if (pages.empty()) return;
  MakeRoomOnDisk(file_bytes);
  keeping_bytes_ += bytes;
  options_.persistence->KeepPages(std::move(pages), std::move(superseded));
}

// Memory is short: what is not stored yet would have to be computed again.
void Generator::KeepBeforeEviction(PageIndex page) {
  const uint64_t hash = store_->chain_hash(page);
  if (!to_keep_hashes_.contains(hash) || options_.now_us() < keep_from_us_ ||
      keeping_bytes_ >= limits::kKeepingBytesMax)
    return;
  to_keep_hashes_.erase(hash);
  std::vector<uint64_t> superseded;
  auto copy = CopyToKeep(page, &superseded);
  if (!copy) return;
  MakeRoomOnDisk(snapshot::PageFileBytes(copy->page.data_bytes));
  keeping_bytes_ += copy->data.size();
  keeping_.emplace(hash, page);
  std::vector<PageToKeep> pages;
  pages.push_back(std::move(*copy));
  options_.persistence->KeepPages(std::move(pages), std::move(superseded));
}

// Those go that were not used for the longest time.
void Generator::MakeRoomOnDisk(uint64_t bytes) {
  const uint64_t most = options_.stored_bytes_max;
  const std::vector<uint64_t> beyond =
      stored_pages_.Beyond(most > bytes ? most - bytes : 0, limits::kSnapshotPagesMax);
  if (beyond.empty()) return;
  for (const uint64_t hash : beyond) stored_pages_.Remove(hash);
  options_.persistence->DropPages(beyond);
}

void Generator::OnAnswer(PagesKept answer) {
  keeping_bytes_ -= std::min(keeping_bytes_, answer.bytes);
  std::vector<std::pair<PageIndex, uint64_t>> pages;
  for (const uint64_t hash : answer.chain_hashes)
    if (const auto page = keeping_.extract(hash)) pages.emplace_back(page.mapped(), hash);
  for (const uint64_t hash : answer.refused) keeping_.erase(hash);
  if (answer.pages.empty() && !answer.chain_hashes.empty()) {
    keep_from_us_ = options_.now_us() + int64_t{limits::kPersistenceRetryMs} * 1000;
    for (auto page = pages.rbegin(); page != pages.rend(); ++page)
      if (store_->IsCached(page->first, page->second) &&
          to_keep_hashes_.insert(page->second).second)
        to_keep_.push_front(*page);
    return;
  }
  // What was deleted meanwhile is not known any more.
  std::unordered_set<uint64_t> known;
  for (const auto& [page, hash] : pages) known.insert(hash);
  for (StoredPage& page : answer.pages)
    if (known.contains(page.chain_hash)) stored_pages_.Add(std::move(page));
  for (const uint64_t hash : answer.superseded) stored_pages_.Remove(hash);
}

// What it had before is of no interest; pages that are about to be erased are not there any more.
void Generator::OnAnswer(PagesReopened answer) {
  for (const auto& [ticket, deletion] : deletions_) {
    const std::unordered_set<uint64_t> erased(deletion.pages.begin(), deletion.pages.end());
    std::erase_if(answer.pages,
                  [&](const StoredPage& page) { return erased.contains(page.chain_hash); });
  }
  LogInfo("the file of KV pages is open again, and has {} of {} pages", answer.pages.size(),
          stored_pages_.size());
  stored_pages_.Clear();
  for (StoredPage& page : answer.pages) stored_pages_.Add(std::move(page));
  keep_from_us_ = 0;
  for (const auto& conversation : conversations_.all()) NoteStored(*conversation);
}

void Generator::KeepAll(int64_t timeout_ms) {
  if (options_.persistence == nullptr) return;
  const int64_t end_ms = MonotonicMs() + timeout_ms;
  for (;;) {
    // In portions: it is to be seen that it lives.
    options_.persistence->Wait(
        std::clamp<int64_t>(end_ms - MonotonicMs(), 0, limits::kHeartbeatMs));
    status_->progress.fetch_add(1, std::memory_order_relaxed);
    TakeAnswers();
    if (keeping_bytes_ > 0 && MonotonicMs() < end_ms) continue;
    if (!HasPagesToKeep() || MonotonicMs() >= end_ms) break;
    KeepSomePages();
  }
  if (!to_keep_.empty())
    LogWarning("{} pages of KV were not stored in time: they are computed again", to_keep_.size());
}

}  // namespace perdure::worker
