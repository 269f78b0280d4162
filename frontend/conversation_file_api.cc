#include "frontend/conversation_file_api.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json.h"
#include "base/limits.h"
#include "base/percent_encode.h"
#include "frontend/conversation_api.h"
#include "frontend/query.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {
namespace {

using protocol::ConversationFileOperation;

// Behind /v1 or /admin.
constexpr std::string_view kConversations = "/conversations/";
constexpr std::string_view kAllSaved = "/saved";
constexpr std::string_view kOneSaved = "/saved/";
constexpr std::string_view kExport = "/export", kSave = "/save";

tl::unexpected<Error> Refuse(std::string param, std::string message) {
  return Err(ErrorCode::invalid_request, std::move(message), std::move(param));
}

Result<std::string> TextOf(std::string_view param, std::string text, size_t bytes_max) {
  if (text.empty() || text.size() > bytes_max)
    return Refuse(std::string(param), fmt::format("{} must have 1 to {} bytes.", param, bytes_max));
  if (std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7F; }))
    return Refuse(std::string(param),
                  fmt::format("{} must not contain control characters.", param));
  return text;
}
Result<std::string> IdOf(std::string id) {
  return TextOf("id", std::move(id), limits::kConversationIdBytesMax);
}
Result<std::string> NameOf(std::string name) {
  return TextOf("name", std::move(name), limits::kSavedNameBytesMax);
}

// The part of a path between these, which has no slash; nothing: there is none.
std::optional<std::string_view> Between(std::string_view path, std::string_view before,
                                        std::string_view behind) {
  if (path.size() <= before.size() + behind.size() || !path.starts_with(before) ||
      !path.ends_with(behind))
    return std::nullopt;
  path.remove_prefix(before.size());
  path.remove_suffix(behind.size());
  if (path.find('/') != std::string_view::npos) return std::nullopt;
  return path;
}

// Without /v1 or /admin; empty: it is of neither.
std::string_view Rest(std::string_view path) {
  for (const std::string_view beginning : {"/v1", "/admin"})
    if (path.starts_with(beginning)) return path.substr(beginning.size());
  return {};
}

Result<std::string> Decoded(std::string_view param, std::optional<std::string_view> text) {
  auto decoded = PercentDecode(text.value_or(""));
  if (!decoded)
    return Refuse(std::string(param),
                  fmt::format("The {} is not percent-encoded properly.", param));
  return std::move(*decoded);
}

Status ReadQuery(const HttpRequest& request, ConversationFilePath path,
                 ConversationFileCall* call) {
  ASSIGN_OR_RETURN(const auto parameters, QueryOf(request.target));
  for (const auto& [name, value] : parameters) {
    if (name == "model") {
      call->model = value;
    } else if (name == "tenant" && call->command.of_all_tenants) {
      ASSIGN_OR_RETURN(call->command.owner, OwnerNamed(name, value));
    } else if (name == "kv" && path == ConversationFilePath::kExport) {
      if (value != "true" && value != "false") return Refuse("kv", "kv must be true or false.");
      call->command.kv = value == "true";
    } else if (name == "id" && path == ConversationFilePath::kImport) {
      ASSIGN_OR_RETURN(call->command.id, IdOf(value));
    } else {
      return UnknownParameter(name);
    }
  }
  return {};
}

Status ReadBody(const std::string& body, ConversationFilePath path, ConversationFileCall* call) {
  protocol::ConversationFileCommand& command = call->command;
  Json json = Json::object();
  if (!body.empty()) {
    ASSIGN_OR_RETURN(json, ParseJson(body, "The request body", ErrorCode::invalid_request));
  }
  if (!json.is_object()) return Refuse({}, "The request body must be a JSON object.");
  ASSIGN_OR_RETURN(auto name, ReadString(json, "name", limits::kSavedNameBytesMax));
  if (!name) return Refuse("name", "name must say under which name.");
  ASSIGN_OR_RETURN(command.name, NameOf(std::move(*name)));
  if (path == ConversationFilePath::kSave) {
    ASSIGN_OR_RETURN(const auto kv, ReadBool(json, "kv"));
    command.kv = kv.value_or(true);
    ASSIGN_OR_RETURN(const auto overwrite, ReadBool(json, "overwrite"));
    command.overwrite = overwrite.value_or(false);
  } else {
    ASSIGN_OR_RETURN(auto id, ReadString(json, "id", limits::kConversationIdBytesMax));
    if (id) {
      ASSIGN_OR_RETURN(command.id, IdOf(std::move(*id)));
    }
  }
  return {};
}

}  // namespace

