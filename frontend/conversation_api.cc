#include "frontend/conversation_api.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"
#include "base/limits.h"
#include "base/percent_encode.h"
#include "frontend/query.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {
namespace {

using protocol::ConversationOperation;

constexpr std::string_view kOwn = "/v1/conversations";
constexpr std::string_view kOfAll = "/admin/conversations";
constexpr std::string_view kTenants = "/admin/tenants";  // no id can be this

struct Parts {
  std::string_view id;
  std::optional<std::string_view> action;  // behind a further slash
};

std::optional<Parts> PartsOf(std::string_view path) {
  const std::string_view all = IsOfAdmin(path) ? kOfAll : kOwn;
  if (!path.starts_with(all)) return std::nullopt;
  path.remove_prefix(all.size());
  if (path.empty()) return Parts{};
  if (path.front() != '/') return std::nullopt;
  path.remove_prefix(1);
  const size_t slash = path.find('/');
  if (path.empty() || slash == 0) return std::nullopt;
  if (slash == std::string_view::npos) return Parts{path, std::nullopt};
  return Parts{path.substr(0, slash), path.substr(slash + 1)};
}

tl::unexpected<Error> Refuse(std::string param, std::string message) {
  return Err(ErrorCode::invalid_request, std::move(message), std::move(param));
}

Result<std::string> IdOf(std::string_view name, std::string id) {
  if (id.empty() || id.size() > limits::kConversationIdBytesMax)
    return Refuse(std::string(name), fmt::format("{} must have 1 to {} bytes.", name,
                                                 limits::kConversationIdBytesMax));
  for (const unsigned char c : id)
    if (c < 0x20 || c == 0x7F)
      return Refuse(std::string(name),
                    fmt::format("{} must not contain control characters.", name));
  return id;
}

Status ReadQuery(const HttpRequest& request, ConversationCall* call) {
  protocol::ConversationCommand& command = call->command;
  const ConversationOperation operation = command.operation;
  const bool is_list = operation == ConversationOperation::kList;
  const bool is_get = operation == ConversationOperation::kGet;
  ASSIGN_OR_RETURN(const auto parameters, QueryOf(request.target));
  bool all = false;
  for (const auto& [name, value] : parameters) {
    if (name == "model") {
      call->model = value;
    } else if (name == "tenant" && command.of_all_tenants &&
               operation != ConversationOperation::kTenants) {
      ASSIGN_OR_RETURN(command.owner, OwnerNamed(name, value));
    } else if (name == "after_tenant" && command.of_all_tenants && is_list) {
      ASSIGN_OR_RETURN(command.after_owner, OwnerNamed(name, value));
    } else if (name == "limit" && is_list) {
      ASSIGN_OR_RETURN(const int64_t limit,
                       NumberOf(name, value, 1, limits::kConversationsListedMax));
      command.limit = static_cast<int32_t>(limit);
    } else if (name == "after" && is_list) {
      command.after = value;
    } else if (name == "user" && (is_list || operation == ConversationOperation::kDeleteAll)) {
      if (value.empty() && !is_list) return Refuse("user", "user must not be empty.");
      command.user = value;
    } else if (name == "all" && operation == ConversationOperation::kDeleteAll) {
      all = value == "true";
    } else if (name == "turn" && is_get) {
      ASSIGN_OR_RETURN(const int64_t turn, NumberOf(name, value, 1, UINT32_MAX));
      command.turn = static_cast<uint32_t>(turn);
    } else if (name == "tokens" && is_get) {
      if (value != "true" && value != "false")
        return Refuse("tokens", "tokens must be true or false.");
      command.tokens = value == "true";
    } else if (name == "id" && operation == ConversationOperation::kImport) {
      ASSIGN_OR_RETURN(command.new_id, IdOf(name, value));
    } else {
      return UnknownParameter(name);
    }
  }
  if (operation == ConversationOperation::kDeleteAll && command.user.empty() && !command.owner &&
      !all)
    return Refuse("all", fmt::format("This would delete all conversations{}: say so with all=true, "
                                     "or whose with user={}.",
                                     command.of_all_tenants ? " of all tenants" : "",
                                     command.of_all_tenants ? " or tenant=" : ""));
  return {};
}

Status ReadBody(const std::string& body, ConversationCall* call) {
  protocol::ConversationCommand& command = call->command;
  if (command.operation == ConversationOperation::kImport) {
    if (body.empty()) return Refuse({}, "The body must be an exported conversation.");
    command.document = body;
    return {};
  }
  Json json = Json::object();
  if (!body.empty()) {
    ASSIGN_OR_RETURN(json, ParseJson(body, "The request body", ErrorCode::invalid_request));
  }
  if (!json.is_object()) return Refuse({}, "The request body must be a JSON object.");
  ASSIGN_OR_RETURN(const auto turn, ReadInteger(json, "turn", 1, UINT32_MAX));
  command.turn = static_cast<uint32_t>(turn.value_or(0));
  if (command.operation == ConversationOperation::kRewind) {
    if (!turn) return Refuse("turn", "turn must say after which turn it goes on.");
    return {};
  }
  ASSIGN_OR_RETURN(auto id, ReadString(json, "id", limits::kConversationIdBytesMax));
  if (id) {
    ASSIGN_OR_RETURN(command.new_id, IdOf("id", std::move(*id)));
  }
  return {};
}

}  // namespace

