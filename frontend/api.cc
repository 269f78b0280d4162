#include "frontend/api.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/percent_encode.h"
#include "frontend/access.h"
#include "frontend/cache_api.h"
#include "frontend/conversation_api.h"
#include "frontend/conversation_file_api.h"
#include "frontend/http_response.h"
#include "frontend/query.h"
#include "frontend/request_fields.h"
#include "frontend/request_timeout.h"
#include "frontend/response_writer.h"

namespace perdure::frontend {
namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";

enum class Endpoint {
  kUnknown,
  kChat,
  kCompletions,
  kModels,
  kModel,
  kHealth,
  kReady,
  kCacheLook,    // of /admin/cache: what only tells
  kCacheChange,  // and what changes something
  kMemory,
  kConversations,
  kAdminConversations,
  kConversationFiles,
  kAdminConversationFiles,
};

// Conversations may be called as what makes one of a file is: the method tells which it is.
bool IsOfConversation(ConversationFilePath path, std::string_view method) {
  return (path == ConversationFilePath::kLoad || path == ConversationFilePath::kImport) &&
         method != "POST";
}

Endpoint EndpointOf(std::string_view path, std::string_view method) {
  if (path == "/v1/chat/completions") return Endpoint::kChat;
  if (path == "/v1/completions") return Endpoint::kCompletions;
  if (path == "/v1/models") return Endpoint::kModels;
  if (path == "/health") return Endpoint::kHealth;
  if (path == "/ready") return Endpoint::kReady;
  if (path == "/admin/memory") return Endpoint::kMemory;
  if (const auto cache = CacheEndpointOf(path))
    return cache->changes ? Endpoint::kCacheChange : Endpoint::kCacheLook;
  if (const ConversationFilePath file = ConversationFilePathOf(path);
      file != ConversationFilePath::kNone && !IsOfConversation(file, method))
    return IsOfAdmin(path) ? Endpoint::kAdminConversationFiles : Endpoint::kConversationFiles;
  if (ConversationPathOf(path) != ConversationPath::kNone)
    return IsOfAdmin(path) ? Endpoint::kAdminConversations : Endpoint::kConversations;
  if (path.starts_with(kModelPrefix) && path.size() > kModelPrefix.size()) return Endpoint::kModel;
  return Endpoint::kUnknown;
}

bool IsPost(Endpoint endpoint) {
  return endpoint == Endpoint::kChat || endpoint == Endpoint::kCompletions ||
         endpoint == Endpoint::kCacheChange;
}
// As in the header Allow, without OPTIONS.
std::string_view MethodsOf(std::string_view path, Endpoint endpoint) {
  if (const ConversationFilePath file = ConversationFilePathOf(path);
      file != ConversationFilePath::kNone)
    return ConversationFileMethods(file);
  if (endpoint == Endpoint::kConversations || endpoint == Endpoint::kAdminConversations)
    return ConversationMethods(ConversationPathOf(path));
  return IsPost(endpoint) ? "POST" : "GET, HEAD";
}

bool Takes(std::string_view methods, std::string_view method) {
  while (!methods.empty()) {
    const std::string_view first = methods.substr(0, methods.find(','));
    if (first == method) return true;
    methods.remove_prefix(std::min(methods.size(), first.size() + 2));
  }
  return method == "OPTIONS";
}

Status CheckMediaType(const HttpRequest& request, bool is_upload) {
  if (const std::string* type = request.Find("content-type")) {
    const std::string media =
        AsciiLower(TrimBlanks(std::string_view(*type).substr(0, type->find(';'))));
    if (is_upload && media != "application/octet-stream")
      return Err(ErrorCode::unsupported_media_type,
                 fmt::format("The body must be application/octet-stream, not {}: send the header "
                             "Content-Type: application/octet-stream.",
                             Quoted(media)));
    if (!is_upload && media != "application/json")
      return Err(ErrorCode::unsupported_media_type,
                 fmt::format("The body must be application/json, not {}: send the header "
                             "Content-Type: application/json.",
                             Quoted(media)));
  }
  if (const std::string* coding = request.Find("content-encoding")) {
    if (AsciiLower(TrimBlanks(*coding)) != "identity")
      return Err(
          ErrorCode::unsupported_media_type,
          fmt::format("The body must not be encoded (Content-Encoding {}).", Quoted(*coding)));
  }
  return {};
}

Status CheckAccess(const HttpRequest& request, Endpoint endpoint, const ApiState& state) {
  RETURN_IF_ERROR(CheckHost(request, state.settings));
  RETURN_IF_ERROR(CheckOrigin(request, state.settings));
  // Probes and preflights carry no keys.
  if (endpoint == Endpoint::kHealth || endpoint == Endpoint::kReady || request.method == "OPTIONS")
    return {};
  if (endpoint == Endpoint::kCacheLook || endpoint == Endpoint::kCacheChange ||
      endpoint == Endpoint::kMemory || endpoint == Endpoint::kAdminConversations ||
      endpoint == Endpoint::kAdminConversationFiles)
    return CheckAdmin(request, state.settings);
  return CheckKey(request, state.settings);
}

std::string AllowOf(std::string_view path, Endpoint endpoint) {
  return std::string(MethodsOf(path, endpoint)) + ", OPTIONS";
}

HttpResponse Options(std::string_view path, Endpoint endpoint) {
  HttpResponse response;
  response.status = 204;
  response.headers.emplace_back("allow", AllowOf(path, endpoint));
  return response;
}

// Of the service, or of one model: whether a request for it would be answered.
HttpResponse Ready(const HttpRequest& request, const ApiState& state) {
  const auto parameters = QueryOf(request.target);
  if (!parameters) return ErrorResponse(parameters.error());
  const protocol::RosterEntry* model = nullptr;
  for (const auto& [name, value] : *parameters) {
    if (name != "model") return ErrorResponse(UnknownParameter(name).value());
    const auto found = state.models.Resolve(value);
    if (!found) return ErrorResponse(found.error());
    model = *found;
  }
  const bool draining = state.draining || state.models.ends();
  const bool ready =
      !draining && (model != nullptr ? WouldServe(*model) : state.models.any_ready());
  const std::string_view status = draining ? "draining" : ready ? "ready" : "loading";
  HttpResponse response =
      JsonResponse(ready ? 200 : 503, HealthBody(status, state.models.models()));
  if (!ready) response.headers.emplace_back("retry-after", "1");
  return response;
}

HttpResponse Model(std::string_view path, const ApiState& state) {
  const std::optional<std::string> name = PercentDecode(path.substr(kModelPrefix.size()));
  if (!name)
    return ErrorResponse({ErrorCode::invalid_request,
                          "The model's name is not percent-encoded properly.", "model", 0});
  const auto model = state.models.Resolve(*name);
  if (!model) return ErrorResponse(model.error());
  return JsonResponse(200, ModelObject(**model, *name));
}

}  // namespace

