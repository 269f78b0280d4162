#include "worker/cache_facts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace perdure::worker {

using shm::PageIndex;

double CacheFacts::fragmentation() const {
  return bytes_granted > bytes_used ? PartOf(bytes_granted - bytes_used, bytes_granted) : 0.0;
}

double CacheFacts::efficiency() const {
  return PartOf(bytes_used - std::min(bytes_used, unclaimed_bytes), bytes_granted);
}

CacheFacts TakeFacts(const shm::PageStore& store, const ConversationTable& conversations,
                     const CacheCounters& counters) {
  CacheFacts facts;
  facts.bytes_max = store.bytes_max();
  facts.bytes_granted = store.bytes_granted();
  facts.bytes_used = store.used_bytes();
  facts.bytes_spare = store.bytes_spare();
  facts.pages = store.loaded();
  for (const shm::PageFormat format : shm::kAllFormats)
    facts.page_bytes[format] = store.page_bytes(format);
  facts.hollow_pages = store.hollow();
  facts.dropped_pages = store.evicted();
  facts.damaged_pages = store.damaged();
  facts.conversations = conversations.all().size();
  facts.conversations_max = static_cast<uint64_t>(conversations.settings().conversations_max);
  facts.totals = conversations.totals();
  facts.pinned_bytes = conversations.pinned_bytes();
  facts.use = counters.all;
  for (const auto& [type, use] : counters.by_type) facts.types[type].use = use;

  std::vector<uint32_t> users(store.pages_end());  // conversations that a page is of
  std::vector<bool> is_running(store.pages_end());
  std::map<std::string, std::vector<bool>> seen;  // by type
  for (const auto& conversation : conversations.all()) {
    CacheTypeFacts& type = facts.types[conversation->schedule.type];
    auto& of_type = seen[conversation->schedule.type];
    of_type.resize(store.pages_end());
    ++type.conversations;
    type.tokens += conversation->ids.size();
    facts.longest_tokens = std::max<uint64_t>(facts.longest_tokens, conversation->ids.size());
    facts.running += conversation->running > 0;
    for (PageIndex page = conversation->tail; page != shm::kNoPage; page = store.parent(page)) {
      ++users[page];
      if (conversation->running > 0) is_running[page] = true;
      if (of_type[page] || !store.is_loaded(page)) continue;
      of_type[page] = true;
      type.bytes += store.page_bytes(store.format(page));
    }
  }
  for (PageIndex page = 0; page < store.pages_end(); ++page) {
    if (!store.is_loaded(page)) continue;
    const uint64_t bytes = store.page_bytes(store.format(page));
    facts.tokens += store.tokens(page).size();
    // What is open belongs to a request that runs.
    if (store.is_open(page) || is_running[page])
      facts.running_bytes += bytes;
    else if (users[page] > 0)
      facts.idle_bytes += bytes;
    else if (store.is_referenced(page))
      facts.running_bytes += bytes;
    else
      facts.unclaimed_bytes += bytes;
    if (users[page] > 1) facts.shared_bytes += bytes;
  }
  return facts;
}

Json FactsJson(const CacheFacts& facts) {
  const auto use_json = [](const CacheUse& use) {
    return Json{{"requests", use.requests},
                {"prompt_tokens", use.prompt_tokens},
                {"cached_tokens", use.cached_tokens},
                {"hit_rate", use.hit_rate()}};
  };
  Json types = Json::object();
  for (const auto& [name, type] : facts.types) {
    types[name] = {{"entries", type.conversations}, {"tokens", type.tokens}, {"bytes", type.bytes}};
    types[name].update(use_json(type.use));
  }
  Json json = {{"type", facts.type},
               {"description", facts.description},
               {"entries", facts.conversations},
               {"tokens", facts.tokens},
               {"bytes", facts.bytes_used},
               {"bytes_granted", facts.bytes_granted},
               {"bytes_spare", facts.bytes_spare},
               {"bytes_max", facts.bytes_max}};
  json.update(use_json(facts.use));
  json["last_optimized"] = facts.optimized_unix_s ? Json(*facts.optimized_unix_s) : Json();
  json["fragmentation"] = facts.fragmentation();
  json["memory_efficiency"] = facts.efficiency();
  json["memory"] = {{"running_bytes", facts.running_bytes},
                    {"idle_bytes", facts.idle_bytes},
                    {"unclaimed_bytes", facts.unclaimed_bytes},
                    {"pinned_bytes", facts.pinned_bytes},
                    {"shared_bytes", facts.shared_bytes}};
  json["pages"] = {{"bits16", facts.pages[shm::PageFormat::kFloat16]},
                   {"bits8", facts.pages[shm::PageFormat::kBits8]},
                   {"bits4", facts.pages[shm::PageFormat::kBits4]},
                   {"hollow", facts.hollow_pages},
                   {"dropped", facts.dropped_pages},
                   {"damaged", facts.damaged_pages}};
  json["conversations"] = {{"total_conversations", facts.conversations},
                           {"max", facts.conversations_max},
                           {"running", facts.running},
                           {"begun", facts.totals.begun},
                           {"continued", facts.totals.continued},
                           {"expired", facts.totals.expired},
                           {"displaced", facts.totals.displaced},
                           {"recovered", facts.totals.recovered},
                           {"longest_tokens", facts.longest_tokens},
                           {"spliced_tokens", facts.totals.spliced_tokens}};
  if (facts.stored)
    json["snapshots"] = {{"conversations", facts.stored->conversations},
                         {"pages", facts.stored->pages},
                         {"bytes", facts.stored->bytes},
                         {"bytes_max", facts.stored->bytes_max},
                         {"pages_waiting", facts.stored->pages_waiting}};
  json["types"] = std::move(types);
  return json;
}

}  // namespace perdure::worker
