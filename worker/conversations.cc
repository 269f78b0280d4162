#include "worker/conversations.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/common_tokens.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/masked.h"
#include "worker/cache_schedule.h"
#include "worker/shared_prefixes.h"
#include "worker/splice.h"

namespace perdure::worker {
namespace {

using shm::PageIndex;

Agreement EqualTokens(std::span<const TokenId> prompt, std::span<const TokenId> known) {
  const size_t common = CommonTokens(prompt, known);
  return {common, common, 0};
}

// The pages up to the tail, from the first.
std::vector<PageIndex> PathTo(const shm::PageStore& store, PageIndex tail) {
  std::vector<PageIndex> path;
  for (PageIndex page = tail; page != shm::kNoPage; page = store.parent(page)) path.push_back(page);
  std::ranges::reverse(path);
  return path;
}

}  // namespace

ConversationTable::ConversationTable(const ConversationSettings& settings, shm::PageStore* store,
                                     const text::Tokenizer* tokenizer,
                                     std::function<int64_t()> unix_ms)
    : settings_(settings),
      store_(store),
      tokenizer_(tokenizer),
      unix_ms_(std::move(unix_ms)),
      records_(&store->memory()) {
  for (const shm::ConversationRecord& record : records_.recovered())
    if (!settings_.enabled || !Recover(record)) records_.Remove(record.id, record.owner);
  store_->FinishRecovery();
  Expire();
  while (conversations_.size() > static_cast<size_t>(settings_.conversations_max) &&
         ForgetOldest()) {
  }
  totals_ = {.recovered = conversations_.size()};
  store_->SetReclaim([this] { return ForgetOldest(); });
}

ConversationTable::~ConversationTable() { store_->SetReclaim(nullptr); }

// False: what is recorded makes no sense.
bool ConversationTable::Recover(const shm::ConversationRecord& record) {
  auto owned = std::make_unique<Conversation>();
  Conversation* const conversation = owned.get();
  conversation->id = record.id;
  conversation->owner = record.owner;
  conversation->named = record.named;
  conversation->stored = record.stored;
  conversation->messages = record.message_hashes;
  conversation->message_count = record.messages;
  conversation->schedule.type = record.type;
  conversation->schedule.segments.clear();
  for (const shm::CacheSegmentShm& segment : record.segments)
    conversation->schedule.segments.push_back(
        {segment.from, segment.bits, segment.keep, segment.size});
  if (conversation->schedule.segments.empty()) conversation->schedule.segments = {{}};
  conversation->schedule.chunk_size = static_cast<int32_t>(record.chunk_size);
  conversation->schedule.pinned = record.pinned;
  if (!IsSound(conversation->schedule)) return false;
  conversation->turns = record.turns;
  conversation->used_ms = static_cast<int64_t>(record.used_unix_ms);
  // Without its pages the tokens of the turn are not known any more; all else is.
  if (store_->IsCached(record.tail_page, record.tail_hash)) {
    for (const PageIndex page : PathTo(*store_, record.tail_page)) {
      const auto tokens = store_->tokens(page);
      for (size_t i = 0; i < tokens.size(); ++i) {
        conversation->ids.push_back(tokens[i]);
        conversation->drawn.push_back((store_->drawn(page) >> i & 1) != 0);
      }
    }
    if (record.last_token >= 0) {
      conversation->ids.push_back(record.last_token);
      conversation->drawn.push_back(true);
    }
    TakePages(conversation, record.tail_page);
  }
  conversations_.push_back(std::move(owned));
  return true;
}

// --- Recognition -------------------------------------------------------------------------------

Conversation* ConversationTable::Find(uint64_t owner, const std::string& id) const {
  const auto it = std::ranges::find_if(conversations_, [&](const auto& conversation) {
    return conversation->owner == owner && conversation->id == id;
  });
  return it == conversations_.end() ? nullptr : it->get();
}

// Of the record the part that is repeated: of its messages, as a template may show old answers
// otherwise than they were given, and as tokens would count a system prompt that many
// conversations begin with; of its tokens where there are no messages.
double ConversationTable::Similarity(const Conversation& conversation,
                                     const RecognitionRequest& request, size_t agreed) const {
  const size_t count = conversation.message_count, kept = conversation.messages.size();
  if (count == 0 && request.messages.empty())
    return static_cast<double>(agreed) /
           static_cast<double>(std::max<size_t>(1, conversation.ids.size()));
  if (count == 0) return 0.0;
  size_t common = std::min(count, request.messages.size());
  while (common > count - kept &&
         request.messages[common - 1] != conversation.messages[kept + common - 1 - count])
    --common;
  if (common <= count - kept && kept < count) common = 0;  // those are not known any more
  return static_cast<double>(common) / static_cast<double>(count);
}

// What goes on already is not gone on with by another: that is a branch. Named ones are their
// clients'.
bool ConversationTable::IsRecognized(const Conversation& conversation, double similarity) const {
  // Compared as what the setting is: 4 of 5 are 0.8f.
  return !conversation.named && conversation.running == 0 &&
         static_cast<float>(similarity) >= settings_.detection_threshold;
}

Recognition ConversationTable::Recognize(const RecognitionRequest& request,
                                         std::vector<TokenId>* ids) const {
  Recognition found;
  found.drawn.resize(ids->size());
  if (!settings_.enabled || (!settings_.auto_detect && request.id.empty())) return found;
  const Conversation* longest = nullptr;  // whose tokens are put in
  Agreement agreed;
  const Conversation* goes_on = nullptr;
  Agreement of_it;
  for (const auto& conversation : conversations_) {
    if (conversation->owner != request.owner) continue;
    const Agreement each = request.exact
                               ? EqualTokens(*ids, conversation->ids)
                               : Agree(*tokenizer_, *ids, conversation->ids, conversation->drawn);
    if (longest == nullptr || each.known > agreed.known ||
        (each.known == agreed.known && conversation->used_ms > longest->used_ms)) {
      longest = conversation.get();
      agreed = each;
    }
    const double similarity = Similarity(*conversation, request, each.known);
    if (request.id.empty() ? !IsRecognized(*conversation, similarity)
                           : conversation->id != request.id)
      continue;
    if (goes_on != nullptr &&
        (each.known < of_it.known || (each.known == of_it.known && similarity < found.similarity)))
      continue;
    goes_on = conversation.get();
    of_it = each;
    found.similarity = similarity;
  }
  if (longest != nullptr) {
    std::vector<TokenId> spliced(longest->ids.begin(),
                                 longest->ids.begin() + static_cast<std::ptrdiff_t>(agreed.known));
    spliced.insert(spliced.end(), ids->begin() + static_cast<std::ptrdiff_t>(agreed.prompt),
                   ids->end());
    *ids = std::move(spliced);
    found.drawn.assign(longest->drawn.begin(),
                       longest->drawn.begin() + static_cast<std::ptrdiff_t>(agreed.known));
    found.drawn.resize(ids->size());
    found.spliced = agreed.spliced;
    totals_.spliced_tokens += agreed.spliced;
  }
  if (goes_on != nullptr) {
    found.id = goes_on->id;
    found.position = CommonTokens(*ids, goes_on->ids);
    found.schedule = goes_on->schedule;
  }
  return found;
}

std::vector<bool> ConversationTable::DrawnOf(uint64_t owner, std::span<const TokenId> ids) const {
  std::vector<bool> drawn(ids.size());
  size_t longest = 0;
  for (const auto& conversation : conversations_) {
    if (conversation->owner != owner) continue;
    const size_t common = CommonTokens(ids, conversation->ids);
    if (common <= longest) continue;
    longest = common;
    std::copy_n(conversation->drawn.begin(), common, drawn.begin());
  }
  return drawn;
}

const Conversation* ConversationTable::Get(uint64_t owner, const std::string& id) const {
  return Find(owner, id);
}

bool ConversationTable::Begin(uint64_t owner, const std::string& id) {
  Conversation* const conversation = Find(owner, id);
  if (conversation == nullptr) return false;
  ++conversation->running;
  return true;
}

void ConversationTable::End(uint64_t owner, const std::string& id) {
  Conversation* const conversation = Find(owner, id);
  CHECK(conversation != nullptr && conversation->running > 0);
  --conversation->running;
  conversation->used_ms = unix_ms_();
}

// --- Turns -------------------------------------------------------------------------------------

void ConversationTable::Adopt(Conversation conversation) {
  if (!settings_.enabled || Find(conversation.owner, conversation.id) != nullptr) return;
  conversation.used_ms = unix_ms_();  // that is why it was asked for
  conversations_.push_back(std::make_unique<Conversation>(std::move(conversation)));
  Conversation* const adopted = conversations_.back().get();
  ++adopted->running;
  while (conversations_.size() > static_cast<size_t>(settings_.conversations_max) &&
         ForgetOldest()) {
  }
  Store(*adopted);
  --adopted->running;
}

std::string ConversationTable::Commit(Turn turn) {
  if (!settings_.enabled || (turn.id.empty() && !settings_.auto_detect)) return {};
  Conversation* conversation = turn.id.empty() ? nullptr : Find(turn.owner, turn.id);
  if (conversation == nullptr) {
    auto owned = std::make_unique<Conversation>();
    conversation = owned.get();
    conversation->id = turn.id.empty() ? turn.new_id : turn.id;
    conversation->owner = turn.owner;
    conversations_.push_back(std::move(owned));
    ++totals_.begun;
  } else {
    ++totals_.continued;
  }
  conversation->named = conversation->named || turn.named;
  conversation->stored = turn.stored;
  if (!turn.user.empty()) conversation->user = std::move(turn.user);
  conversation->ids = std::move(turn.ids);
  conversation->drawn = std::move(turn.drawn);
  conversation->messages = std::move(turn.messages);
  conversation->message_count = conversation->messages.size();
  conversation->schedule = std::move(turn.schedule);
  ++conversation->turns;
  conversation->used_ms = unix_ms_();
  TakePages(conversation, turn.tail);
  const std::string id = conversation->id;
  ++conversation->running;  // it is the newest, whatever the clock says
  while (conversations_.size() > static_cast<size_t>(settings_.conversations_max) &&
         ForgetOldest()) {
  }
  Store(*conversation);
  --conversation->running;
  return id;
}

void ConversationTable::Store(const Conversation& conversation) {
  shm::ConversationRecord record;
  record.id = conversation.id;
  record.owner = conversation.owner;
  record.tail_page = conversation.tail;
  size_t cached = 0;
  if (conversation.tail != shm::kNoPage) {
    record.tail_hash = store_->chain_hash(conversation.tail);
    for (PageIndex page = conversation.tail; page != shm::kNoPage; page = store_->parent(page))
      cached += store_->tokens(page).size();
  }
  if (cached + 1 == conversation.ids.size()) record.last_token = conversation.ids.back();
  record.used_unix_ms = static_cast<uint64_t>(conversation.used_ms);
  record.turns = conversation.turns;
  record.pinned = conversation.schedule.pinned;
  record.named = conversation.named;
  record.stored = conversation.stored;
  record.type = conversation.schedule.type;
  record.chunk_size = static_cast<uint32_t>(conversation.schedule.chunk_size);
  for (const CacheSegment& segment : conversation.schedule.segments)
    record.segments.push_back({segment.from, segment.bits, segment.keep, segment.size});
  record.messages = static_cast<uint32_t>(conversation.message_count);
  record.message_hashes = conversation.messages;
  while (!records_.Store(record) && ForgetOldest()) {
  }
}

// --- Pages -------------------------------------------------------------------------------------

// The new ones before the old ones are let go, as most of them are the same; which count once.
void ConversationTable::TakePages(Conversation* conversation, PageIndex tail) {
  if (tail != shm::kNoPage) store_->Claim(tail);
  const PageIndex old_tail = std::exchange(conversation->tail, tail);
  const std::vector<PageIndex> old_pinned = std::exchange(conversation->pinned, {});
  for (const PageIndex page : old_pinned) Discount(page);
  if (conversation->schedule.pinned) Pin(conversation);
  for (const PageIndex page : old_pinned) store_->Release(page);
  if (old_tail != shm::kNoPage) store_->Unclaim(old_tail);
}

void ConversationTable::Pin(Conversation* conversation) {
  if (conversation->tail == shm::kNoPage) return;
  const std::vector<PageIndex> path = PathTo(*store_, conversation->tail);
  const NeededPages needed =
      NeededFrom(conversation->schedule, static_cast<int>(conversation->ids.size()));
  uint64_t bytes = 0;
  for (size_t i = 0; i < path.size(); ++i)
    if (needed.Has(i) && !pins_.contains(path[i]))
      bytes += store_->page_bytes(store_->format(path[i]));
  if (bytes > pinned_bytes_left()) {
    LogWarning("conversation {} is not pinned: it needs {} bytes, and {} of {} are left",
               Masked(conversation->id), bytes, pinned_bytes_left(),
               store_->bytes_max() / limits::kPinnedPart);
    return;
  }
  for (size_t i = 0; i < path.size(); ++i) {
    if (!needed.Has(i) || !store_->Acquire(path[i])) continue;
    conversation->pinned.push_back(path[i]);
    if (++pins_[path[i]] == 1) pinned_bytes_ += store_->page_bytes(store_->format(path[i]));
  }
}

// One conversation less pins the page.
void ConversationTable::Discount(PageIndex page) {
  const auto it = pins_.find(page);
  if (--it->second > 0) return;
  pins_.erase(it);
  pinned_bytes_ -= store_->page_bytes(store_->format(page));
}

void ConversationTable::ReleasePinned(const std::vector<PageIndex>& pinned) {
  for (const PageIndex page : pinned) {
    Discount(page);
    store_->Release(page);
  }
}

bool ConversationTable::UnpinOldest() {
  Conversation* oldest = nullptr;
  for (const auto& conversation : conversations_)
    if (!conversation->pinned.empty() &&
        (oldest == nullptr || conversation->used_ms < oldest->used_ms))
      oldest = conversation.get();
  if (oldest == nullptr) return false;
  LogWarning("conversation {} is no longer pinned: a request needs its memory", Masked(oldest->id));
  ReleasePinned(std::exchange(oldest->pinned, {}));
  return true;
}

void ConversationTable::ReleasePages(Conversation* conversation) {
  conversation->schedule.pinned = false;
  TakePages(conversation, shm::kNoPage);
}

uint64_t ConversationTable::pinned_bytes_left() const {
  const uint64_t most = store_->bytes_max() / limits::kPinnedPart;
  return most > pinned_bytes_ ? most - pinned_bytes_ : 0;
}

void ConversationTable::Unpin(const std::function<bool(PageIndex)>& is_it) {
  for (const auto& conversation : conversations_) {
    if (std::ranges::any_of(conversation->pinned, is_it))
      ReleasePinned(std::exchange(conversation->pinned, {}));
  }
}

// --- Forgetting --------------------------------------------------------------------------------

void ConversationTable::Forget(Conversation* conversation, bool with_pages) {
  const PageIndex tail = conversation->tail;
  const uint64_t hash = tail == shm::kNoPage ? 0 : store_->chain_hash(tail);
  records_.Remove(conversation->id, conversation->owner);
  ReleasePages(conversation);
  if (with_pages && tail != shm::kNoPage && store_->IsCached(tail, hash))
    store_->DropUnneeded(tail, KeepsShared(*store_));
  std::erase_if(conversations_, [&](const auto& each) { return each.get() == conversation; });
}

void ConversationTable::Remove(uint64_t owner, const std::string& id) {
  if (Conversation* const conversation = Find(owner, id)) Forget(conversation, true);
}

bool ConversationTable::ForgetOldest() {
  Conversation* oldest = nullptr;
  for (const auto& conversation : conversations_)
    if (conversation->running == 0 &&
        (oldest == nullptr || conversation->used_ms < oldest->used_ms))
      oldest = conversation.get();
  if (oldest == nullptr) return false;
  LogDebug("conversation {} is forgotten: there are too many", oldest->id);
  ++totals_.displaced;
  Forget(oldest, false);
  return true;
}

void ConversationTable::Expire() {
  const int64_t before_ms = unix_ms_() - int64_t{1000} * settings_.idle_timeout_s;
  for (size_t i = conversations_.size(); i-- > 0;) {
    Conversation* const conversation = conversations_[i].get();
    if (conversation->running > 0 || conversation->used_ms >= before_ms) continue;
    LogDebug("conversation {} is forgotten: it was idle for too long", conversation->id);
    ++totals_.expired;
    Forget(conversation, true);
  }
}

size_t ConversationTable::Clear() {
  size_t forgotten = 0;
  for (size_t i = conversations_.size(); i-- > 0;) {
    if (conversations_[i]->running > 0) continue;
    Forget(conversations_[i].get(), true);
    ++forgotten;
  }
  return forgotten;
}

}  // namespace perdure::worker
