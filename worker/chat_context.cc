#include "worker/chat_context.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"

namespace perdure::worker {
namespace {

using EmptyContent = text::ToolCallForm::EmptyContent;

// What only the server says, beside the model's special tokens. documents, chat_template and
// add_generation_prompt are checked one by one.
constexpr std::string_view kReserved[] = {"messages", "tools", "bos_token", "eos_token"};
// Names of a message's reasoning, as transformers ranks them.
constexpr const char* kReasoning[] = {"reasoning_content", "thinking", "reasoning"};

// A list of text parts becomes their text. Other parts are refused: no model here sees images or
// hears sound.
Status FlattenContent(Json* content) {
  if (content->is_string()) return {};
  if (!content->is_array())
    return Err(ErrorCode::invalid_request,
               fmt::format("a message's content is {}, allowed are a string and a list of parts",
                           JsonTypeName(*content)),
               "messages");
  std::string text;
  for (const Json& part : *content) {
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
  *content = std::move(text);
  return {};
}

bool CallsTools(const Json& message) {
  const auto calls = message.find("tool_calls");
  return calls != message.end() && calls->is_array() && !calls->empty();
}

Status SetContent(const text::ToolCallForm& form, Json* message) {
  const auto found = message->find("content");
  const bool missing = found == message->end() || found->is_null();
  if (!missing) RETURN_IF_ERROR(FlattenContent(&*found));
  if (!CallsTools(*message)) {
    if (missing) (*message)["content"] = "";
    return {};
  }
  const bool empty = !missing && found->get_ref<const std::string&>().empty();
  if (!missing && !(empty && !form.takes_empty_text)) return {};
  switch (form.empty_content) {
    case EmptyContent::kAbsent:
      message->erase("content");
      break;
    case EmptyContent::kNull:
      (*message)["content"] = nullptr;
      break;
    case EmptyContent::kText:
      (*message)["content"] = "";
      break;
  }
  return {};
}

// Templates dump arguments with tojson: a JSON text becomes the object that it stands for.
void SetArguments(const text::ToolCallForm& form, Json* arguments) {
  if (arguments->is_string() && arguments->get_ref<const std::string&>().empty())
    *arguments = Json::object();
  if (form.arguments_as_text) {
    if (!arguments->is_string()) *arguments = DumpJson(*arguments);
    return;
  }
  if (!arguments->is_string()) return;
  auto parsed =
      ParseJson(arguments->get_ref<const std::string&>(), "arguments", ErrorCode::invalid_request);
  // Anything else is what the model once wrote, however wrong: it stays as it is.
  if (parsed && parsed->is_object()) *arguments = std::move(*parsed);
}

void SetToolCalls(const text::ToolCallForm& form, Json* message) {
  if (!CallsTools(*message)) return;
  for (Json& call : (*message)["tool_calls"]) {
    if (!call.is_object()) continue;
    const auto function = call.find("function");
    if (function == call.end() || !function->is_object()) continue;
    const auto arguments = function->find("arguments");
    if (arguments != function->end()) SetArguments(form, &*arguments);
  }
}

// Templates of different times read it under different names.
void SetReasoning(Json* message) {
  for (const char* name : kReasoning) {
    const auto found = message->find(name);
    if (found == message->end()) continue;
    const Json reasoning = *found;
    (*message)["reasoning_content"] = reasoning;
    if (!message->contains("thinking")) (*message)["thinking"] = reasoning;
    return;
  }
}

Status NormalizeMessage(const text::ToolCallForm& form, Json* message) {
  if (!message->is_object())
    return Err(ErrorCode::invalid_request,
               fmt::format("a message is {}, allowed is an object", JsonTypeName(*message)),
               "messages");
  // As transformers does it: many templates print a null as "None".
  for (auto it = message->begin(); it != message->end();)
    it->is_null() ? it = message->erase(it) : ++it;
  RETURN_IF_ERROR(SetContent(form, message));
  SetToolCalls(form, message);
  SetReasoning(message);
  return {};
}

bool IsToolResult(const Json& message) {
  const auto role = message.find("role");
  return role != message.end() && *role == "tool";
}

// The id of a call, or the one that a result is of; empty where there is none.
std::string IdIn(const Json& object, const char* key) {
  const auto id = object.find(key);
  return id != object.end() && id->is_string() ? id->get<std::string>() : std::string();
}

// Some templates show whose result it is; OpenAI's API leaves that to the id.
void NameResults(Json* messages) {
  std::map<std::string, std::string> names;
  for (Json& message : *messages) {
    if (CallsTools(message)) {
      for (const Json& call : message["tool_calls"]) {
        const auto function = call.is_object() ? call.find("function") : call.end();
        if (function == call.end() || !function->is_object()) continue;
        names[IdIn(call, "id")] = IdIn(*function, "name");
      }
    }
    if (!IsToolResult(message) || message.contains("name")) continue;
    const auto name = names.find(IdIn(message, "tool_call_id"));
    if (name != names.end() && !name->first.empty() && !name->second.empty())
      message["name"] = name->second;
  }
}

// Each call in a message of its own, with its results behind it, for templates that take one.
Json CallsApart(const text::ToolCallForm& form, Json messages) {
  Json apart = Json::array();
  for (size_t at = 0; at < messages.size(); ++at) {
    if (!CallsTools(messages[at]) || messages[at]["tool_calls"].size() < 2) {
      apart.push_back(std::move(messages[at]));
      continue;
    }
    const Json calls = std::exchange(messages[at]["tool_calls"], Json::array());
    size_t end = at + 1;
    while (end < messages.size() && IsToolResult(messages[end])) ++end;
    std::vector<bool> taken(end - at, false);
    for (size_t i = 0; i < calls.size(); ++i) {
      Json message = {{"role", "assistant"}};
      if (i == 0)
        message = std::move(messages[at]);
      else if (form.empty_content == EmptyContent::kNull)
        message["content"] = nullptr;
      else if (form.empty_content == EmptyContent::kText)
        message["content"] = "";
      message["tool_calls"] = Json::array({calls[i]});
      apart.push_back(std::move(message));
      const std::string id = calls[i].is_object() ? IdIn(calls[i], "id") : std::string();
      for (size_t result = at + 1; result < end; ++result) {
        if (taken[result - at] || IdIn(messages[result], "tool_call_id") != id) continue;
        taken[result - at] = true;
        apart.push_back(std::move(messages[result]));
      }
    }
    for (size_t result = at + 1; result < end; ++result)
      if (!taken[result - at]) apart.push_back(std::move(messages[result]));
    at = end - 1;
  }
  return apart;
}

// Nine letters and digits for any other id, the same ones each time.
std::string ShortId(const std::string& id) {
  constexpr std::string_view kDigits =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  constexpr size_t kLength = 9;
  if (id.size() == kLength && id.find_first_not_of(kDigits) == std::string::npos) return id;
  uint64_t hash = Hash64(id);
  std::string digits;
  for (size_t i = 0; i < kLength; ++i, hash /= kDigits.size())
    digits += kDigits[hash % kDigits.size()];
  return digits;
}

void ShortenIds(Json* messages) {
  const auto shorten = [](Json* object, const char* key) {
    const auto id = object->find(key);
    if (id != object->end() && id->is_string()) *id = ShortId(id->get_ref<const std::string&>());
  };
  for (Json& message : *messages) {
    if (CallsTools(message)) {
      for (Json& call : message["tool_calls"])
        if (call.is_object()) shorten(&call, "id");
    }
    shorten(&message, "tool_call_id");
  }
}

tl::unexpected<Error> BadKwarg(const std::string& key, std::string_view why) {
  return Err(ErrorCode::invalid_request, fmt::format("chat_template_kwargs.{} {}", key, why),
             "chat_template_kwargs");
}

Status CheckKwarg(const std::string& key, const Json& value,
                  const std::map<std::string, std::string>& special_tokens) {
  const bool reserved =
      std::find(std::begin(kReserved), std::end(kReserved), key) != std::end(kReserved);
  // Their strings count as the template's own text.
  if (reserved || special_tokens.contains(key))
    return BadKwarg(key, "may not be set: the server sets it");
  if (key == "add_generation_prompt" && !value.is_boolean())
    return BadKwarg(key, fmt::format("is {}, allowed are true and false", JsonTypeName(value)));
  if (key != "documents") return {};
  bool objects = value.is_array();
  for (const Json& document : value) objects = objects && document.is_object();
  if (!objects) return BadKwarg(key, "must be a list of objects, such as {\"title\", \"text\"}");
  return {};
}

// Moves the name of the wanted template, if there is one, to `name`.
Result<Json> TakeKwargs(Json& request, const text::ModelTemplate& chat, std::string* name) {
  const auto found = request.find("chat_template_kwargs");
  if (found == request.end() || found->is_null()) return Json::object();
  Json kwargs = std::move(*found);
  if (!kwargs.is_object())
    return Err(
        ErrorCode::invalid_request,
        fmt::format("chat_template_kwargs is {}, allowed is an object", JsonTypeName(kwargs)),
        "chat_template_kwargs");
  for (const auto& [key, value] : kwargs.items())
    RETURN_IF_ERROR(CheckKwarg(key, value, chat.special_tokens));
  if (const auto wanted = kwargs.find("chat_template"); wanted != kwargs.end()) {
    if (!wanted->is_string() || wanted->get_ref<const std::string&>().empty())
      return BadKwarg("chat_template", "must be the name of one of the model's templates");
    *name = wanted->get<std::string>();
    kwargs.erase(wanted);
  }
  return kwargs;
}

// Local time's distance from UTC at that moment.
int UtcOffsetAt(int64_t unix_time) {
  const time_t seconds = static_cast<time_t>(unix_time);
  tm local = {};
  return localtime_r(&seconds, &local) != nullptr ? static_cast<int>(local.tm_gmtoff) : 0;
}

}  // namespace

Result<ChatContext> MakeChatContext(std::string_view chat_json, const text::ModelTemplate& chat) {
  ASSIGN_OR_RETURN(Json request,
                   ParseJson(chat_json, "the chat request", ErrorCode::invalid_request));
  const auto messages = request.is_object() ? request.find("messages") : request.end();
  if (!request.is_object() || messages == request.end() || !messages->is_array() ||
      messages->empty())
    return Err(ErrorCode::invalid_request, "messages must be a list of at least one message",
               "messages");
  const auto tools = request.find("tools");
  const bool has_tools = tools != request.end() && !tools->empty();
  if (has_tools && !tools->is_array())
    return Err(ErrorCode::invalid_request,
               fmt::format("tools is {}, allowed is an array", JsonTypeName(*tools)), "tools");
  std::string name;
  ASSIGN_OR_RETURN(const Json kwargs, TakeKwargs(request, chat, &name));
  ChatContext result;
  ASSIGN_OR_RETURN(result.chat, chat.Choose(name, has_tools));
  const text::ToolCallForm& form = result.chat->tool_calls;
  for (Json& message : *messages) RETURN_IF_ERROR(NormalizeMessage(form, &message));
  NameResults(&*messages);
  if (form.one_call_a_message) *messages = CallsApart(form, std::move(*messages));
  if (form.short_ids) ShortenIds(&*messages);
  Json& variables = result.variables;
  variables = Json::object();
  for (const auto& [key, token] : chat.special_tokens) variables[key] = token;
  variables["messages"] = std::move(*messages);
  // Always there, as in transformers: templates ask `tools is not none`.
  variables["tools"] = has_tools ? std::move(*tools) : Json();
  variables["documents"] = Json();
  variables["add_generation_prompt"] = true;
  for (const auto& [key, value] : kwargs.items()) variables[key] = value;
  return result;
}

Result<RenderedChat> RenderConversation(const text::ModelTemplate& chat, std::string_view chat_json,
                                        int64_t unix_time) {
  ASSIGN_OR_RETURN(ChatContext context, MakeChatContext(chat_json, chat));
  std::vector<std::string> trusted = {"add_generation_prompt"};
  for (const auto& [key, token] : chat.special_tokens) trusted.push_back(key);
  RenderedChat rendered;
  rendered.chat = context.chat;
  ASSIGN_OR_RETURN(rendered.prompt, context.chat->chat->Render(
                                        context.variables, trusted,
                                        text::TemplateTime(unix_time, UtcOffsetAt(unix_time))));
  rendered.tools = std::move(context.variables["tools"]);
  return rendered;
}

Json ToolsOf(std::string_view chat_json) {
  auto request = ParseJson(chat_json, "the chat request", ErrorCode::invalid_request);
  if (!request || !request->is_object() || !request->contains("tools")) return {};
  return std::move((*request)["tools"]);
}

}  // namespace perdure::worker