std::optional<HttpResponse> CheckHead(const HttpRequest& request,
                                      std::optional<uint64_t> content_length,
                                      const ApiState& state) {
  if (request.target.empty() || request.target.front() != '/')
    return ErrorResponse({ErrorCode::invalid_request,
                          "The request's target must be a path that starts with /.",
                          {},
                          0});
  const std::string_view path = PathOf(request.target);
  const Endpoint endpoint = EndpointOf(path, request.method);
  if (auto access = CheckAccess(request, endpoint, state); !access)
    return ErrorResponse(access.error());
  if (endpoint == Endpoint::kUnknown)
    return ErrorResponse(
        {ErrorCode::not_found, fmt::format("There is no endpoint {}.", Quoted(path)), {}, 0});
  if (const std::string_view methods = MethodsOf(path, endpoint); !Takes(methods, request.method)) {
    HttpResponse response = ErrorResponse(
        {ErrorCode::method_not_allowed, fmt::format("{} takes {} only.", path, methods), {}, 0});
    response.headers.emplace_back("allow", AllowOf(path, endpoint));
    return response;
  }
  if (request.method != "POST") return std::nullopt;
  const bool is_upload = IsUpload(request.method, path);
  if (auto media = CheckMediaType(request, is_upload); !media) return ErrorResponse(media.error());
  const uint64_t bytes_max =
      is_upload ? state.settings.upload_bytes_max : state.settings.body_bytes_max;
  if (content_length.value_or(0) > bytes_max)
    return ErrorResponse({ErrorCode::payload_too_large,
                          fmt::format("The request's body exceeds {} bytes.", bytes_max),
                          {},
                          0});
  if (state.draining)
    return ErrorResponse({ErrorCode::shutting_down, "The service is shutting down.", {}, 5});
  return std::nullopt;
}

