#include "shm/conversation_records.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>

#include "base/check.h"
#include "shm/hashes.h"

namespace perdure::shm {
namespace {

constexpr uint32_t kUsed = 1;
constexpr uint32_t kPinned = 1, kNamed = 2, kRamOnly = 4;

bool IsSound(const ConversationShm& shm, uint32_t index) {
  return shm.checksum == ConversationChecksum(shm, index) && shm.id_bytes > 0 &&
         shm.id_bytes <= sizeof shm.id && shm.type_bytes <= sizeof shm.type &&
         shm.segments <= static_cast<uint32_t>(limits::kCacheSegmentsMax);
}

ConversationRecord Read(const ConversationShm& shm) {
  ConversationRecord record;
  record.id.assign(shm.id, shm.id_bytes);
  record.owner = shm.owner;
  record.tail_page = shm.tail_page;
  record.tail_hash = shm.tail_hash;
  record.last_token = shm.last_token;
  record.used_unix_ms = shm.used_unix_ms;
  record.turns = shm.turns;
  record.pinned = (shm.flags & kPinned) != 0;
  record.named = (shm.flags & kNamed) != 0;
  record.stored = (shm.flags & kRamOnly) == 0;
  record.type.assign(shm.type, shm.type_bytes);
  record.chunk_size = shm.chunk_size;
  record.segments.assign(shm.segment, shm.segment + shm.segments);
  record.messages = shm.messages;
  const size_t kept = std::min<size_t>(shm.messages, limits::kMessageHashesKept);
  record.message_hashes.assign(shm.message_hashes, shm.message_hashes + kept);
  return record;
}

void Write(const ConversationRecord& record, ConversationShm* shm) {
  CHECK(!record.id.empty() && record.id.size() <= sizeof shm->id &&
        record.type.size() <= sizeof shm->type &&
        record.segments.size() <= static_cast<size_t>(limits::kCacheSegmentsMax));
  shm->tail_page = record.tail_page;
  shm->owner = record.owner;
  shm->tail_hash = record.tail_hash;
  shm->used_unix_ms = record.used_unix_ms;
  shm->turns = record.turns;
  shm->last_token = record.last_token;
  shm->flags =
      (record.pinned ? kPinned : 0) | (record.named ? kNamed : 0) | (record.stored ? 0 : kRamOnly);
  shm->chunk_size = record.chunk_size;
  shm->segments = static_cast<uint32_t>(record.segments.size());
  shm->messages = record.messages;
  shm->id_bytes = static_cast<uint32_t>(record.id.size());
  shm->type_bytes = static_cast<uint32_t>(record.type.size());
  std::ranges::copy(record.segments, shm->segment);
  const auto& hashes = record.message_hashes;
  const size_t kept = std::min<size_t>(hashes.size(), limits::kMessageHashesKept);
  std::copy(hashes.end() - static_cast<std::ptrdiff_t>(kept), hashes.end(), shm->message_hashes);
  std::ranges::copy(record.id, shm->id);
  std::ranges::copy(record.type, shm->type);
}

}  // namespace

ConversationRecords::ConversationRecords(PageMemory* memory) : memory_(memory) {
  std::map<std::pair<uint64_t, std::string>, std::pair<uint64_t, uint32_t>> newest;
  for (uint32_t index = 0; index < memory->geometry().conversations_max; ++index) {
    const ConversationShm& shm = memory->conversation(index);
    if (shm.state.load(std::memory_order_acquire) != kUsed) continue;
    if (!IsSound(shm, index)) {
      ++dropped_;
      SetState(index, 0);
      continue;
    }
    version_ = std::max(version_, shm.version);
    auto [it, is_new] = newest.try_emplace({shm.owner, std::string(shm.id, shm.id_bytes)},
                                           std::pair(shm.version, index));
    if (is_new) continue;
    uint32_t older = index;
    if (it->second.first < shm.version) {
      older = it->second.second;
      it->second = {shm.version, index};
    }
    SetState(older, 0);
  }
  std::vector<bool> is_used(memory->geometry().conversations_max);
  for (const auto& [key, found] : newest) {
    is_used[found.second] = true;
    places_.push_back({key.second, key.first, found.second});
    recovered_.push_back(Read(memory->conversation(found.second)));
  }
  for (uint32_t index = memory->geometry().conversations_max; index-- > 0;)
    if (!is_used[index]) free_.push_back(index);
}

std::vector<ConversationRecords::Place>::iterator ConversationRecords::Find(const std::string& id,
                                                                            uint64_t owner) {
  return std::ranges::find_if(
      places_, [&](const Place& place) { return place.id == id && place.owner == owner; });
}

void ConversationRecords::SetState(uint32_t index, uint32_t state) {
  memory_->conversation(index).state.exchange(state, std::memory_order_acq_rel);
  memory_->Stored();
}

// Written whole before it counts, and before the older one stops to.
bool ConversationRecords::Store(const ConversationRecord& record) {
  if (free_.empty()) return false;
  const uint32_t index = free_.back();
  free_.pop_back();
  ConversationShm wanted{};
  Write(record, &wanted);
  wanted.version = ++version_;
  wanted.checksum = ConversationChecksum(wanted, index);
  ConversationShm& shm = memory_->conversation(index);
  constexpr size_t kFrom = offsetof(ConversationShm, tail_page);
  const auto bytes = std::as_bytes(std::span(&wanted, 1)).subspan(kFrom);
  // In two halves, between which a test may look.
  auto* to = reinterpret_cast<std::byte*>(&shm) + kFrom;
  std::memcpy(to, bytes.data(), bytes.size() / 2);
  memory_->Stored();
  std::memcpy(to + bytes.size() / 2, bytes.data() + bytes.size() / 2,
              bytes.size() - bytes.size() / 2);
  memory_->Stored();
  SetState(index, kUsed);
  const auto older = Find(record.id, record.owner);
  if (older == places_.end()) {
    places_.push_back({record.id, record.owner, index});
  } else {
    SetState(older->index, 0);
    free_.push_back(std::exchange(older->index, index));
  }
  return true;
}

void ConversationRecords::Remove(const std::string& id, uint64_t owner) {
  const auto place = Find(id, owner);
  if (place == places_.end()) return;
  SetState(place->index, 0);
  free_.push_back(place->index);
  places_.erase(place);
}

}  // namespace perdure::shm
