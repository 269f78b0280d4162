#include "frontend/model_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "frontend/aliases.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {

using protocol::ModelState;
using protocol::RosterEntry;

const RosterEntry* ModelTable::Find(std::string_view name) const {
  for (const RosterEntry& model : roster_.models)
    if (model.name == name) return &model;
  return nullptr;
}

Result<const RosterEntry*> ModelTable::Resolve(std::string_view name) const {
  if (roster_.models.empty())
    return Err(
        Error{ErrorCode::model_loading, "The service is starting; no model is known yet.", {}, 1});
  if (name.empty()) {
    for (const RosterEntry& model : roster_.models)
      if (model.is_default) return &model;
    return &roster_.models.front();
  }
  if (const RosterEntry* model = Find(name)) return model;
  if (const ModelAlias* alias = FindAlias(aliases_, name))
    if (const RosterEntry* model = Find(alias->model)) return model;
  std::string known;
  for (const RosterEntry& model : roster_.models)
    known += fmt::format("{}{}", known.empty() ? "" : ", ", model.name);
  for (const ModelAlias& alias : aliases_) known += ", " + alias.name;
  return Err(ErrorCode::model_not_found,
             fmt::format("There is no model {}. Models: {}.", Quoted(name), known), "model");
}

bool ModelTable::any_ready() const { return std::ranges::any_of(roster_.models, WouldServe); }

bool WouldServe(const RosterEntry& model) {
  return model.state == ModelState::kReady || (model.state == ModelState::kStopped &&
                                               AvailabilityOf(model) == ModelAvailability::kComing);
}

ModelAvailability AvailabilityOf(const RosterEntry& model) {
  switch (model.state) {
    case ModelState::kReady:
      return ModelAvailability::kReady;
    case ModelState::kStarting:
    case ModelState::kLoading:
      return ModelAvailability::kComing;
    case ModelState::kBackoff:
      // Its next worker is about to be started.
      if (model.retry_after_s <= limits::kBackoffWaitS) return ModelAvailability::kComing;
      break;
    case ModelState::kStopping:
    case ModelState::kStopped:
      if (model.on_demand && model.missing_bytes == 0) return ModelAvailability::kComing;
      break;
    case ModelState::kFailed:
      break;
  }
  return ModelAvailability::kDown;
}

Error ModelDownError(const RosterEntry& model) {
  if (model.missing_bytes > 0)
    return {ErrorCode::out_of_memory,
            fmt::format("The model {} does not fit into memory: {} MiB are missing, even if all "
                        "other models but the pinned ones make room. Raise lifecycle.memory_max, "
                        "or choose a smaller model or fewer bits.",
                        model.name, (model.missing_bytes >> 20) + 1),
            {},
            std::max(1, model.retry_after_s)};
  std::string message =
      fmt::format("The model {} is down ({}).", model.name, ModelStateName(model.state));
  if (!model.reason.empty()) message += " " + model.reason;
  return {ErrorCode::model_failed, std::move(message), {}, std::max(1, model.retry_after_s)};
}

Error ModelSlowError(const RosterEntry& model) {
  if (model.state == ModelState::kStopped)
    return {ErrorCode::model_loading,
            fmt::format("The model {} is not loaded; a request for it loads it.", model.name),
            {},
            1};
  return {ErrorCode::model_loading,
          fmt::format("The model {} is still {}; try again later.", model.name,
                      ModelStateName(model.state)),
          {},
          std::max(1, model.retry_after_s)};
}

}  // namespace perdure::frontend
