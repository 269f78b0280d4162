// How long a request may take: what its client says, and the configuration. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "frontend/http_types.h"
#include "protocol/messages.h"

namespace perdure::frontend {

inline constexpr std::string_view kRequestTimeoutHeader = "X-Request-Timeout";

// The header's seconds in milliseconds; nothing where there is none. invalid_request names it.
Result<std::optional<int64_t>> ReadRequestTimeout(const HttpRequest& request);

struct RequestTimeout {
  int64_t ms = 0;
  std::string set_by;  // the header, or the configuration's key
};
// The shorter one of what the client says and what is configured for this model; nothing where
// neither says anything.
std::optional<RequestTimeout> TimeoutOf(std::optional<int64_t> asked_ms, const std::string& model,
                                        const protocol::FrontendSettings& settings);

}  // namespace perdure::frontend
