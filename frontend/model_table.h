// What the supervisor said last about the models, and what follows for a request. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/model_alias.h"
#include "base/result.h"
#include "protocol/messages.h"

namespace perdure::frontend {

class ModelTable {
 public:
  void Apply(protocol::Roster roster) { roster_ = std::move(roster); }
  void SetAliases(std::vector<ModelAlias> aliases) { aliases_ = std::move(aliases); }

  const std::vector<protocol::RosterEntry>& models() const { return roster_.models; }
  // Of models that there are.
  const std::vector<ModelAlias>& aliases() const { return aliases_; }
  bool draining() const { return roster_.draining; }
  // It drains, or will soon.
  bool ends() const { return roster_.draining || roster_.ends_soon; }

  // The model of that name or alias, or the default one for an empty name (the first where none is
  // marked). model_not_found names the models that there are.
  Result<const protocol::RosterEntry*> Resolve(std::string_view name) const;
  const protocol::RosterEntry* Find(std::string_view name) const;
  // Some model would answer, at once or as soon as it is loaded.
  bool any_ready() const;

 private:
  protocol::Roster roster_;
  std::vector<ModelAlias> aliases_;
};

enum class ModelAvailability {
  kReady,
  kComing,  // being started or loaded, or will be when it is asked for: requests wait for it
  kDown,    // requests are refused with ModelDownError
};
ModelAvailability AvailabilityOf(const protocol::RosterEntry& model);
// It is ready, or would be loaded for a request.
bool WouldServe(const protocol::RosterEntry& model);
// Why a model that is down, or did not come in time, does not answer; with retry-after.
Error ModelDownError(const protocol::RosterEntry& model);
Error ModelSlowError(const protocol::RosterEntry& model);

}  // namespace perdure::frontend
