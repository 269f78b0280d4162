#include <algorithm>
#include <tuple>

#include "worker/persistence.h"

namespace perdure::worker {

using snapshot::StoredConversation;

std::string StoredConversations::KeyOf(uint64_t owner, const std::string& id) {
  return std::string(reinterpret_cast<const char*>(&owner), sizeof owner) + id;
}

void StoredConversations::Put(const StoredConversation& conversation) {
  auto [it, is_new] =
      conversations_.try_emplace(KeyOf(conversation.owner, conversation.id), conversation);
  if (!is_new) {
    Unlink(it->second);
    it->second = conversation;
  }
  if (conversation.messages_hash != 0)
    by_messages_.emplace(conversation.messages_hash, &it->second);
}

void StoredConversations::Remove(uint64_t owner, const std::string& id) {
  const auto it = conversations_.find(KeyOf(owner, id));
  if (it == conversations_.end()) return;
  Unlink(it->second);
  conversations_.erase(it);
}

void StoredConversations::Unlink(const StoredConversation& conversation) {
  auto [begin, end] = by_messages_.equal_range(conversation.messages_hash);
  for (; begin != end; ++begin) {
    if (begin->second != &conversation) continue;
    by_messages_.erase(begin);
    return;
  }
}

const StoredConversation* StoredConversations::Find(uint64_t owner, const std::string& id) const {
  const auto it = conversations_.find(KeyOf(owner, id));
  return it == conversations_.end() ? nullptr : &it->second;
}

std::vector<const StoredConversation*> StoredConversations::Of(std::optional<uint64_t> owner,
                                                               const std::string& user) const {
  std::vector<const StoredConversation*> found;
  for (const auto& [key, conversation] : conversations_)
    if (conversation.owner == owner.value_or(conversation.owner) &&
        (user.empty() || conversation.user == user))
      found.push_back(&conversation);
  std::ranges::sort(found, [](const auto* a, const auto* b) {
    return std::tie(b->used_unix_ms, b->id, b->owner) < std::tie(a->used_unix_ms, a->id, a->owner);
  });
  return found;
}

std::vector<StoredConversation> StoredConversations::Before(
    const std::function<int64_t(uint64_t owner)>& unix_ms) const {
  std::vector<StoredConversation> found;
  for (const auto& [key, conversation] : conversations_)
    if (conversation.used_unix_ms < unix_ms(conversation.owner)) found.push_back(conversation);
  return found;
}

const StoredConversation* StoredConversations::FindBehind(
    uint64_t owner, const std::vector<uint64_t>& hashes) const {
  for (auto hash = hashes.rbegin(); hash != hashes.rend(); ++hash) {
    const StoredConversation* newest = nullptr;
    auto [begin, end] = by_messages_.equal_range(*hash);
    for (; begin != end; ++begin) {
      const StoredConversation* const each = begin->second;
      // A client's names are found by name alone.
      if (each->owner != owner || each->named) continue;
      if (newest == nullptr || each->used_unix_ms > newest->used_unix_ms) newest = each;
    }
    if (newest != nullptr) return newest;
  }
  return nullptr;
}

}  // namespace perdure::worker
