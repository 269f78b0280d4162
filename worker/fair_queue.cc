#include "worker/fair_queue.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace perdure::worker {

void FairQueue::Add(SequenceId id, uint64_t client) {
  Client& its = clients_[client];
  if (its.waiting.empty()) its.since = ++clock_;
  its.waiting.insert(id);
  ++size_;
}

void FairQueue::Remove(SequenceId id, uint64_t client) {
  const auto it = clients_.find(client);
  CHECK(it != clients_.end() && it->second.waiting.erase(id) == 1);
  if (it->second.waiting.empty()) clients_.erase(it);
  --size_;
}

void FairQueue::Touch(uint64_t client) {
  const auto it = clients_.find(client);
  if (it != clients_.end()) it->second.since = ++clock_;
}

std::optional<SequenceId> FairQueue::Next(const std::function<bool(SequenceId)>& may_run,
                                          const std::map<uint64_t, int>& places) const {
  std::optional<SequenceId> next;
  std::pair<int, uint64_t> least;  // places, since
  for (const auto& [name, client] : clients_) {
    const auto has = places.find(name);
    const std::pair rank(has == places.end() ? 0 : has->second, client.since);
    if (next && least < rank) continue;
    const auto first = std::ranges::find_if(client.waiting, may_run);
    if (first == client.waiting.end()) continue;
    next = *first;
    least = rank;
  }
  return next;
}

}  // namespace perdure::worker
