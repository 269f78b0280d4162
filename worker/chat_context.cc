#include "worker/chat_context.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace perdure::worker {
namespace {

// What only the server says. add_generation_prompt is the one that a client may switch off.
constexpr std::array<std::string_view, 5> kReserved = {"messages", "tools", "documents",
                                                       "bos_token", "eos_token"};

// A list of text parts becomes their text; nothing becomes "". Other parts are refused: no model
// here sees images or hears sound.
Status FlattenContent(Json* message) {
  const auto found = message->find("content");
  if (found == message->end() || found->is_null()) {
    (*message)["content"] = "";
    return {};
  }
  if (found->is_string()) return {};
  if (!found->is_array())
    return Err(ErrorCode::invalid_request,
               fmt::format("a message's content is {}, allowed are a string and a list of parts",
                           JsonTypeName(*found)),
               "messages");
  std::string text;
  for (const Json& part : *found) {
    if (part.is_string()) {
      text += part.get_ref<const std::string&>();
      continue;
    }
    if (!part.is_object() || !part.contains("text") || !part["text"].is_string())
      return Err(ErrorCode::invalid_request,
                 "a message's content has a part that is no text: this model takes text alone",
                 "messages");
    text += part["text"].get_ref<const std::string&>();
  }
  *found = std::move(text);
  return {};
}

// Templates dump arguments with tojson: a JSON text becomes the object that it stands for.
void OpenArguments(Json* message) {
  const auto calls = message->find("tool_calls");
  if (calls == message->end() || !calls->is_array()) return;
  for (Json& call : *calls) {
    if (!call.is_object()) continue;
    const auto function = call.find("function");
    if (function == call.end() || !function->is_object()) continue;
    const auto arguments = function->find("arguments");
    if (arguments == function->end() || !arguments->is_string()) continue;
    auto parsed = ParseJson(arguments->get_ref<const std::string&>(), "arguments",
                            ErrorCode::invalid_request);
    // Anything else is what the model once wrote, however wrong: it stays as it is.
    if (parsed && parsed->is_object()) *arguments = std::move(*parsed);
  }
}

Status MergeKwargs(const Json& kwargs, Json* context) {
  if (kwargs.is_null()) return {};
  if (!kwargs.is_object())
    return Err(
        ErrorCode::invalid_request,
        fmt::format("chat_template_kwargs is {}, allowed is an object", JsonTypeName(kwargs)),
        "chat_template_kwargs");
  for (const auto& [key, value] : kwargs.items()) {
    bool allowed = true;
    for (std::string_view reserved : kReserved) allowed = allowed && key != reserved;
    // Its strings count as the template's own text: only a switch is let through.
    if (key == "add_generation_prompt") allowed = value.is_boolean();
    if (!allowed)
      return Err(
          ErrorCode::invalid_request,
          fmt::format("chat_template_kwargs may not set '{}' to {}", key, JsonTypeName(value)),
          "chat_template_kwargs");
    (*context)[key] = value;
  }
  return {};
}

}  // namespace

Result<Json> ChatContext(std::string_view chat_json, const text::ModelTemplate& chat) {
  ASSIGN_OR_RETURN(Json request,
                   ParseJson(chat_json, "the chat request", ErrorCode::invalid_request));
  const auto messages = request.is_object() ? request.find("messages") : request.end();
  if (!request.is_object() || messages == request.end() || !messages->is_array() ||
      messages->empty())
    return Err(ErrorCode::invalid_request, "messages must be a list of at least one message",
               "messages");
  for (Json& message : *messages) {
    if (!message.is_object())
      return Err(ErrorCode::invalid_request,
                 fmt::format("a message is {}, allowed is an object", JsonTypeName(message)),
                 "messages");
    RETURN_IF_ERROR(FlattenContent(&message));
    OpenArguments(&message);
  }
  Json context = Json::object();
  context["messages"] = std::move(*messages);
  // Always there, as in transformers: templates ask `tools is not none`.
  const auto tools = request.find("tools");
  const bool has_tools = tools != request.end() && !tools->empty();
  if (has_tools && !tools->is_array())
    return Err(ErrorCode::invalid_request,
               fmt::format("tools is {}, allowed is an array", JsonTypeName(*tools)), "tools");
  context["tools"] = has_tools ? std::move(*tools) : Json();
  context["documents"] = Json();
  context["add_generation_prompt"] = true;
  context["bos_token"] = chat.bos_token;
  context["eos_token"] = chat.eos_token;
  const auto kwargs = request.find("chat_template_kwargs");
  if (kwargs != request.end()) RETURN_IF_ERROR(MergeKwargs(*kwargs, &context));
  return context;
}

Result<text::RenderedPrompt> RenderConversation(const text::ModelTemplate& chat,
                                                std::string_view chat_json, int64_t unix_time) {
  static const std::vector<std::string> kTrusted = {"add_generation_prompt", "bos_token",
                                                    "eos_token"};
  ASSIGN_OR_RETURN(const Json context, ChatContext(chat_json, chat));
  return chat.chat->Render(context, kTrusted, unix_time);
}

}  // namespace perdure::worker
