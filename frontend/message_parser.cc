#include "frontend/message_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>

#include "base/limits.h"
#include "frontend/request_fields.h"

namespace perdure::frontend {
namespace {

Result<std::string> RequireString(const Json& object, std::string_view name,
                                  const std::string& where, size_t bytes_max) {
  const Json* value = FindField(object, name);
  std::string param = fmt::format("{}.{}", where, name);
  if (!value) return Err(ErrorCode::invalid_request, fmt::format("{} is required.", param), param);
  if (!value->is_string()) return Err(FieldError(param, "a string", *value));
  const auto& text = value->get_ref<const std::string&>();
  if (text.empty() || text.size() > bytes_max)
    return Err(
        ErrorCode::invalid_request,
        fmt::format("{} must have 1 to {} bytes, but has {}.", param, bytes_max, text.size()),
        param);
  return text;
}

bool IsToolName(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || c == ':' || c == '/';
  });
}

Result<std::string> RequireToolName(const Json& object, const std::string& where) {
  ASSIGN_OR_RETURN(std::string name,
                   RequireString(object, "name", where, limits::kToolNameBytesMax));
  if (!IsToolName(name))
    return Err(ErrorCode::invalid_request,
               fmt::format("{}.name may have letters, digits and the characters _ - . : / only, "
                           "not {}.",
                           where, Quoted(name)),
               where + ".name");
  return name;
}

Result<std::string> JoinParts(Json& parts, const std::string& where) {
  std::string joined;
  size_t index = 0;
  for (Json& part : parts) {
    const std::string here = fmt::format("{}[{}]", where, index++);
    if (!part.is_object()) return Err(FieldError(here, "an object with a type", part));
    const Json* type = FindField(part, "type");
    if (!type || !type->is_string())
      return Err(ErrorCode::invalid_request,
                 fmt::format("{}.type must be \"text\"; it is missing or no string.", here),
                 here + ".type");
    const auto& name = type->get_ref<const std::string&>();
    if (name != "text" && name != "refusal")
      return Err(Unsupported(here + ".type",
                             fmt::format("{} is of type {}, but the models of this server read "
                                         "text only.",
                                         here, Quoted(name))));
    const Json* text = FindField(part, name);
    if (!text || !text->is_string())
      return Err(ErrorCode::invalid_request, fmt::format("{}.{} must be a string.", here, name),
                 fmt::format("{}.{}", here, name));
    if (index > 1) joined += '\n';
    joined += text->get_ref<const std::string&>();
  }
  return joined;
}

Result<Json> ParseToolCall(Json& call, const std::string& where,
                           std::unordered_set<std::string>& call_ids) {
  if (!call.is_object()) return Err(FieldError(where, "an object", call));
  ASSIGN_OR_RETURN(std::string id, RequireString(call, "id", where, limits::kToolCallIdBytesMax));
  if (const Json* type = FindField(call, "type"); type && *type != "function")
    return Err(FieldError(where + ".type", "\"function\"", *type));
  const Json* function = FindField(call, "function");
  if (!function)
    return Err(ErrorCode::invalid_request, fmt::format("{}.function is required.", where),
               where + ".function");
  if (!function->is_object()) return Err(FieldError(where + ".function", "an object", *function));
  ASSIGN_OR_RETURN(std::string name, RequireToolName(*function, where + ".function"));

  // The text stays as it is, whatever a model wrote: the worker opens it for its template.
  Json arguments = Json::object();
  if (const Json* given = FindField(*function, "arguments")) {
    if (!given->is_object() && !given->is_string())
      return Err(FieldError(where + ".function.arguments", "a string of JSON", *given));
    arguments = *given;
  }
  Json out = Json::object();
  out["id"] = id;
  out["type"] = "function";
  out["function"] = Json::object();
  out["function"]["name"] = std::move(name);
  out["function"]["arguments"] = std::move(arguments);
  call_ids.insert(std::move(id));
  return out;
}

