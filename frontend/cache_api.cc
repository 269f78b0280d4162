#include "frontend/cache_api.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "frontend/percent.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {
namespace {

using protocol::CacheOperation;

constexpr std::string_view kPrefix = "/admin/cache/";
constexpr int kMonitorSeconds = 60;  // where nobody says

struct Named {
  std::string_view name;
  CacheEndpoint endpoint;
};
constexpr Named kEndpoints[] = {
    {"stats", {CacheOperation::kStats, false}},
    {"optimize", {CacheOperation::kOptimize, true}},
    {"clear", {CacheOperation::kClear, true}},
    {"health", {CacheOperation::kHealth, false}},
    {"recommend", {CacheOperation::kRecommend, false}},
    {"monitor", {CacheOperation::kMonitor, false}},
};

tl::unexpected<Error> Refuse(std::string param, std::string message) {
  return Err(ErrorCode::invalid_request, std::move(message), std::move(param));
}

Result<int32_t> ParseSeconds(std::string_view text) {
  int32_t seconds = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || seconds < 1 ||
      seconds > limits::kMonitorSecondsMax)
    return Refuse("seconds", fmt::format("seconds must be an integer from 1 to {}, not {}.",
                                         limits::kMonitorSecondsMax, Quoted(text)));
  return seconds;
}

Status ReadQuery(std::string_view query, CacheCall* call) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const size_t equals = std::min(pair.find('='), pair.size());
    const std::string_view name = pair.substr(0, equals);
    const auto value = PercentDecode(pair.substr(std::min(pair.size(), equals + 1)));
    if (!value) return Refuse({}, "The query is not percent-encoded properly.");
    if (name == "model") {
      call->model = *value;
    } else if (name == "seconds" && call->operation == CacheOperation::kMonitor) {
      ASSIGN_OR_RETURN(call->seconds, ParseSeconds(*value));
    } else if (!name.empty()) {
      return Refuse(std::string(name), fmt::format("There is no parameter {} here.", Quoted(name)));
    }
  }
  return {};
}

Status ReadBody(const std::string& body, CacheCall* call) {
  if (body.empty()) return {};
  ASSIGN_OR_RETURN(const Json json,
                   ParseJson(body, "The request body", ErrorCode::invalid_request));
  if (!json.is_object()) return Refuse({}, "The request body must be a JSON object, or empty.");
  ASSIGN_OR_RETURN(const auto model, ReadString(json, "model", limits::kModelNameBytesMax));
  if (model) call->model = *model;
  if (call->operation != CacheOperation::kClear) return {};
  ASSIGN_OR_RETURN(const auto unused, ReadBool(json, "unused"));
  call->unused_only = unused.value_or(false);
  return {};
}

}  // namespace

std::optional<CacheEndpoint> CacheEndpointOf(std::string_view path) {
  if (!path.starts_with(kPrefix)) return std::nullopt;
  path.remove_prefix(kPrefix.size());
  for (const Named& named : kEndpoints)
    if (named.name == path) return named.endpoint;
  return std::nullopt;
}

Result<CacheCall> ParseCacheCall(const CacheEndpoint& endpoint, const HttpRequest& request) {
  CacheCall call;
  call.operation = endpoint.operation;
  if (call.operation == CacheOperation::kMonitor) call.seconds = kMonitorSeconds;
  const std::string_view target = request.target;
  const size_t question = target.find('?');
  if (question != std::string_view::npos)
    RETURN_IF_ERROR(ReadQuery(target.substr(question + 1), &call));
  if (endpoint.changes) RETURN_IF_ERROR(ReadBody(request.body, &call));
  return call;
}

}  // namespace perdure::frontend
