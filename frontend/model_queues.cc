#include "frontend/model_queues.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace perdure::frontend {

const protocol::ModelLimits* LimitsOf(const protocol::FrontendSettings& settings,
                                      const std::string& model) {
  const auto found = std::ranges::find(settings.model_limits, model, &protocol::ModelLimits::model);
  return found == settings.model_limits.end() ? nullptr : &*found;
}

Status ModelQueues::Check(const std::string& model, uint64_t client,
                          const protocol::FrontendSettings& settings, int retry_after_s) const {
  const protocol::ModelLimits* const own = LimitsOf(settings, model);
  const bool is_own = own && own->queue_max;
  const auto queue_max =
      static_cast<size_t>(std::max(1, is_own ? *own->queue_max : settings.queue_max));
  const auto it = queues_.find(model);
  if (it == queues_.end() || it->second.requests < queue_max) return {};
  const Queue& queue = it->second;
  const auto its = queue.of_clients.find(client);
  const size_t has = its == queue.of_clients.end() ? 0 : its->second;
  const size_t clients = queue.of_clients.size() + (has == 0 ? 1 : 0);
  const size_t share = std::max<size_t>(1, queue_max / clients);
  if (has < share && queue.requests < limits::kQueueTimes * queue_max) return {};
  const std::string key =
      is_own ? fmt::format("models.{}.queue_max", model) : std::string("server.queue_max");
  const std::string others =
      clients == 1 ? std::string()
                   : fmt::format(", {} of them this client's, whose share is {} while others wait",
                                 has, share);
  return Err(Error{ErrorCode::queue_full,
                   fmt::format("The queue of {} is full: {} requests are under way{}, and {} is "
                               "{}. Try again later, or raise {}.",
                               model, queue.requests, others, key, queue_max, key),
                   {},
                   std::max(1, retry_after_s)});
}

void ModelQueues::Join(const std::string& model, uint64_t client) {
  Queue& queue = queues_[model];
  ++queue.requests;
  ++queue.of_clients[client];
}

void ModelQueues::Leave(const std::string& model, uint64_t client) {
  const auto queue = queues_.find(model);
  CHECK(queue != queues_.end());
  const auto its = queue->second.of_clients.find(client);
  CHECK(its != queue->second.of_clients.end());
  if (--its->second == 0) queue->second.of_clients.erase(its);
  if (--queue->second.requests == 0) queues_.erase(queue);
}

std::vector<protocol::RequestId> HandingOrder(std::vector<WaitingRequest> waiting) {
  std::ranges::sort(waiting, {}, &WaitingRequest::arrival);
  std::map<uint64_t, uint64_t> rounds;  // of each client
  std::vector<std::pair<uint64_t, protocol::RequestId>> ranked;
  for (const WaitingRequest& request : waiting)
    ranked.emplace_back(request.begun ? 0 : ++rounds[request.client], request.rid);
  std::ranges::stable_sort(ranked, {}, &std::pair<uint64_t, protocol::RequestId>::first);
  std::vector<protocol::RequestId> order;
  for (const auto& [round, rid] : ranked) order.push_back(rid);
  return order;
}

}  // namespace perdure::frontend
