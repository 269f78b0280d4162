#include "supervisor/suspects.h"

#include <algorithm>

#include "base/limits.h"

namespace perdure::supervisor {
namespace {

void Remember(std::vector<protocol::RequestId>* rids, protocol::RequestId rid) {
  if (std::find(rids->begin(), rids->end(), rid) != rids->end()) return;
  if (rids->size() == limits::kSuspectsMax) rids->erase(rids->begin());
  rids->push_back(rid);
}

}  // namespace

protocol::RequestId Suspects::OnDeath(std::span<const protocol::RequestId> step_rids) {
  if (step_rids.size() == 1) {
    const auto known = std::find(suspects_.begin(), suspects_.end(), step_rids[0]);
    if (known != suspects_.end()) {
      suspects_.erase(known);
      Remember(&quarantined_, step_rids[0]);
      return step_rids[0];
    }
  }
  for (const protocol::RequestId rid : step_rids) Remember(&suspects_, rid);
  return 0;
}

void Suspects::OnCleared(protocol::RequestId rid) { std::erase(suspects_, rid); }

}  // namespace perdure::supervisor
