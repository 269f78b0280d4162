#include "frontend/request_timeout.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/limits.h"
#include "frontend/model_queues.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {

Result<std::optional<int64_t>> ReadRequestTimeout(const HttpRequest& request) {
  const std::string* const field = request.Find("x-request-timeout");
  if (!field) return std::nullopt;
  const std::string_view text = TrimBlanks(*field);
  double seconds = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), seconds, std::chars_format::fixed);
  // "inf" and "nan" are numbers, too.
  if (request.Count("x-request-timeout") != 1 || error != std::errc() ||
      end != text.data() + text.size() || !(seconds > 0 && seconds <= limits::kRequestTimeoutMaxS))
    return Err(ErrorCode::invalid_request,
               fmt::format("The header {} must be a number of seconds above 0, up to {}, such as "
                           "2.5, not {}.",
                           kRequestTimeoutHeader, limits::kRequestTimeoutMaxS, Quoted(text)));
  return static_cast<int64_t>(std::ceil(seconds * 1000));
}

std::optional<RequestTimeout> TimeoutOf(std::optional<int64_t> asked_ms, const std::string& model,
                                        const protocol::FrontendSettings& settings) {
  const protocol::ModelLimits* const own = LimitsOf(settings, model);
  const bool is_own = own && own->request_timeout_s;
  const int64_t configured_ms =
      int64_t{1000} * (is_own ? *own->request_timeout_s : settings.request_timeout_s);
  if (asked_ms && (configured_ms <= 0 || *asked_ms <= configured_ms))
    return RequestTimeout{*asked_ms, std::string(kRequestTimeoutHeader)};
  if (configured_ms <= 0) return std::nullopt;
  return RequestTimeout{configured_ms, is_own ? fmt::format("models.{}.request_timeout_s", model)
                                              : "server.request_timeout_s"};
}

}  // namespace perdure::frontend
