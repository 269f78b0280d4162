#include "frontend/aliases.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace perdure::frontend {

const ModelAlias* FindAlias(std::span<const ModelAlias> aliases, std::string_view name) {
  const auto found = std::ranges::find(aliases, name, &ModelAlias::name);
  return found == aliases.end() ? nullptr : &*found;
}

void ApplyDefaults(const ModelAlias& alias, protocol::GenerationRequest* request) {
  const auto apply = [](auto* asked, const auto& standard) {
    if (!*asked) *asked = standard;
  };
  apply(&request->sampling.temperature, alias.temperature);
  apply(&request->sampling.top_p, alias.top_p);
  apply(&request->sampling.top_k, alias.top_k);
  apply(&request->sampling.min_p, alias.min_p);
  apply(&request->sampling.repetition_penalty, alias.repetition_penalty);
  apply(&request->max_tokens, alias.max_tokens);
}

void ApplyToChat(const ModelAlias& alias, Json* chat) {
  Json& messages = (*chat)["messages"];
  const auto is_system = [](const Json& message) {
    const std::string role = message.value("role", "");
    return role == "system" || role == "developer";
  };
  if (!alias.system_prompt.empty() && std::ranges::none_of(messages, is_system))
    messages.insert(messages.begin(), Json({{"role", "system"}, {"content", alias.system_prompt}}));
  if (alias.chat_template_kwargs.empty()) return;
  Json kwargs = Json::parse(alias.chat_template_kwargs, nullptr, false);
  if (!kwargs.is_object()) return;  // the configuration was checked
  if (const auto own = chat->find("chat_template_kwargs"); own != chat->end()) kwargs.update(*own);
  (*chat)["chat_template_kwargs"] = std::move(kwargs);
}

}  // namespace perdure::frontend
