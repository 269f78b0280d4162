// Which requests may be what kills a model's workers. A pure core: deaths in, lists out.
//
// All requests in the step of a counted death are suspects; the next worker computes each of them
// alone until it has passed that step. One that is alone in the step of a second counted death is
// quarantined: it is given up, and nobody else is touched.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "protocol/messages.h"

namespace perdure::supervisor {

class Suspects {
 public:
  // A death that counts against the model; `step_rids` were in the worker's step. Returns the
  // request that it puts into quarantine, or 0.
  protocol::RequestId OnDeath(std::span<const protocol::RequestId> step_rids);
  // A worker has computed it beyond its step.
  void OnCleared(protocol::RequestId rid);

  // Newest last, at most kSuspectsMax each. Some may have ended long ago: nobody tells.
  const std::vector<protocol::RequestId>& suspects() const { return suspects_; }
  const std::vector<protocol::RequestId>& quarantined() const { return quarantined_; }

 private:
  std::vector<protocol::RequestId> suspects_;
  std::vector<protocol::RequestId> quarantined_;
};

}  // namespace perdure::supervisor
