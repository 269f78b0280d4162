// Sequences that wait for their first place, and which of them is next. Pure.
//
// Places go to clients, not to sequences: to the client that has the fewest now; of several to the
// one that was given or has left one the longest time ago, or that has waited since; within a
// client first come, first served. So a client that has no place sees each other one get a single
// place before it, however much that one asks for.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>

namespace perdure::worker {

// Grows with arrival.
using SequenceId = uint64_t;

class FairQueue {
 public:
  void Add(SequenceId id, uint64_t client);
  // It waits no more.
  void Remove(SequenceId id, uint64_t client);
  // This client was given a place, or has left one.
  void Touch(uint64_t client);

  // The next one of those that may run. `places`: how many each client has; none where it is not
  // named.
  std::optional<SequenceId> Next(const std::function<bool(SequenceId)>& may_run,
                                 const std::map<uint64_t, int>& places) const;
  size_t size() const { return size_; }

 private:
  struct Client {
    std::set<SequenceId> waiting;  // never empty
    uint64_t since = 0;            // of clock_
  };

  std::map<uint64_t, Client> clients_;
  uint64_t clock_ = 0;
  size_t size_ = 0;
};

}  // namespace perdure::worker
