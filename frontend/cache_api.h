// Requests of /admin/cache: which there are, and what they ask for. Pure.
#pragma once

#include <optional>
#include <string_view>

#include "base/result.h"
#include "frontend/cache_calls.h"
#include "frontend/http_types.h"

namespace perdure::frontend {

struct CacheEndpoint {
  protocol::CacheOperation operation;
  bool changes;  // is asked for by POST
};
// Of a path without its query; nothing where there is none.
std::optional<CacheEndpoint> CacheEndpointOf(std::string_view path);

// From the query (`model`, `seconds`), or the body of a POST (`model`, `unused`).
Result<CacheCall> ParseCacheCall(const CacheEndpoint& endpoint, const HttpRequest& request);

}  // namespace perdure::frontend