Result<Json> ParseMessage(Json& message, const std::string& where,
                          std::unordered_set<std::string>& call_ids) {
  if (!message.is_object()) return Err(FieldError(where, "an object", message));
  const Json* role_field = FindField(message, "role");
  if (!role_field)
    return Err(ErrorCode::invalid_request, fmt::format("{}.role is required.", where),
               where + ".role");
  static constexpr std::string_view kRoles = "one of system, developer, user, assistant and tool";
  if (!role_field->is_string()) return Err(FieldError(where + ".role", kRoles, *role_field));
  std::string role = *role_field;
  if (role == "developer") role = "system";
  const bool is_assistant = role == "assistant", is_tool = role == "tool";
  if (role != "system" && role != "user" && !is_assistant && !is_tool)
    return Err(FieldError(where + ".role", kRoles, *role_field));

  Json out = Json::object();
  out["role"] = role;

  const Json* calls = FindField(message, "tool_calls");
  if (calls && !is_assistant)
    return Err(ErrorCode::invalid_request,
               fmt::format("{}.tool_calls is allowed in assistant messages only.", where),
               where + ".tool_calls");
  if (calls && !calls->is_array())
    return Err(FieldError(where + ".tool_calls", "an array", *calls));
  const bool has_calls = calls && !calls->empty();

  if (FindField(message, "function_call"))
    return Err(
        Unsupported(where + ".function_call",
                    fmt::format("{}.function_call is the old form; use tool_calls.", where)));

  auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    if (!has_calls)
      return Err(ErrorCode::invalid_request,
                 fmt::format("{}.content is required; it may be null only in an assistant message "
                             "with tool_calls.",
                             where),
                 where + ".content");
    out["content"] = nullptr;
  } else if (content->is_string()) {
    out["content"] = std::move(*content);
  } else if (content->is_array() && !content->empty()) {
    ASSIGN_OR_RETURN(out["content"], JoinParts(*content, where + ".content"));
  } else {
    return Err(FieldError(where + ".content", "a string or an array of text parts", *content));
  }

  if (const Json* name = FindField(message, "name")) {
    if (!name->is_string()) return Err(FieldError(where + ".name", "a string", *name));
    out["name"] = *name;
  }
  // Clients differ in its name.
  for (const char* name : {"reasoning_content", "reasoning"}) {
    const Json* reasoning = FindField(message, name);
    if (!reasoning || !is_assistant) continue;
    if (!reasoning->is_string())
      return Err(FieldError(fmt::format("{}.{}", where, name), "a string", *reasoning));
    out["reasoning_content"] = *reasoning;
    break;
  }
  if (has_calls) {
    if (calls->size() > limits::kToolsMax)
      return Err(ErrorCode::invalid_request,
                 fmt::format("{}.tool_calls has {} entries; at most {} are allowed.", where,
                             calls->size(), limits::kToolsMax),
                 where + ".tool_calls");
    Json list = Json::array();
    size_t index = 0;
    for (Json& call : message["tool_calls"]) {
      ASSIGN_OR_RETURN(
          Json parsed,
          ParseToolCall(call, fmt::format("{}.tool_calls[{}]", where, index), call_ids));
      list.push_back(std::move(parsed));
      ++index;
    }
    out["tool_calls"] = std::move(list);
  }
  if (is_tool) {
    ASSIGN_OR_RETURN(std::string id,
                     RequireString(message, "tool_call_id", where, limits::kToolCallIdBytesMax));
    if (!call_ids.contains(id))
      return Err(ErrorCode::invalid_request,
                 fmt::format("{}.tool_call_id {} belongs to no tool call of an earlier assistant "
                             "message.",
                             where, Quoted(id)),
                 where + ".tool_call_id");
    out["tool_call_id"] = std::move(id);
  }
  return out;
}

}  // namespace

Result<Json> ParseMessages(Json messages) {
  if (!messages.is_array() || messages.empty())
    return Err(FieldError("messages", "a non-empty array of messages", messages));
  if (messages.size() > limits::kMessagesMax)
    return Err(ErrorCode::invalid_request,
               fmt::format("messages has {} entries; at most {} are allowed.", messages.size(),
                           limits::kMessagesMax),
               "messages");
  Json out = Json::array();
  std::unordered_set<std::string> call_ids;
  size_t index = 0;
  for (Json& message : messages) {
    ASSIGN_OR_RETURN(Json parsed,
                     ParseMessage(message, fmt::format("messages[{}]", index), call_ids));
    out.push_back(std::move(parsed));
    ++index;
  }
  return out;
}

Status CheckTools(const Json& tools) {
  if (!tools.is_array()) return Err(FieldError("tools", "an array", tools));
  if (tools.size() > limits::kToolsMax)
    return Err(ErrorCode::invalid_request,
               fmt::format("tools has {} entries; at most {} are allowed.", tools.size(),
                           limits::kToolsMax),
               "tools");
  size_t index = 0;
  for (const Json& tool : tools) {
    const std::string where = fmt::format("tools[{}]", index++);
    if (!tool.is_object()) return Err(FieldError(where, "an object", tool));
    const Json* type = FindField(tool, "type");
    if (!type || !type->is_string())
      return Err(ErrorCode::invalid_request,
                 fmt::format("{}.type must be \"function\"; it is missing or no string.", where),
                 where + ".type");
    if (*type != "function")
      return Err(Unsupported(where + ".type",
                             fmt::format("{}.type is {}, but the only tools here are functions.",
                                         where, Quoted(type->get_ref<const std::string&>()))));
    const Json* function = FindField(tool, "function");
    if (!function)
      return Err(ErrorCode::invalid_request, fmt::format("{}.function is required.", where),
                 where + ".function");
    if (!function->is_object()) return Err(FieldError(where + ".function", "an object", *function));
    ASSIGN_OR_RETURN([[maybe_unused]] const std::string name,
                     RequireToolName(*function, where + ".function"));
    if (const Json* description = FindField(*function, "description");
        description && !description->is_string())
      return Err(FieldError(where + ".function.description", "a string", *description));
    if (const Json* parameters = FindField(*function, "parameters");
        parameters && !parameters->is_object())
      return Err(
          FieldError(where + ".function.parameters", "a JSON schema (an object)", *parameters));
    if (const Json* strict = FindField(*function, "strict"); strict && !strict->is_boolean())
      return Err(FieldError(where + ".function.strict", "true or false", *strict));
  }
  return {};
}

}  // namespace perdure::frontend
