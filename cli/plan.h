// `perdure plan`: what of memory models would take, and what fits, before anything is loaded.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "base/json.h"

namespace perdure::cli {

struct PlanModel {
  std::string name;
  uint64_t process_bytes = 0;       // weights and what computing takes
  uint64_t kv_bytes_per_token = 0;  // as its conversations are kept
  uint64_t kv_least_bytes = 0;      // that it is loaded with
  int context = 0;                  // that it serves; 0: unknown
  std::string problem;              // why it cannot be served; empty: it can
};

// {"budget_bytes", "context", "models": [{"name", "process_bytes", "kv_bytes_per_token",
// "conversation_bytes", "missing_bytes", "conversations", "problem"}], "together": {"bytes",
// "fits", "missing_bytes", "left_bytes", "conversations"}}. A conversation has `context` tokens, or
// as many as the model serves. "conversations": so many of a model that is loaded alone fit into
// memory at a time; of all together, so many of each.
Json Plan(const std::vector<PlanModel>& models, uint64_t budget_bytes, int context);
std::string FormatPlan(const Json& plan);

// `names` as for `perdure show`; empty: all that are configured. Prints; returns the exit code:
// kExitBadModel where one of them cannot be loaded at all.
int RunPlan(const std::vector<std::string>& names, int context, const ConfigFlags& flags,
            const GetEnv& env, bool json);

}  // namespace perdure::cli
