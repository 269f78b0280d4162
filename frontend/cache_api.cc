#include "frontend/cache_api.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "frontend/query.h"
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

Status ReadQuery(std::string_view target, CacheCall* call) {
  ASSIGN_OR_RETURN(const auto parameters, QueryOf(target));
  for (const auto& [name, value] : parameters) {
    if (name == "model") {
      call->model = value;
    } else if (name == "seconds" && call->operation == CacheOperation::kMonitor) {
      ASSIGN_OR_RETURN(const int64_t seconds, NumberOf(name, value, 1, limits::kMonitorSecondsMax));
      call->seconds = static_cast<int32_t>(seconds);
    } else {
      return UnknownParameter(name);
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
  RETURN_IF_ERROR(ReadQuery(request.target, &call));
  if (endpoint.changes) RETURN_IF_ERROR(ReadBody(request.body, &call));
  return call;
}

}  // namespace perdure::frontend
