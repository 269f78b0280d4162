// Keeps models in memory as PlanResidency says: tells it what there is, and does what it wants.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "protocol/messages.h"
#include "supervisor/model_worker.h"
#include "supervisor/residency.h"

namespace perdure::supervisor {

class ModelKeeper {
 public:
  using Models = std::vector<std::unique_ptr<ModelWorker>>;

  void SetLimits(const ResidencyLimits& limits) { limits_ = limits; }
  const ResidencyLimits& limits() const { return limits_; }

  // What the frontend has told last; nothing once it is gone.
  void OnDemand(const protocol::Demand& demand, const Models& models, int64_t now_ms);
  // Does what is due now.
  void Keep(const Models& models, int64_t now_ms);
  // So many processors there are for all models; those that compute have equal parts.
  void SetProcessors(int processors) { processors_ = processors; }

  // When something may be due though nothing has happened.
  std::optional<int64_t> deadline_ms() const { return deadline_ms_; }

 private:
  uint64_t FreeBytes(const std::vector<ModelUse>& uses) const;

  void DivideProcessors(const Models& models) const;

  ResidencyLimits limits_;
  int processors_ = 1;
  std::optional<int64_t> deadline_ms_;
};

}  // namespace perdure::supervisor
