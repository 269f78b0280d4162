// What the generator finds of its sequences in the cache, and what it leaves there.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/common_tokens.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "worker/cache_schedule.h"
#include "worker/generator_state.h"
#include "worker/message_hashes.h"
#include "worker/shared_prefixes.h"
#include "worker/turn_messages.h"

namespace perdure::worker {

using protocol::RequestId;

namespace {

constexpr size_t kPage = engine::kPageTokens;

}  // namespace

// --- Whose it is, and how it is kept -----------------------------------------------------------

// Never that of pages which all may find.
uint64_t Generator::OwnerOf(const std::string& tenant) {
  return std::max<uint64_t>(1, Hash64("tenant " + tenant));
}

uint64_t Generator::OwnerOf(RequestId rid, const protocol::GenerationRequest& asked) const {
  if (options_.conversations.enabled) return OwnerOf(asked.tenant);
  // Of use to this request alone, should its worker die.
  return OwnerOf(fmt::format("{} request {:016x}", asked.tenant, rid));
}

size_t Generator::SharedPages(std::span<const TokenId> ids) const {
  size_t pages = 0;
  for (const std::vector<TokenId>& prefix : options_.shared_prefixes)
    pages = std::max(pages, CommonTokens(ids, prefix) / kPage);
  return pages;
}

// What follows from the request and its prompt alone, whichever worker has it.
void Generator::Remember(const protocol::GenerationRequest& asked, Request* request) {
  request->owner = OwnerOf(request->rid, asked);
  request->shared_pages = SharedPages(request->prompt_ids);
  request->retentions = RetentionsOf(request->ticket.cache);
  request->optimization_interval =
      ResolveCache(asked.cache, options_.cache_types).optimization_interval;
  request->asks_to_optimize = asked.cache.settings.optimization_interval.has_value();
  request->named = !asked.conversation_id.empty();
  request->is_forgotten = !asked.remembers;
  if (request->is_forgotten) request->ticket.conversation_id.clear();
  request->stores = options_.persistence != nullptr && asked.store && asked.remembers;
  if (request->stores) request->messages = MessagesOf(asked);
  request->kind = asked.kind;
  request->user = asked.user;
  if (!request->ticket.conversation_id.empty())
    request->goes_on = conversations_.Begin(request->owner, request->ticket.conversation_id);
}

void Generator::EndConversation(Request* request) {
  if (std::exchange(request->goes_on, false))
    conversations_.End(request->owner, request->ticket.conversation_id);
}

void Generator::CountRequest(const Request& request) {
  if (request.choices.empty()) return;
  CacheUse use;
  use.requests = 1;
  use.prompt_tokens = request.prompt_ids.size();
  use.cached_tokens = static_cast<uint64_t>(request.choices[0].from_arena.value_or(0) +
                                            request.choices[0].from_snapshot);
  operator_.NoteRequest(request.ticket.cache.type, use, options_.now_us() - request.received_us,
                        request.optimization_interval,
                        request.asks_to_optimize ? std::optional(request.owner) : std::nullopt);
}

CacheOperator::Context Generator::OperatorContext() {
  CacheOperator::Context context;
  context.model = model_;
  context.store = store_;
  context.conversations = &conversations_;
  const ResolvedCache standard = ResolveCache({}, options_.cache_types);
  context.standard = standard.schedule;
  context.optimization_interval = standard.optimization_interval;
  context.now_us = options_.now_us;
  context.unix_ms = options_.unix_ms;
  context.stored = [this]() -> std::optional<StoredFacts> {
    if (options_.persistence == nullptr) return std::nullopt;
    return StoredFacts{stored_.size(), stored_pages_.size(), stored_pages_.bytes(),
                       options_.stored_bytes_max, to_keep_hashes_.size() + keeping_.size()};
  };
  context.scrub = [this] { Scrub(); };
  context.answer = [this](const protocol::CacheAnswer& answer) { sink_->Send(answer); };
  return context;
}

protocol::Accepted Generator::Recognize(const protocol::GenerationRequest& asked,
                                        std::vector<TokenId>* prompt_ids, Request* request) {
  protocol::Accepted accepted;
  accepted.rid = request->rid;
  ResolvedCache resolved = ResolveCache(asked.cache, options_.cache_types);
  RecognitionRequest wanted;
  wanted.owner = OwnerOf(request->rid, asked);
  wanted.id = asked.conversation_id;
  wanted.exact = asked.prompt_ids.has_value();
  wanted.messages = MessageHashes(asked.chat_json);
  Recognition found = conversations_.Recognize(wanted, prompt_ids);
  request->prompt_drawn = std::move(found.drawn);
  request->ticket.cache = std::move(resolved.schedule);
  if (found.schedule) {
    // Where the request does not say, it goes on as it was.
    if (asked.cache == CacheChoice()) {
      request->ticket.cache = std::move(*found.schedule);
    } else if (auto continued = Continued(*found.schedule, static_cast<int>(found.position),
                                          request->ticket.cache)) {
      request->ticket.cache = std::move(*continued);
    } else {
      resolved.warnings.push_back(fmt::format(
          "the cache stays {}: this conversation has changed it {} times, which is the most",
          found.schedule->type, limits::kCacheSegmentsMax - 1));
      request->ticket.cache = std::move(*found.schedule);
    }
  }
  const Conversation* const goes_on = conversations_.Get(wanted.owner, found.id);
  const bool is_pinned = goes_on != nullptr && !goes_on->pinned.empty();
  if (request->ticket.cache.pinned && !is_pinned && conversations_.pinned_bytes_left() == 0) {
    resolved.warnings.push_back(
        "the cache is kv: pinned conversations hold as much memory as they may");
    request->ticket.cache.pinned = false;
    request->ticket.cache.type = "kv";
  }
  const ConversationSettings& settings = options_.conversations;
  if (settings.enabled && asked.remembers &&
      (settings.auto_detect || !asked.conversation_id.empty())) {
    request->ticket.conversation_id = !found.id.empty() ? found.id
                                      : !asked.conversation_id.empty()
                                          ? asked.conversation_id
                                          : fmt::format("conv_{:016x}", request->rid);
  }
  if (!found.id.empty())
    LogDebug(
        "request {:016x} goes on with conversation {}: {:.0f}% of it, {} of {} tokens in "
        "common, {} spliced",
        request->rid, found.id, 100 * found.similarity, found.position, prompt_ids->size(),
        found.spliced);
  // They repeat what the client has asked for.
  for (const std::string& warning : resolved.warnings)
    LogDebug("request {:016x}: {}", request->rid, warning);
  request->ticket.message_hashes = std::move(wanted.messages);
  accepted.ticket = request->ticket;
  accepted.spliced = static_cast<int32_t>(found.spliced);
  accepted.warnings = std::move(resolved.warnings);
  return accepted;
}

int Generator::MemoryTokens(const CacheSchedule& schedule) {
  if (memory_tokens_ && memory_tokens_->first == schedule) return memory_tokens_->second;
  int fits = 0, too_many = options_.admission.max_context + 1;
  while (too_many - fits > 1) {
    const int tokens = fits + (too_many - fits) / 2;
    (store_->CanEverHold(PagesHeld(schedule, tokens)) ? fits : too_many) = tokens;
  }
  memory_tokens_.emplace(schedule, fits);
  return fits;
}

// --- What is found -----------------------------------------------------------------------------

shm::PageKey Generator::KeyOf(const Request& request, size_t page) const {
  return KeyOf(request.ticket.cache, request.owner, request.shared_pages, page);
}

shm::PageKey Generator::KeyOf(const CacheSchedule& schedule, uint64_t owner, size_t shared_pages,
                              size_t page) const {
  return {FormatOf(schedule, page), page < shared_pages ? kSharedOwner : owner,
          MaskOf(schedule, page)};
}

// Bit i: the model has drawn the page's token i.
uint32_t Generator::DrawnOf(const Place& place, size_t page, size_t count) const {
  const Request& request = *place.request;
  uint32_t drawn = 0;
  for (size_t i = 0; i < count; ++i) {
    const size_t position = page * kPage + i;
    if (position >= request.prompt_ids.size() || request.prompt_drawn[position])
      drawn |= uint32_t{1} << i;
  }
  return drawn;
}

CachedPages Generator::CachedPrefix(SequenceId id) {
  const Place place = PlaceOf(id);
  const Request& request = *place.request;
  std::vector<TokenId> tokens = request.prompt_ids;
  tokens.insert(tokens.end(), place.choice->ids.begin(), place.choice->ids.end());
  // The last token is computed in any case: its logits are wanted.
  tokens.pop_back();
  const int64_t begin_us = options_.now_us();
  CachedPages found;
  std::vector<PageIndex> path;
  bool with_fragment = true;
  // Again where a page turned out to be damaged, or there was no room for a copy.
  do {
    path = store_->FindPath(tokens, [&](size_t page) { return KeyOf(request, page); });
  } while (!TakeFound(request, tokens, path, &with_fragment, &found));
  const size_t pages = static_cast<size_t>(found.computed) / kPage;
  place.choice->sealed_pages = pages;
  if (auto& comeback = place.choice->comeback) {
    comeback->verify_us += options_.now_us() - begin_us;
    comeback->cached = found.computed;
  }
  return found;
}

PageIndex Generator::OwnEnd(SequenceId id) const {
  const Request& request = *PlaceOf(id).request;
  const Conversation* const goes_on =
      conversations_.Get(request.owner, request.ticket.conversation_id);
  return goes_on == nullptr ? shm::kNoPage : goes_on->tail;
}

// A page that begins as the one behind `pages` of the path would; not all of it.
std::optional<shm::PageTree::Match> Generator::FragmentBehind(const Request& request,
                                                              std::span<const TokenId> tokens,
                                                              std::span<const PageIndex> path,
                                                              size_t pages) const {
  tokens = tokens.subspan(pages * kPage);
  tokens = tokens.first(std::min(tokens.size(), kPage - 1));
  if (tokens.empty()) return std::nullopt;
  const PageIndex parent = pages == 0 ? shm::kNoPage : path[pages - 1];
  const shm::PageKey key = KeyOf(request, pages);
  auto match = store_->FindFragment(parent, key, tokens);
  if (const auto beginning = BeginningOf(request.ticket.cache, pages)) {
    shm::PageKey other = key;
    other.mask = beginning->mask;
    auto of_it = store_->FindFragment(
        parent, other, tokens.first(std::min<size_t>(tokens.size(), beginning->count)));
    if (of_it && (!match || of_it->tokens > match->tokens)) match = of_it;
  }
  return match;
}

// As many of the path's pages, and of the page behind them, as all that is looked at from there on
// has its numbers. False, and nothing, where one of them cannot be had.
bool Generator::TakeFound(const Request& request, std::span<const TokenId> tokens,
                          std::span<const PageIndex> path, bool* with_fragment,
                          CachedPages* found) {
  std::vector<size_t> missing(path.size() + 1);  // before each page
  for (size_t i = 0; i < path.size(); ++i)
    missing[i + 1] = missing[i] + (store_->is_loaded(path[i]) ? 0 : 1);
  size_t pages = path.size(), computed = 0;
  std::optional<shm::PageTree::Match> fragment;
  NeededPages needed;
  for (;; --pages) {
    if (*with_fragment) fragment = FragmentBehind(request, tokens, path, pages);
    computed = pages * kPage + (fragment ? fragment->tokens : 0);
    needed = NeededFrom(request.ticket.cache, static_cast<int>(computed));
    const size_t first = std::min(needed.first, pages), from = std::min(needed.from, pages);
    if (missing[first] == 0 && missing[pages] == missing[from]) break;
  }
  *found = {};
  const auto give_up = [&] {
    for (const PageIndex page : found->pages)
      if (page != shm::kNoPage) store_->Release(page);
    return false;
  };
  for (size_t i = 0; i < pages; ++i) {
    if (!needed.Has(i)) {
      found->pages.push_back(shm::kNoPage);
      continue;
    }
    if (!store_->Acquire(path[i])) return give_up();
    found->pages.push_back(path[i]);
  }
  if (fragment) {
    // It stays while room is made for the copy.
    if (!store_->Acquire(fragment->page)) return give_up();
    const auto copy = store_->Allocate(FormatOf(request.ticket.cache, pages));
    if (copy) store_->Copy(fragment->page, *copy);
    store_->Release(fragment->page);
    if (!copy) {
      *with_fragment = false;
      return give_up();
    }
    found->pages.push_back(*copy);
  }
  for (size_t i = 0; i < pages; ++i)
    if (!needed.Has(i)) store_->Skip(path[i]);
  found->computed = static_cast<int>(computed);
  return true;
}

// --- What is left ------------------------------------------------------------------------------

PageIndex Generator::SealPage(const Place& place, size_t page, size_t count, PageIndex open) {
  const std::vector<PageIndex>& pages = scheduler_.pages(place.choice->sequence);
  std::vector<TokenId> joined;
  return store_->Seal(open, page == 0 ? shm::kNoPage : pages[page - 1], KeyOf(*place.request, page),
                      TokensOf(place, page * kPage, count, &joined), DrawnOf(place, page, count));
}

// Pages that this step has filled become part of the cache.
void Generator::SealFullPages(const StepEntry& entry, const Place& place) {
  size_t& sealed = place.choice->sealed_pages;
  const auto full = static_cast<size_t>(entry.start + entry.count) / kPage;
  for (; sealed < full; ++sealed)
    scheduler_.SetPage(entry.id, sealed,
                       SealPage(place, sealed, kPage, scheduler_.pages(entry.id)[sealed]));
}

// The page that is not full, as far as it is computed; so its sequence is over.
void Generator::SealTail(const Place& place) {
  const SequenceId id = place.choice->sequence;
  const auto computed = static_cast<size_t>(scheduler_.computed(id));
  if (computed % kPage == 0) return;
  const size_t page = computed / kPage;
  scheduler_.SetPage(id, page, SealPage(place, page, computed % kPage, scheduler_.pages(id)[page]));
}

// The prompt is computed, and others wait to go on from its end: they find a copy of its last page.
void Generator::ShareTail(const Place& place) {
  const std::vector<Choice>& choices = place.request->choices;
  if (std::ranges::none_of(choices, [](const Choice& choice) { return choice.follows; })) return;
  const SequenceId id = place.choice->sequence;
  const auto computed = static_cast<size_t>(scheduler_.computed(id));
  if (computed % kPage == 0) return;
  const PageIndex open = scheduler_.pages(id)[computed / kPage];
  const auto copy = store_->Allocate(store_->format(open));
  if (!copy) return;
  store_->Copy(open, *copy);
  store_->Release(SealPage(place, computed / kPage, computed % kPage, *copy));
}

// A sequence is over. What it has computed stays for whoever goes on from there.
std::string Generator::Leave(const Place& place, bool has_ended) {
  std::string conversation_id;
  const SequenceId id = place.choice->sequence;
  if (id != 0) {
    if (options_.conversations.enabled) SealTail(place);
    if (has_ended) conversation_id = Commit(place);
    places_.erase(id);
    scheduler_.Remove(id);
    place.choice->sequence = 0;
  } else if (has_ended) {
    conversation_id = Commit(place);
  }
  if (!options_.conversations.enabled || place.request->is_forgotten) DropOwn(place);
  return conversation_id;
}

// Nobody goes on with what this answer has left.
void Generator::DropOwn(const Place& place) {
  const Request& request = *place.request;
  std::vector<TokenId> joined;
  const auto tokens =
      TokensOf(place, 0, request.prompt_ids.size() + place.choice->ids.size(), &joined);
  const std::vector<PageIndex> path =
      store_->FindPath(tokens, [&](size_t page) { return KeyOf(request, page); });
  const auto keeps = KeepsShared(*store_);
  if (const auto fragment = FragmentBehind(request, tokens, path, path.size()))
    store_->DropUnneeded(fragment->page, keeps);
  if (!path.empty()) store_->DropUnneeded(path.back(), keeps);
}

// The turn becomes the conversation's last.
std::string Generator::Commit(const Place& place) {
  Request& request = *place.request;
  Choice& choice = *place.choice;
  if (request.ticket.conversation_id.empty() || choice.ids.empty() ||
      choice.index >= limits::kChoicesRemembered)
    return {};
  Turn turn;
  turn.owner = request.owner;
  // The first answer goes on with the conversation, others branch off.
  const std::string own = fmt::format("conv_{:016x}", request.rid);
  turn.new_id = choice.index == 0 ? own : fmt::format("{}_{}", own, choice.index);
  if (choice.index == 0) {
    turn.id = request.ticket.conversation_id;
    turn.named = request.named;
  }
  turn.ids = request.prompt_ids;
  turn.ids.insert(turn.ids.end(), choice.ids.begin(), choice.ids.end());
  turn.drawn = request.prompt_drawn;
  turn.drawn.resize(turn.ids.size(), true);
  turn.messages = request.ticket.message_hashes;
  if (!turn.messages.empty()) AddAnswer(choice.said, &turn.messages);
  turn.schedule = request.ticket.cache;
  if (choice.sequence != 0) {
    const int computed = scheduler_.computed(choice.sequence);
    if (computed > 0)
      turn.tail = scheduler_.pages(choice.sequence)[static_cast<size_t>(computed - 1) / kPage];
  } else {
    // It has ended before, with a worker that could not tell: its pages are those that are there.
    const std::vector<PageIndex> path =
        store_->FindPath(turn.ids, [&](size_t page) { return KeyOf(request, page); });
    if (!path.empty()) turn.tail = path.back();
  }
  turn.stored = request.stores;
  turn.user = request.user;
  const uint64_t owner = turn.owner;
  const std::string id = conversations_.Commit(std::move(turn));
  if (const Conversation* kept = conversations_.Get(owner, id)) NoteStored(*kept);
  return id;
}

}  // namespace perdure::worker
