// Conversations that go: on demand, by their age, and what a rewound one leaves behind.
//
// All is unreachable at once; the rest is done some at a time, between steps and other jobs of the
// disk. Pages go before their turns: a process that ends in between leaves none that no turn tells
// of any more.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "engine/kv_view.h"
#include "shm/hashes.h"
#include "worker/cache_schedule.h"
#include "worker/generator_state.h"
#include "worker/shared_prefixes.h"

namespace perdure::worker {

using snapshot::StoredConversation;
using snapshot::TurnChain;

namespace {

constexpr size_t kPage = engine::kPageTokens;

}  // namespace

// --- Out of reach ------------------------------------------------------------------------------

// In memory, or that a request is going to make it.
bool Generator::IsKnown(uint64_t owner, const std::string& id) const {
  if (conversations_.Get(owner, id) != nullptr) return true;
  return std::ranges::any_of(requests_, [&](const auto& entry) {
    return entry.second->owner == owner && entry.second->ticket.conversation_id == id;
  });
}

// Whoever's, and for whomever, if that is said; stored, in memory, or that a request will leave.
std::vector<StoredConversation> Generator::AllOf(std::optional<uint64_t> owner,
                                                 const std::string& user) const {
  std::vector<StoredConversation> all;
  for (const StoredConversation* each : stored_.Of(owner, user)) all.push_back(*each);
  std::set<ConversationName> more;
  const auto add = [&](uint64_t whose, const std::string& id, const std::string& of_user) {
    if (id.empty() || whose != owner.value_or(whose) || (!user.empty() && of_user != user)) return;
    if (stored_.Find(whose, id) == nullptr) more.emplace(whose, id);
  };
  for (const auto& known : conversations_.all()) add(known->owner, known->id, known->user);
  for (const auto& [rid, request] : requests_)
    add(request->owner, request->ticket.conversation_id, request->user);
  for (const auto& [whose, id] : more) {
    StoredConversation& not_stored = all.emplace_back();
    not_stored.owner = whose;
    not_stored.id = id;
  }
  return all;
}

void Generator::ForgetConversations(const std::set<ConversationName>& names) {
  protocol::Forgotten forgotten;
  for (auto& [rid, fetching] : fetching_) {
    if (!names.contains({fetching.stored.owner, fetching.stored.id})) continue;
    fetching.is_deleted = true;
    fetching.submit.request.remembers = false;
    forgotten.rids.push_back(rid);
  }
  for (const auto& [rid, request] : requests_) {
    if (!names.contains({request->owner, request->ticket.conversation_id})) continue;
    EndConversation(request.get());
    request->ticket.conversation_id.clear();
    request->stores = false;
    request->is_forgotten = true;
    if (request->live) forgotten.rids.push_back(rid);
  }
  std::vector<ConversationName> known;
  for (const auto& conversation : conversations_.all()) {
    if (!names.contains({conversation->owner, conversation->id})) continue;
    known.emplace_back(conversation->owner, conversation->id);
    for (PageIndex page = conversation->tail; page != shm::kNoPage; page = store_->parent(page))
      to_keep_hashes_.erase(store_->chain_hash(page));
  }
  for (const auto& [owner, id] : known) conversations_.Remove(owner, id);
  for (const auto& [owner, id] : names) stored_.Remove(owner, id);
  if (!forgotten.rids.empty()) sink_->Send(forgotten);
}

// --- Some at a time ----------------------------------------------------------------------------

void Generator::DeleteConversations(protocol::RequestId rid,
                                    std::vector<StoredConversation> conversations) {
  std::set<ConversationName> names;
  for (const StoredConversation& each : conversations) names.emplace(each.owner, each.id);
  Deletion deletion;
  for (const auto& known : conversations_.all())
    if (names.contains({known->owner, known->id}) && !known->ids.empty())
      deletion.known.push_back({known->owner,
                                false,
                                {known->ids,
                                 {static_cast<uint32_t>(known->ids.size())},
                                 known->schedule,
                                 options_.fingerprint,
                                 options_.numerics}});
  ForgetConversations(names);
  deleting_.merge(names);
  deletion.rid = rid;
  deletion.waiting.assign(std::make_move_iterator(conversations.begin()),
                          std::make_move_iterator(conversations.end()));
  Begin(std::move(deletion));
}

void Generator::ForgetTurnsBehind(uint32_t turn, const StoredConversation& conversation,
                                  protocol::RequestId rid, Persistence::Job then) {
  Deletion deletion;
  deletion.rid = rid;
  deletion.turns_kept = turn;
  deletion.reads_kept = true;
  deletion.then = std::move(then);
  deletion.waiting = {conversation};
  Begin(std::move(deletion));
}

void Generator::Begin(Deletion deletion) {
  const uint64_t ticket = ++last_deletion_;
  ReadMore(ticket, &deletions_.emplace(ticket, std::move(deletion)).first->second);
}

// Turns of the batch, or of the next one, by which their pages are found.
void Generator::ReadMore(uint64_t ticket, Deletion* deletion) {
  if (deletion->batch.empty()) {
    while (!deletion->waiting.empty() && deletion->batch.size() < limits::kDeletionsAtOnce) {
      deletion->batch.push_back(std::move(deletion->waiting.front()));
      deletion->waiting.pop_front();
    }
    deletion->read = 0;
    deletion->next_turn = 1;
  }
  if (deletion->batch.empty()) return EndDeletion(ticket);
  std::vector<TurnsOf> turns;
  for (size_t i = deletion->read; i < deletion->batch.size(); ++i) {
    const StoredConversation& each = deletion->batch[i];
    turns.push_back({each.owner, each.id, i == deletion->read ? deletion->next_turn : 1,
                     deletion->reads_kept ? deletion->turns_kept : 0});
  }
  options_.persistence->FetchChains(ticket, std::move(turns));
}

void Generator::OnAnswer(ChainsFetched answer) {
  const auto it = deletions_.find(answer.ticket);
  if (it == deletions_.end()) return;
  Deletion& deletion = it->second;
  std::ranges::move(std::exchange(deletion.known, {}), std::back_inserter(deletion.chains));
  for (ChainsFetched::OfOne& each : answer.conversations) {
    const uint64_t owner = deletion.batch[deletion.read].owner;
    for (TurnChain& chain : each.chains)
      deletion.chains.push_back({owner, deletion.reads_kept, std::move(chain)});
    deletion.next_turn = each.next;
    if (each.next != 0) break;
    if (deletion.reads_kept) {
      deletion.reads_kept = false;
      deletion.next_turn = deletion.turns_kept + 1;
      break;
    }
    ++deletion.read;
    deletion.next_turn = 1;
  }
  if (deletion.chains.empty()) AfterChains(answer.ticket, &deletion);
}

bool Generator::HasChainsToForget() const {
  return std::ranges::any_of(deletions_,
                             [](const auto& entry) { return !entry.second.chains.empty(); });
}

void Generator::ForgetSomeChains() {
  size_t tokens = 0;
  std::vector<uint64_t> done;
  for (auto& [ticket, deletion] : deletions_) {
    if (deletion.chains.empty()) continue;
    while (!deletion.chains.empty() && tokens < limits::kChainTokensForgotten) {
      const Deletion::Chain& first = deletion.chains.front();
      tokens += first.chain.ids.size();
      if (first.is_kept)
        NeedChain(first.owner, first.chain, &deletion);
      else
        ForgetChain(first.owner, first.chain, &deletion);
      deletion.chains.pop_front();
    }
    if (deletion.chains.empty()) done.push_back(ticket);
  }
  for (const uint64_t ticket : done) AfterChains(ticket, &deletions_.at(ticket));
}

void Generator::AfterChains(uint64_t ticket, Deletion* deletion) {
  if (deletion->read < deletion->batch.size()) return ReadMore(ticket, deletion);
  options_.persistence->ErasePages(ticket, deletion->pages);
}

void Generator::OnAnswer(PagesErased answer) {
  const auto it = deletions_.find(answer.ticket);
  if (it == deletions_.end()) return;
  Deletion& deletion = it->second;
  deletion.pages.clear();
  if (deletion.then) {
    const auto ended = deletions_.extract(it);
    return options_.persistence->Manage(ended.mapped().rid, std::move(ended.mapped().then));
  }
  std::vector<ConversationName> names;
  for (const StoredConversation& each : deletion.batch) names.emplace_back(each.owner, each.id);
  options_.persistence->Delete(answer.ticket, std::move(names));
}

void Generator::OnAnswer(ConversationsDeleted answer) {
  const auto it = deletions_.find(answer.ticket);
  if (it == deletions_.end()) return;
  Deletion& deletion = it->second;
  for (const ConversationName& name : answer.removed) {
    if (deletion.ids.size() < limits::kDeletedIdsTold) deletion.ids.push_back(name.second);
    deleting_.erase(name);
  }
  deletion.removed += answer.removed.size();
  // What has begun under these names meanwhile has gone with them.
  ForgetConversations({answer.removed.begin(), answer.removed.end()});
  const std::set<ConversationName> kept(answer.kept.begin(), answer.kept.end());
  for (const StoredConversation& each : deletion.batch) {
    if (!kept.contains({each.owner, each.id})) continue;
    deleting_.erase({each.owner, each.id});
    if (each.turns > 0) stored_.Put(each);
  }
  deletion.kept += kept.size();
  if (deletion.why.empty()) deletion.why = answer.why;
  deletion.batch.clear();
  ReadMore(answer.ticket, &deletion);
}

void Generator::EndDeletion(uint64_t ticket) {
  const auto ended = deletions_.extract(ticket);
  const Deletion& deletion = ended.mapped();
  if (deletion.kept > 0)
    LogError("{} of {} conversations could not be deleted: {}", deletion.kept,
             deletion.kept + deletion.removed, deletion.why);
  if (deletion.rid == 0) return;
  protocol::ConversationAnswer answer;
  answer.rid = deletion.rid;
  if (deletion.kept > 0) {
    answer.error_code = static_cast<uint16_t>(ErrorCode::io_error);
    answer.text = fmt::format("{} of {} conversations could not be deleted: {}", deletion.kept,
                              deletion.kept + deletion.removed, deletion.why);
  } else {
    answer.text = DumpJson({{"object", "conversation.deleted"},
                            {"deleted", true},
                            {"count", deletion.removed},
                            {"ids", deletion.ids}});
  }
  sink_->Send(answer);
}

// --- Pages -------------------------------------------------------------------------------------

// Of full pages, and of those in which a turn ends; in order.
Generator::ChainHashes Generator::HashesOf(uint64_t owner, const TurnChain& chain) const {
  ChainHashes hashes;
  if (chain.ids.empty() || !IsSound(chain.schedule)) return hashes;
  const auto computed = std::span(chain.ids).first(chain.ids.size() - 1);
  const size_t shared = SharedPages(chain.ids);
  uint64_t parent = shm::RootHash(chain.fingerprint, chain.numerics);
  // What was shared when the page was stored may not be any more, and the other way round.
  bool is_shared = true;
  const auto hash_of = [&](size_t page, std::span<const TokenId> tokens, bool* all_share) {
    shm::PageKey key = KeyOf(chain.schedule, owner, shared, page);
    if (!is_shared) key.owner = owner;
    uint64_t hash = shm::ChainHash(parent, key, shm::TokensHash(tokens));
    if (is_shared && !stored_pages_.Has(hash)) {
      shm::PageKey other = key;
      other.owner = key.owner == kSharedOwner ? owner : kSharedOwner;
      const uint64_t of_other = shm::ChainHash(parent, other, shm::TokensHash(tokens));
      if (stored_pages_.Has(of_other)) {
        hash = of_other;
        key = other;
      }
    }
    *all_share = key.owner == kSharedOwner;
    return hash;
  };
  auto end = chain.ends.begin();
  for (size_t page = 0;; ++page) {
    const size_t from = page * kPage;
    for (bool ignored; end != chain.ends.end() && *end <= from + kPage; ++end)
      if (*end > from + 1)
        hashes.ends.push_back(hash_of(page, computed.subspan(from, *end - 1 - from), &ignored));
    if (from + kPage > computed.size()) return hashes;
    parent = hash_of(page, computed.subspan(from, kPage), &is_shared);
    hashes.full.push_back(parent);
    if (is_shared) hashes.shared = hashes.full.size();
  }
}

// Of turns that stay.
void Generator::NeedChain(uint64_t owner, const TurnChain& chain, Deletion* deletion) {
  const ChainHashes hashes = HashesOf(owner, chain);
  deletion->needed.insert(hashes.full.begin(), hashes.full.end());
  deletion->needed.insert(hashes.ends.begin(), hashes.ends.end());
}

// In memory what nobody else needs; of what is stored, or on its way there, what no other
// conversation has stored pages behind.
void Generator::ForgetChain(uint64_t owner, const TurnChain& chain, Deletion* deletion) {
  if (chain.ids.empty() || !IsSound(chain.schedule)) return;
  ForgetInMemory(owner, chain);
  ChainHashes hashes = HashesOf(owner, chain);
  const auto drop = [&](uint64_t hash) {
    if (deletion->needed.contains(hash) || !stored_pages_.Children(hash).empty()) return false;
    to_keep_hashes_.erase(hash);
    keeping_.erase(hash);
    stored_pages_.Remove(hash);
    deletion->pages.push_back(hash);
    return true;
  };
  for (const uint64_t hash : hashes.ends) drop(hash);
  while (hashes.full.size() > hashes.shared && drop(hashes.full.back())) hashes.full.pop_back();
}

// From the end; at each place also shorter pages, in which earlier turns have ended.
void Generator::ForgetInMemory(uint64_t owner, const TurnChain& chain) {
  const auto computed = std::span(chain.ids).first(chain.ids.size() - 1);
  const size_t shared = SharedPages(chain.ids);
  const auto key = [&](size_t page) { return KeyOf(chain.schedule, owner, shared, page); };
  const std::vector<PageIndex> path = store_->FindPath(computed, key);
  std::vector<uint64_t> hashes;
  for (const PageIndex page : path) hashes.push_back(store_->chain_hash(page));
  const auto is_there = [&](size_t i) { return store_->IsCached(path[i], hashes[i]); };
  const auto drop = [&](PageIndex page) {
    const uint64_t hash = store_->chain_hash(page);
    store_->DropUnneeded(page, KeepsShared(*store_));
    return !store_->IsCached(page, hash);
  };
  for (size_t i = path.size() + 1; i-- > 0;) {
    if (i < path.size() && is_there(i)) drop(path[i]);
    if (i > 0 && !is_there(i - 1)) continue;
    const auto rest = computed.subspan(i * kPage);
    for (;;) {
      const auto found = store_->FindFragment(i == 0 ? shm::kNoPage : path[i - 1], key(i), rest);
      if (!found || found->tokens < store_->tokens(found->page).size() || !drop(found->page)) break;
    }
  }
}

// --- By age ------------------------------------------------------------------------------------

void Generator::SetTenants(const protocol::TenantSettings& settings) {
  retention_ms_of_.clear();
  for (const protocol::TenantRetention& each : settings.retentions)
    retention_ms_of_[OwnerOf(each.tenant)] = int64_t{each.retention_days} * 24 * 3600 * 1000;
  knows_tenants_ = true;
  next_retention_us_ = 0;
}

void Generator::DropPastRetention() {
  const int64_t now_us = options_.now_us();
  if (options_.persistence == nullptr || !knows_tenants_ || now_us < next_retention_us_) return;
  next_retention_us_ = now_us + int64_t{limits::kRetentionIntervalMs} * 1000;
  const int64_t now_ms = options_.unix_ms();
  const auto before = [&](uint64_t owner) {
    const auto own = retention_ms_of_.find(owner);
    return now_ms -
           std::min(own != retention_ms_of_.end() ? own->second : options_.retention_ms, now_ms);
  };
  std::vector<StoredConversation> old = stored_.Before(before);
  // Those that are in memory alone.
  for (const auto& known : conversations_.all()) {
    if (known->used_ms >= before(known->owner) || stored_.Find(known->owner, known->id) != nullptr)
      continue;
    StoredConversation& not_stored = old.emplace_back();
    not_stored.owner = known->owner;
    not_stored.id = known->id;
  }
  // Somebody goes on with it, or waits for it.
  std::erase_if(old, [this](const StoredConversation& each) {
    const Conversation* const known = conversations_.Get(each.owner, each.id);
    return (known != nullptr && known->running > 0) || deleting_.contains({each.owner, each.id}) ||
           std::ranges::any_of(fetching_, [&](const auto& entry) {
             return entry.second.stored.owner == each.owner && entry.second.stored.id == each.id;
           });
  });
  if (old.empty()) return;
  LogInfo("{} conversations are past their retention, and deleted", old.size());
  DeleteConversations(0, std::move(old));
}

}  // namespace perdure::worker
