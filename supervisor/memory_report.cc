#include "supervisor/memory_report.h"

#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "base/clock.h"
#include "supervisor/proc.h"

namespace perdure::supervisor {
namespace {

uint64_t Minus(uint64_t a, uint64_t b) { return a > b ? a - b : 0; }

Json KernelJson(const MemoryUse& use) {
  return {{"rss_bytes", use.rss_bytes},
          {"shared_memory_bytes", use.shmem_bytes},
          {"own_bytes", use.own_bytes}};
}

MemoryUse UseOf(int pid) {
  return pid > 0 ? ReadMemoryUse(pid).value_or(MemoryUse{}) : MemoryUse{};
}

Json PidOrNull(int pid) { return pid > 0 ? Json(pid) : Json(); }

struct Sums {
  uint64_t held = 0, used = 0, kernel = 0;
};

Json ServiceReport(const char* name, int pid, Sums* sums) {
  const MemoryUse use = UseOf(pid);
  sums->used += use.own_bytes;
  sums->kernel += use.own_bytes;
  return {{"process", name},
          {"pid", PidOrNull(pid)},
          {"used_bytes", use.own_bytes},
          {"kernel", KernelJson(use)}};
}

Json WorkerReport(const ModelWorker& model, int64_t now_ms, Sums* sums) {
  const ModelUse use = model.Use(now_ms);
  const MemoryUse kernel = UseOf(model.pid());
  const uint64_t held = HeldBytes(use);
  const uint64_t process = Minus(held, use.kv_bytes);
  const uint64_t process_used = model.process_used_bytes(), kv_used = model.kv_used_bytes();
  const uint64_t weights = process > 0 ? model.weight_bytes() : 0;
  sums->held += held;
  sums->used += process_used + kv_used;
  sums->kernel += kernel.own_bytes + model.arena_bytes();
  Json kernel_json = KernelJson(kernel);
  kernel_json["arena_bytes"] = model.arena_bytes();
  return {
      {"process", "worker " + model.name()},
      {"model", model.name()},
      {"pid", PidOrNull(model.pid())},
      {"state", protocol::ModelStateName(model.state())},
      {"weights_bytes", weights},
      {"work",
       {{"granted_bytes", Minus(process, weights)}, {"used_bytes", Minus(process_used, weights)}}},
      {"kv", {{"granted_bytes", use.kv_bytes}, {"used_bytes", kv_used}}},
      {"held_bytes", held},
      {"used_bytes", process_used + kv_used},
      {"kernel", std::move(kernel_json)}};
}

}  // namespace

Json MemoryReport(const MemoryInputs& inputs) {
  const int64_t now_ms = MonotonicMs();
  const MemoryBudgetFacts& budget = inputs.budget;
  Sums sums{budget.service_bytes, 0, 0};
  Json processes = Json::array();
  processes.push_back(ServiceReport("supervisor", getpid(), &sums));
  processes.push_back(ServiceReport("frontend", inputs.frontend->pid(), &sums));
  for (const ModelWorker* model : inputs.models)
    processes.push_back(WorkerReport(*model, now_ms, &sums));
  const char* const from = budget.is_configured ? "config"
                           : budget.is_limited  ? "control group"
                                                : "machine";
  return {{"budget_bytes", budget.budget_bytes},
          {"budget_from", from},
          {"capacity_bytes", budget.capacity_bytes},
          {"reserve_bytes", Minus(budget.capacity_bytes, budget.budget_bytes)},
          {"service_bytes", budget.service_bytes},
          {"held_bytes", sums.held},
          {"free_bytes", Minus(budget.budget_bytes, sums.held)},
          {"used_bytes", sums.used},
          {"kernel_bytes", sums.kernel},
          {"processes", std::move(processes)}};
}

}  // namespace perdure::supervisor
