// The fields of a request that say how its KV is kept, and of which conversation it is. Pure.
#pragma once

#include <string>

#include "base/cache_settings.h"
#include "base/json.h"
#include "base/result.h"

namespace perdure::frontend {

// `cache`: an object, or the name of a type. Types of JSON are checked here, what can be is the
// worker's business.
Result<CacheChoice> ReadCache(const Json& body);
// `conversation_id`; empty where it is absent.
Result<std::string> ReadConversationId(const Json& body);

}  // namespace perdure::frontend
