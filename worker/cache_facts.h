// What is to be told of a model's cache: taken from the store and the conversations, told as JSON.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "base/json.h"
#include "shm/page_store.h"
#include "worker/cache_counters.h"
#include "worker/conversations.h"

namespace perdure::worker {

// 0 of nothing.
inline double PartOf(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

struct CacheTypeFacts {
  uint64_t conversations = 0;
  uint64_t tokens = 0;  // of these conversations
  uint64_t bytes = 0;   // of their pages; what several share counts once
  CacheUse use;
};

// How much the next token's distribution differs from that under 16 bits: mean Kullback-Leibler
// divergence over some positions of a conversation of this model.
struct CacheDivergence {
  double bits8 = 0, bits4 = 0;
  int positions = 0;
};

// Of what is on disk.
struct StoredFacts {
  uint64_t conversations = 0, pages = 0;
  uint64_t bytes = 0, bytes_max = 0;  // of files of pages
  uint64_t pages_waiting = 0;         // to be stored
};

struct CacheFacts {
  std::string type;         // of conversations of which nothing is said
  std::string description;  // of that type
  uint64_t bytes_max = 0, bytes_granted = 0, bytes_used = 0;
  uint64_t bytes_spare = 0;      // of bytes_granted: optimizing returns it to the system
  uint64_t running_bytes = 0;    // of running requests
  uint64_t idle_bytes = 0;       // of conversations that nobody goes on with at the moment
  uint64_t unclaimed_bytes = 0;  // of no conversation
  uint64_t pinned_bytes = 0;
  uint64_t shared_bytes = 0;       // that more than one conversation goes on from
  uint64_t tokens = 0;             // whose KV is there
  shm::PerFormat<uint64_t> pages;  // with their numbers
  shm::PerFormat<uint64_t> page_bytes;
  uint64_t hollow_pages = 0;
  uint64_t dropped_pages = 0;  // whose numbers made room for others, since the worker began
  uint64_t damaged_pages = 0;
  uint64_t longest_tokens = 0;  // of a conversation
  uint64_t conversations = 0, conversations_max = 0, running = 0;
  ConversationTable::Totals totals;
  CacheUse use;
  std::map<std::string, CacheTypeFacts> types;
  std::optional<int64_t> optimized_unix_s;  // when last
  std::optional<CacheDivergence> divergence;
  std::optional<StoredFacts> stored;  // none: nothing is

  // Part of the memory that was asked of the system and holds nothing, 0 to 1.
  double fragmentation() const;
  // Part of it that holds what a conversation or a running request needs.
  double efficiency() const;
};

// Looks at every page once.
CacheFacts TakeFacts(const shm::PageStore& store, const ConversationTable& conversations,
                     const CacheCounters& counters);

Json FactsJson(const CacheFacts& facts);

}  // namespace perdure::worker
