// How many requests are under way for each model, and whether one more may come; the order in which
// those that wait are handed out. Pure.
//
// A model's queue is its own, and nobody else's requests keep a client out of it: where it is full,
// one that has less than its share (queue_max, divided among the clients that have requests under
// way) still gets in, up to kQueueTimes of queue_max in all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "protocol/messages.h"

namespace perdure::frontend {

// What a model's own table has; null where nothing.
const protocol::ModelLimits* LimitsOf(const protocol::FrontendSettings& settings,
                                      const std::string& model);

class ModelQueues {
 public:
  // queue_full names the model, the bound and its key.
  Status Check(const std::string& model, uint64_t client,
               const protocol::FrontendSettings& settings, int retry_after_s) const;
  void Join(const std::string& model, uint64_t client);
  void Leave(const std::string& model, uint64_t client);

 private:
  struct Queue {
    size_t requests = 0;
    std::map<uint64_t, size_t> of_clients;  // never 0
  };
  std::map<std::string, Queue> queues_;
};

struct WaitingRequest {
  protocol::RequestId rid = 0;
  uint64_t client = 0;
  uint64_t arrival = 0;  // grows
  bool begun = false;    // a stream whose worker died
};
// Streams that had begun come first, in the order of their arrival; then in rounds one request of
// each client, first come, first served within one.
std::vector<protocol::RequestId> HandingOrder(std::vector<WaitingRequest> waiting);

}  // namespace perdure::frontend
