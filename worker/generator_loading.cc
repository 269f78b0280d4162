// Stored pages that come back into the arena before a request is scheduled.
#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "worker/cache_schedule.h"
#include "worker/generator_state.h"

namespace perdure::worker {

using snapshot::StoredPage;

namespace {

constexpr size_t kPage = engine::kPageTokens;

}  // namespace

bool Generator::IsToSchedule(const Choice& choice) {
  return !choice.ended && !choice.unsent_end && !choice.keeping && choice.sequence == 0;
}

void Generator::ScheduleOrLoad(Request* request, bool suspect) {
  if (!StartLoad(request, suspect)) ScheduleAll(request, suspect);
}

void Generator::ScheduleAll(Request* request, bool suspect) {
  for (Choice& choice : request->choices)
    if (IsToSchedule(choice)) Schedule(request, &choice, suspect);
}

// True: pages that are stored, and not in memory, are being read; the request waits for them.
bool Generator::StartLoad(Request* request, bool suspect) {
  if (options_.persistence == nullptr || stored_pages_.size() == 0) return false;
  std::vector<TokenId> tokens = request->prompt_ids;
  Choice* longest = nullptr;
  for (Choice& choice : request->choices)
    if (IsToSchedule(choice) && (longest == nullptr || choice.ids.size() > longest->ids.size()))
      longest = &choice;
  if (longest == nullptr) return false;
  tokens.insert(tokens.end(), longest->ids.begin(), longest->ids.end());
  tokens.pop_back();  // it is computed in any case
  const auto key = [&](size_t page) { return KeyOf(*request, page); };
  const std::vector<PageIndex> path = store_->FindPath(tokens, key);
  const auto found = stored_pages_.FindAfter(
      path.empty() ? stored_pages_.root() : store_->chain_hash(path.back()), path.size(),
      std::span(tokens).subspan(path.size() * kPage), key, true, Rotates(request->ticket.cache));

  // As many pages as all that is looked at from there on is in memory or stored.
  const CacheSchedule& schedule = request->ticket.cache;
  const size_t all = path.size() + found.pages.size();
  const auto usable = [&](auto has, size_t pages, size_t fragment) {
    std::vector<size_t> missing(pages + 1);  // before each page
    for (size_t i = 0; i < pages; ++i) missing[i + 1] = missing[i] + (has(i) ? 0 : 1);
    for (;; --pages, fragment = 0) {
      const size_t computed = pages * kPage + fragment;
      const NeededPages needed = NeededFrom(schedule, static_cast<int>(computed));
      const size_t first = std::min(needed.first, pages), from = std::min(needed.from, pages);
      if (missing[first] == 0 && missing[pages] == missing[from]) return std::pair(pages, fragment);
    }
  };
  const auto is_loaded = [&](size_t i) { return i < path.size() && store_->is_loaded(path[i]); };
  const auto is_stored = [&](size_t i) {
    return i < path.size() ? stored_pages_.Has(store_->chain_hash(path[i]))
                           : found.pages[i - path.size()] != nullptr;
  };
  const auto [loaded, no_fragment] = usable(is_loaded, path.size(), 0);
  const auto local = FragmentBehind(*request, tokens, path, loaded);
  const size_t before = loaded * kPage + (local ? local->tokens : 0);
  const auto [pages, fragment] =
      usable([&](size_t i) { return is_loaded(i) || is_stored(i); }, all, found.fragment_tokens);
  if (pages * kPage + fragment <= before) return false;

  // What makes room for the way to them may take stored pages out of the index.
  std::vector<std::optional<StoredPage>> way;
  for (const StoredPage* page : found.pages)
    way.push_back(page != nullptr ? std::optional(*page) : std::nullopt);
  const std::optional<StoredPage> end =
      found.fragment != nullptr ? std::optional(*found.fragment) : std::nullopt;
  // The way to them, without their numbers.
  const Place place{request, longest};
  auto load = std::make_unique<PageLoad>();
  load->suspect = suspect;
  load->begin_us = options_.now_us();
  std::vector<StoredPage> wanted;
  const NeededPages needed = NeededFrom(schedule, static_cast<int>(pages * kPage + fragment));
  PageIndex last = shm::kNoPage;
  const auto go_on_to = [&](const shm::PageKey& of_it, std::span<const TokenId> ids,
                            uint32_t drawn) {
    const auto next = store_->Remember(last, of_it, ids, drawn);
    if (!next) return false;
    if (last != shm::kNoPage) store_->Unclaim(last);
    last = *next;
    return true;
  };
  const auto want = [&](const StoredPage& page) {
    if (store_->is_loaded(last)) return;
    load->missing.emplace(page.chain_hash, last);
    wanted.push_back(page);
  };
  if (const size_t known = std::min(pages, path.size()); known > 0) {
    store_->Claim(last = path[known - 1]);
    for (size_t i = 0; i < known; ++i) {
      if (!needed.Has(i) || store_->is_loaded(path[i])) continue;
      const StoredPage& page = *stored_pages_.Get(store_->chain_hash(path[i]));
      load->missing.emplace(page.chain_hash, path[i]);
      wanted.push_back(page);
    }
  }
  bool is_whole = true;
  for (size_t i = path.size(); i < pages && is_whole; ++i) {
    const std::optional<StoredPage>& page = way[i - path.size()];
    is_whole = go_on_to(key(i), std::span(tokens).subspan(i * kPage, kPage),
                        page ? page->drawn : DrawnOf(place, i, kPage));
    if (is_whole && needed.Has(i)) want(*page);
  }
  if (is_whole && fragment > 0 && go_on_to(end->key, end->tokens, end->drawn)) want(*end);
  load->claimed = last;
  if (wanted.empty()) {
    if (last != shm::kNoPage) store_->Unclaim(last);
    return false;
  }
  request->usable_before = static_cast<int>(before);
  request->usable_after = static_cast<int>(pages * kPage + fragment);
  request->load = std::move(load);
  request->load->waiting.assign(wanted.begin(), wanted.end());
  FetchMore(request);
  if (!request->load->missing.empty()) return true;
  AbandonLoad(request);
  return false;
}

// As many as may be on their way at once. Those are given up for which there is no memory.
void Generator::FetchMore(Request* request) {
  PageLoad& load = *request->load;
  std::vector<PageToFetch> pages;
  while (!load.waiting.empty() &&
         (load.asked_bytes == 0 ||
          load.asked_bytes + load.waiting.front().data_bytes <= limits::kFetchBytes)) {
    StoredPage page = std::move(load.waiting.front());
    load.waiting.pop_front();
    std::optional<PageIndex> open;
    if (page.data_bytes != store_->page_bytes(page.key.format)) {
      LogWarning("a stored page of KV is computed again: it has {} bytes, and not {}",
                 page.data_bytes, store_->page_bytes(page.key.format));
      stored_pages_.Remove(page.chain_hash);
      options_.persistence->DropPages({page.chain_hash});
    } else {
      open = store_->Allocate(page.key.format);
      while (!open && options_.grow_kv && options_.grow_kv())
        open = store_->Allocate(page.key.format);
    }
    if (!open) {
      load.missing.erase(page.chain_hash);
      continue;
    }
    store_->Pin(*open);
    ++filling_;
    load.asked_bytes += page.data_bytes;
    const std::span to(store_->address(*open), page.data_bytes);
    pages.push_back({std::move(page), to, *open});
  }
  if (!pages.empty()) options_.persistence->FetchPages(request->rid, std::move(pages));
}

void Generator::OnAnswer(PageFetched answer) {
  const PageIndex open = answer.place;
  store_->Unpin(open);
  --filling_;
  if (!answer.is_read) stored_pages_.Remove(answer.chain_hash);
  const auto it = requests_.find(answer.ticket);
  PageLoad* const load = it != requests_.end() ? it->second->load.get() : nullptr;
  const auto missing = load != nullptr ? load->missing.find(answer.chain_hash)
                                       : std::map<uint64_t, PageIndex>::iterator();
  // It may have been given up.
  if (load == nullptr || missing == load->missing.end()) return store_->Release(open);
  Request* const request = it->second.get();
  const PageIndex page = missing->second;
  const size_t bytes = store_->page_bytes(store_->format(open));
  load->missing.erase(missing);
  load->asked_bytes -= std::min(load->asked_bytes, bytes);
  // Somebody else may have computed it meanwhile.
  if (!answer.is_read || store_->is_loaded(page) || store_->format(page) != store_->format(open)) {
    store_->Release(open);
  } else {
    const shm::PageKey key{store_->format(page), store_->owner(page), store_->mask(page)};
    const auto tokens = store_->tokens(page);
    load->held.push_back(store_->Seal(open, store_->parent(page), key,
                                      std::vector<TokenId>(tokens.begin(), tokens.end()),
                                      store_->drawn(page), answer.data_checksum));
    load->bytes += bytes;
    const uint32_t now_s = Seconds(options_.unix_ms());
    if (stored_pages_.Touch(answer.chain_hash, now_s))
      options_.persistence->TouchPages({{answer.chain_hash, now_s}});
  }
  FetchMore(request);
  if (load->missing.empty()) EndLoad(request);
}

// Memory is short for a request that runs, or is to run, alone.
Generator::Room Generator::GiveWay() {
  if (options_.grow_kv && options_.grow_kv()) return Room::kMade;
  for (const auto& [rid, request] : requests_) {
    if (!request->load || request->load->held.empty()) continue;
    for (const PageIndex page : std::exchange(request->load->held, {})) store_->Release(page);
    return Room::kMade;
  }
  if (filling_ > 0) return Room::kSoon;  // they will be held
  return conversations_.UnpinOldest() ? Room::kMade : Room::kNone;
}

void Generator::EndLoad(Request* request) {
  const bool suspect = request->load->suspect;
  LogDebug("request {:016x}: {} pages, {} KiB, read from the disk in {:.1f} ms", request->rid,
           request->load->held.size(), request->load->bytes >> 10,
           static_cast<double>(options_.now_us() - request->load->begin_us) / 1000);
  const std::unique_ptr<PageLoad> load = std::move(request->load);
  ScheduleAll(request, suspect);
  for (const PageIndex page : load->held) store_->Release(page);
  store_->Unclaim(load->claimed);
}

void Generator::AbandonLoad(Request* request) {
  const std::unique_ptr<PageLoad> load = std::move(request->load);
  if (!load) return;
  for (const PageIndex page : load->held) store_->Release(page);
  store_->Unclaim(load->claimed);
}

}  // namespace perdure::worker