std::variant<HttpResponse, ParsedRequest, CacheCall, ConversationCall, ConversationFileCall,
             MemoryCall>
HandleRequest(const HttpRequest& request, const ApiState& state, const RequestDefaults& defaults) {
  const std::string_view path = PathOf(request.target);
  const Endpoint endpoint = EndpointOf(path, request.method);
  if (request.method == "OPTIONS") return Options(path, endpoint);
  switch (endpoint) {
    case Endpoint::kChat:
    case Endpoint::kCompletions: {
      auto parsed = endpoint == Endpoint::kChat ? ParseChatRequest(request.body, defaults)
                                                : ParseCompletionRequest(request.body, defaults);
      if (!parsed) return ErrorResponse(parsed.error());
      const auto timeout_ms = ReadRequestTimeout(request);
      if (!timeout_ms) return ErrorResponse(timeout_ms.error());
      parsed->timeout_ms = *timeout_ms;
      return std::move(*parsed);
    }
    case Endpoint::kModels:
      return JsonResponse(200, ModelList(state.models.models(), state.models.aliases()));
    case Endpoint::kModel:
      return Model(path, state);
    case Endpoint::kHealth:
      return JsonResponse(200, HealthBody("ok", state.models.models()));
    case Endpoint::kReady:
      return Ready(request, state);
    case Endpoint::kCacheLook:
    case Endpoint::kCacheChange: {
      auto call = ParseCacheCall(*CacheEndpointOf(path), request);
      if (!call) return ErrorResponse(call.error());
      return std::move(*call);
    }
    case Endpoint::kMemory: {
      const auto parameters = QueryOf(request.target);
      if (!parameters) return ErrorResponse(parameters.error());
      if (!parameters->empty())
        return ErrorResponse(UnknownParameter(parameters->begin()->first).value());
      return MemoryCall{};
    }
    case Endpoint::kConversations:
    case Endpoint::kAdminConversations: {
      auto call = ParseConversationCall(request, defaults.tenant);
      if (!call) return ErrorResponse(call.error());
      return std::move(*call);
    }
    case Endpoint::kConversationFiles:
    case Endpoint::kAdminConversationFiles: {
      auto call = ParseConversationFileCall(request, defaults.tenant);
      if (!call) return ErrorResponse(call.error());
      return std::move(*call);
    }
    case Endpoint::kUnknown:
      break;
  }
  return ErrorResponse({ErrorCode::not_found, "There is no such endpoint.", {}, 0});
}

std::vector<std::pair<std::string, std::string>> CorsHeaders(
    const HttpRequest& request, const protocol::FrontendSettings& settings) {
  const std::string* origin = request.Find("origin");
  if (!origin || !CheckOrigin(request, settings)) return {};
  std::vector<std::pair<std::string, std::string>> headers = {
      {"access-control-allow-origin", *origin},
      {"vary", "origin"},
      {"access-control-expose-headers", "x-request-id, retry-after, content-disposition"}};
  if (request.method != "OPTIONS") return headers;
  headers.emplace_back("access-control-allow-methods", "GET, HEAD, POST, DELETE, OPTIONS");
  headers.emplace_back("access-control-max-age", "600");
  // SDKs send headers of their own; any name is harmless from an origin that is allowed.
  std::string names = "authorization, content-type";
  if (const std::string* asked = request.Find("access-control-request-headers")) {
    const bool plain = std::all_of(asked->begin(), asked->end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
             c == '-' || c == '_' || c == ',' || c == ' ';
    });
    if (plain && !asked->empty()) names = *asked;
  }
  headers.emplace_back("access-control-allow-headers", std::move(names));
  return headers;
}

}  // namespace perdure::frontend
