// Names for models with defaults of their own: what a request that names one gets where it does not
// say itself. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string_view>

#include "base/json.h"
#include "base/model_alias.h"
#include "protocol/messages.h"

namespace perdure::frontend {

// Null: it is none.
const ModelAlias* FindAlias(std::span<const ModelAlias> aliases, std::string_view name);

// Of a request that does not say: sampling and length; the others stay.
void ApplyDefaults(const ModelAlias& alias, protocol::GenerationRequest* request);
// The system prompt goes before messages that have none, template arguments below those of the
// request. `chat` has messages, and perhaps chat_template_kwargs.
void ApplyToChat(const ModelAlias& alias, Json* chat);

}  // namespace perdure::frontend
