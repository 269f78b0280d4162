#include "supervisor/model_keeper.h"

#include <algorithm>

#include "base/log.h"

namespace perdure::supervisor {
namespace {

uint64_t MiB(uint64_t bytes) { return (bytes + (uint64_t{1} << 20) - 1) >> 20; }

}  // namespace

void ModelKeeper::OnDemand(const protocol::Demand& demand, const Models& models, int64_t now_ms) {
  for (const auto& model : models) {
    const auto found =
        std::ranges::find(demand.models, model->name(), &protocol::ModelDemand::model);
    model->SetDemand(found != demand.models.end() ? &*found : nullptr, now_ms);
  }
}

void ModelKeeper::Keep(const Models& models, int64_t now_ms) {
  std::vector<ModelUse> uses;
  for (const auto& model : models) uses.push_back(model->Use(now_ms));
  const ResidencyPlan plan = PlanResidency(uses, limits_, now_ms);
  deadline_ms_ = plan.deadline_ms;
  for (size_t i = 0; i < models.size(); ++i) models[i]->SetMissing(plan.missing_bytes[i]);
  std::vector<bool> yields(models.size());
  for (const ResidencyStep& step : plan.steps) {
    ModelWorker& model = *models[step.model];
    const ModelUse& use = uses[step.model];
    switch (step.action) {
      case ResidencyAction::kLoad:
        LogInfo("{} is loaded: it takes about {} MiB, and {} of {} MiB are free", model.who(),
                MiB(use.process_bytes), MiB(FreeBytes(uses)), MiB(limits_.budget_bytes));
        model.Load();
        break;
      case ResidencyAction::kUnload:
        LogInfo("{} is unloaded: {}", model.who(),
                use.idle_deadline_ms && now_ms >= *use.idle_deadline_ms && use.waiting == 0
                    ? "nobody has asked it anything for a while"
                    : "its memory is needed");
        model.Unload();
        break;
      case ResidencyAction::kYield:
        yields[step.model] = true;
        break;
      case ResidencyAction::kGrant:
      case ResidencyAction::kShrink:
        model.LimitKv(step.kv_bytes);
        break;
      case ResidencyAction::kRefuse:
        model.RefuseKv();
        break;
      case ResidencyAction::kDropArena:
        LogInfo("{}: its KV cache is given back, {} MiB", model.who(), MiB(use.kv_bytes));
        model.DropArena();
        break;
    }
  }
  for (size_t i = 0; i < models.size(); ++i) models[i]->SetYielding(yields[i]);
  DivideProcessors(models);
}

// One that has nothing to do keeps what it has had: it will be told when it has.
void ModelKeeper::DivideProcessors(const Models& models) const {
  const auto computing =
      std::ranges::count_if(models, [](const auto& model) { return model->is_computing(); });
  for (const auto& model : models)
    if (model->is_computing()) model->LimitThreads(processors_ / static_cast<int>(computing));
}

uint64_t ModelKeeper::FreeBytes(const std::vector<ModelUse>& uses) const {
  uint64_t held = 0;
  for (const ModelUse& use : uses) held += HeldBytes(use);
  return limits_.budget_bytes > held ? limits_.budget_bytes - held : 0;
}

}  // namespace perdure::supervisor
