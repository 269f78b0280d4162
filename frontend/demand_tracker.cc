#include "frontend/demand_tracker.h"

#include <algorithm>
#include <utility>

namespace perdure::frontend {

void DemandTracker::OnEnd(const std::string& model, std::optional<int32_t> keep_alive_s) {
  std::optional<int32_t>& said = touched_[model];
  if (keep_alive_s) said = keep_alive_s;
}

void DemandTracker::Count::Waiting(const std::string& model, int64_t waited_ms) {
  protocol::ModelDemand& demand = models_[model];
  ++demand.waiting;
  demand.longest_wait_ms = std::max(demand.longest_wait_ms, waited_ms);
}

protocol::Demand DemandTracker::Take(Count count) {
  for (const auto& [model, keep_alive_s] : touched_)
    count.models_[model].keep_alive_s = keep_alive_s;
  touched_.clear();
  protocol::Demand demand;
  for (auto& [model, each] : count.models_) {
    each.model = model;
    demand.models.push_back(std::move(each));
  }
  return demand;
}

}  // namespace perdure::frontend
