// What conversations are beside their pages, in records that outlive the worker (ConversationShm).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shm/page_memory.h"

namespace perdure::shm {

struct ConversationRecord {
  std::string id;  // 1 to kConversationIdBytesMax bytes; unique for an owner
  uint64_t owner = 0;
  PageIndex tail_page = kNoPage;  // the last page of its chain
  uint64_t tail_hash = 0;         // the tail's chain_hash
  int32_t last_token = -1;        // behind the chain, drawn and not computed; -1: none
  uint64_t used_unix_ms = 0;
  uint32_t turns = 0;
  bool pinned = false;
  bool named = false;  // by the client
  bool stored = true;  // may be, on disk
  std::string type;    // of its cache; up to kCacheTypeNameBytesMax bytes
  uint32_t chunk_size = 0;
  std::vector<CacheSegmentShm> segments;  // up to kCacheSegmentsMax
  uint32_t messages = 0;
  std::vector<uint64_t> message_hashes;  // of the last ones, the newest last; the rest is cut off
};

// The writer's view. A death at any store leaves each conversation as it was before or after. Not
// thread-safe.
class ConversationRecords {
 public:
  // Reads what a predecessor has left. `memory` outlives this.
  explicit ConversationRecords(PageMemory* memory);

  // The newest of each id and owner; what is damaged is left out.
  std::vector<ConversationRecord> recovered() const { return recovered_; }
  uint32_t dropped() const { return dropped_; }  // damaged ones

  // In the place of an older one with that id and owner. False: all records are in use.
  bool Store(const ConversationRecord& record);
  void Remove(const std::string& id, uint64_t owner);
  uint32_t room() const { return static_cast<uint32_t>(free_.size()); }

 private:
  struct Place {
    std::string id;
    uint64_t owner = 0;
    uint32_t index = 0;
  };
  void SetState(uint32_t index, uint32_t state);
  std::vector<Place>::iterator Find(const std::string& id, uint64_t owner);

  PageMemory* const memory_;
  std::vector<ConversationRecord> recovered_;
  uint32_t dropped_ = 0;
  std::vector<Place> places_;  // in use
  std::vector<uint32_t> free_;
  uint64_t version_ = 0;
};

}  // namespace perdure::shm
