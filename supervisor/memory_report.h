// The ledger of memory beside the kernel's figures, as JSON; docs/api.md has the fields.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "supervisor/frontend_child.h"
#include "supervisor/model_worker.h"

namespace perdure::supervisor {

struct MemoryBudgetFacts {
  uint64_t capacity_bytes = 0;  // of the machine or the control group
  bool is_limited = false;      // by a control group
  bool is_configured = false;
  uint64_t budget_bytes = 0;
  uint64_t service_bytes = 0;  // of it, for supervisor and frontend
};

struct MemoryInputs {
  MemoryBudgetFacts budget;
  const FrontendChild* frontend = nullptr;
  std::vector<const ModelWorker*> models;
};
Json MemoryReport(const MemoryInputs& inputs);

}  // namespace perdure::supervisor
