// Stored conversations as operators have them: of all tenants.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/limits.h"
#include "worker/conversation_json.h"
#include "worker/generator_state.h"

namespace perdure::worker {

using protocol::ConversationCommand;
using protocol::ConversationOperation;
using snapshot::StoredConversation;

// Whose conversations are meant; none: all tenants'.
std::optional<uint64_t> Generator::ScopeOf(const ConversationCommand& command) const {
  return command.of_all_tenants ? command.owner : OwnerOf(command.tenant);
}

// Whose conversation is meant by its id.
Result<uint64_t> Generator::OwnerOf(const ConversationCommand& command) const {
  if (const auto scope = ScopeOf(command)) return *scope;
  if (command.operation == ConversationOperation::kImport) return OwnerOf(std::string());
  return OnlyOwnerOf(command.id, command.operation == ConversationOperation::kDelete);
}

Result<uint64_t> Generator::OwnerOf(const protocol::ConversationFileCommand& command) const {
  if (!command.of_all_tenants) return OwnerOf(command.tenant);
  if (command.owner) return *command.owner;
  if (command.operation != protocol::ConversationFileOperation::kExport &&
      command.operation != protocol::ConversationFileOperation::kSave)
    return OwnerOf(std::string());
  return OnlyOwnerOf(command.id, false);
}

// `also_not_stored`: whose first answer may still be on its way counts, too.
Result<uint64_t> Generator::OnlyOwnerOf(const std::string& id, bool also_not_stored) const {
  std::set<uint64_t> owners;
  for (const StoredConversation* each : stored_.Of(std::nullopt, ""))
    if (each->id == id) owners.insert(each->owner);
  if (also_not_stored) {
    for (const auto& each : conversations_.all())
      if (each->id == id) owners.insert(each->owner);
    for (const auto& [rid, request] : requests_)
      if (request->ticket.conversation_id == id) owners.insert(request->owner);
  }
  if (owners.empty())
    return Err(ErrorCode::not_found, fmt::format("There is no conversation {}.", id), "id");
  if (owners.size() == 1) return *owners.begin();
  std::string names;
  size_t named = 0;
  for (const uint64_t owner : owners) {
    if (named++ == limits::kTenantsNamed) {
      names += fmt::format(" and {} others", owners.size() - limits::kTenantsNamed);
      break;
    }
    names += (named == 1 ? "" : ", ") + TenantName(owner);
  }
  return Err(ErrorCode::invalid_request,
             fmt::format("Several tenants have a conversation {}: {}. Say which of them is meant.",
                         id, names),
             "tenant");
}

void Generator::ListTenants(const ConversationCommand& command) {
  struct Sum {
    size_t conversations = 0;
    uint64_t tokens = 0;
    int64_t used_unix_ms = 0;
  };
  std::map<uint64_t, Sum> tenants;
  for (const StoredConversation* each : stored_.Of(ScopeOf(command), "")) {
    Sum& sum = tenants[each->owner];
    ++sum.conversations;
    sum.tokens += each->tokens;
    sum.used_unix_ms = std::max(sum.used_unix_ms, each->used_unix_ms);
  }
  std::vector<std::pair<uint64_t, Sum>> newest_first(tenants.begin(), tenants.end());
  std::ranges::stable_sort(newest_first, [](const auto& a, const auto& b) {
    return b.second.used_unix_ms < a.second.used_unix_ms;
  });
  Json data = Json::array();
  for (const auto& [owner, sum] : newest_first)
    data.push_back({{"tenant", TenantName(owner)},
                    {"object", "tenant"},
                    {"conversations", sum.conversations},
                    {"tokens", sum.tokens},
                    {"last_used_at", sum.used_unix_ms / 1000}});
  const Json json = {{"object", "list"}, {"data", std::move(data)}};
  sink_->Send(protocol::ConversationAnswer{command.rid, 0, DumpJson(json), {}});
}

}  // namespace perdure::worker