Result<uint64_t> OwnerNamed(std::string_view name, std::string_view text) {
  constexpr size_t kDigits = 16;
  uint64_t owner = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), owner, 16);
  if (text.size() != kDigits || parsed.ec != std::errc() || parsed.ptr != text.data() + text.size())
    return Refuse(std::string(name),
                  fmt::format("{} must have {} hexadecimal digits, as GET {} lists them.", name,
                              kDigits, kTenants));
  return owner;
}

bool IsOfAdmin(std::string_view path) { return path.starts_with("/admin/"); }

ConversationPath ConversationPathOf(std::string_view path) {
  if (path == kTenants) return ConversationPath::kTenants;
  const auto parts = PartsOf(path);
  if (!parts) return ConversationPath::kNone;
  if (parts->id.empty()) return ConversationPath::kAll;
  if (!parts->action) return ConversationPath::kOne;
  return parts->action == "fork" || parts->action == "rewind" ? ConversationPath::kAction
                                                              : ConversationPath::kNone;
}

std::string_view ConversationMethods(ConversationPath path) {
  switch (path) {
    case ConversationPath::kAll:
      return "GET, HEAD, POST, DELETE";
    case ConversationPath::kOne:
      return "GET, HEAD, DELETE";
    case ConversationPath::kAction:
      return "POST";
    case ConversationPath::kTenants:
      return "GET, HEAD";
    case ConversationPath::kNone:
      break;
  }
  return "";
}

Result<ConversationCall> ParseConversationCall(const HttpRequest& request,
                                               const std::string& tenant) {
  ConversationCall call;
  protocol::ConversationCommand& command = call.command;
  const std::string_view path = PathOf(request.target);
  command.of_all_tenants = IsOfAdmin(path);
  if (!command.of_all_tenants) command.tenant = tenant;
  command.limit = limits::kConversationsListed;
  const Parts parts = PartsOf(path).value_or(Parts{});
  const bool has_body = request.method == "POST";
  const bool deletes = request.method == "DELETE";
  switch (ConversationPathOf(path)) {
    case ConversationPath::kAll:
      command.operation = has_body  ? ConversationOperation::kImport
                          : deletes ? ConversationOperation::kDeleteAll
                                    : ConversationOperation::kList;
      break;
    case ConversationPath::kOne:
      command.operation = deletes ? ConversationOperation::kDelete : ConversationOperation::kGet;
      break;
    case ConversationPath::kTenants:
      command.operation = ConversationOperation::kTenants;
      break;
    default:
      command.operation =
          parts.action == "fork" ? ConversationOperation::kFork : ConversationOperation::kRewind;
  }
  if (!parts.id.empty()) {
    auto id = PercentDecode(parts.id);
    if (!id) return Refuse("id", "The id is not percent-encoded properly.");
    ASSIGN_OR_RETURN(command.id, IdOf("id", std::move(*id)));
  }
  RETURN_IF_ERROR(ReadQuery(request, &call));
  if (has_body) RETURN_IF_ERROR(ReadBody(request.body, &call));
  return call;
}

}  // namespace perdure::frontend