ConversationFilePath ConversationFilePathOf(std::string_view whole) {
  const std::string_view path = Rest(whole);
  if (path == kAllSaved) return ConversationFilePath::kAllSaved;
  if (Between(path, kOneSaved, "")) return ConversationFilePath::kSaved;
  if (path == "/conversations/load") return ConversationFilePath::kLoad;
  if (path == "/conversations/import") return ConversationFilePath::kImport;
  if (Between(path, kConversations, kExport)) return ConversationFilePath::kExport;
  if (Between(path, kConversations, kSave)) return ConversationFilePath::kSave;
  return ConversationFilePath::kNone;
}

std::string_view ConversationFileMethods(ConversationFilePath path) {
  switch (path) {
    case ConversationFilePath::kExport:
      return "GET";  // nobody wants it made for its head alone
    case ConversationFilePath::kSave:
      return "POST";
    case ConversationFilePath::kAllSaved:
      return "GET, HEAD";
    case ConversationFilePath::kSaved:
      return "DELETE";
    // And what conversations of these names take.
    case ConversationFilePath::kLoad:
    case ConversationFilePath::kImport:
      return "GET, HEAD, POST, DELETE";
    case ConversationFilePath::kNone:
      break;
  }
  return "";
}

bool IsUpload(std::string_view method, std::string_view path) {
  return method == "POST" && ConversationFilePathOf(path) == ConversationFilePath::kImport;
}

Result<ConversationFileCall> ParseConversationFileCall(const HttpRequest& request,
                                                       const std::string& tenant) {
  ConversationFileCall call;
  protocol::ConversationFileCommand& command = call.command;
  command.tenant = tenant;
  command.of_all_tenants = IsOfAdmin(PathOf(request.target));
  if (command.of_all_tenants) command.tenant.clear();  // an operator's key is nobody's
  const ConversationFilePath kind = ConversationFilePathOf(PathOf(request.target));
  const std::string_view path = Rest(PathOf(request.target));
  switch (kind) {
    case ConversationFilePath::kExport:
    case ConversationFilePath::kSave: {
      const bool saves = kind == ConversationFilePath::kSave;
      command.operation =
          saves ? ConversationFileOperation::kSave : ConversationFileOperation::kExport;
      ASSIGN_OR_RETURN(std::string id,
                       Decoded("id", Between(path, kConversations, saves ? kSave : kExport)));
      ASSIGN_OR_RETURN(command.id, IdOf(std::move(id)));
      break;
    }
    case ConversationFilePath::kLoad:
      command.operation = ConversationFileOperation::kLoad;
      break;
    case ConversationFilePath::kAllSaved:
      command.operation = ConversationFileOperation::kListSaved;
      break;
    case ConversationFilePath::kSaved: {
      command.operation = ConversationFileOperation::kDeleteSaved;
      ASSIGN_OR_RETURN(std::string name, Decoded("name", Between(path, kOneSaved, "")));
      ASSIGN_OR_RETURN(command.name, NameOf(std::move(name)));
      break;
    }
    case ConversationFilePath::kImport:
    case ConversationFilePath::kNone:
      break;
  }
  RETURN_IF_ERROR(ReadQuery(request, kind, &call));
  if (kind == ConversationFilePath::kSave || kind == ConversationFilePath::kLoad)
    RETURN_IF_ERROR(ReadBody(request.body, kind, &call));
  if (kind == ConversationFilePath::kImport) {
    if (request.upload == nullptr || request.upload->bytes == 0)
      return Refuse({}, "The body must be the file of an exported conversation.");
    call.upload = request.upload;
  }
  return call;
}

}  // namespace perdure::frontend
