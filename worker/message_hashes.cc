#include "worker/message_hashes.h"

#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "base/hash.h"
#include "base/json.h"
#include "base/result.h"

namespace perdure::worker {
namespace {

// Without what stands before the end of a reasoning.
std::string_view Essence(std::string_view text) {
  constexpr std::string_view kEndOfReasoning = "</think>";
  if (const size_t end = text.rfind(kEndOfReasoning); end != std::string_view::npos)
    text.remove_prefix(end + kEndOfReasoning.size());
  constexpr std::string_view kBlanks = " \t\r\n";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string TextOf(const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  if (!content.is_array()) return text;
  for (const Json& part : content) {
    if (part.is_string()) text += part.get<std::string>();
    if (part.is_object() && part.contains("text") && part["text"].is_string())
      text += part["text"].get<std::string>();
  }
  return text;
}

void AppendCall(std::string_view name, std::string_view arguments, std::string* calls) {
  const auto parsed = ParseJson(arguments, "arguments", ErrorCode::invalid_request);
  calls->append(name).push_back('\0');
  calls->append(parsed ? DumpJson(*parsed) : std::string(arguments)).push_back('\0');
}

std::string CallsOf(const Json& message) {
  std::string text;
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return text;
  for (const Json& call : *calls) {
    const auto function = call.is_object() ? call.find("function") : call.end();
    if (function == call.end() || !function->is_object()) continue;
    const Json name = function->value("name", Json());
    const Json arguments = function->value("arguments", Json());
    AppendCall(name.is_string() ? name.get<std::string>() : std::string(),
               arguments.is_string() ? arguments.get<std::string>() : DumpJson(arguments), &text);
  }
  return text;
}

uint64_t Behind(uint64_t before, std::string_view role, std::string_view text,
                std::string_view calls) {
  const uint64_t parts[] = {before, Hash64(role), Hash64(Essence(text)), Hash64(calls)};
  return Hash64(std::as_bytes(std::span(parts)));
}

}  // namespace

std::vector<uint64_t> MessageHashes(std::string_view chat_json) {
  std::vector<uint64_t> hashes;
  if (chat_json.empty()) return hashes;
  const auto chat = ParseJson(chat_json, "the chat request", ErrorCode::invalid_request);
  if (!chat || !chat->is_object() || !chat->contains("messages") || !(*chat)["messages"].is_array())
    return hashes;
  uint64_t hash = 0;
  for (const Json& message : (*chat)["messages"]) {
    if (!message.is_object()) continue;
    const auto role = message.find("role");
    const auto content = message.find("content");
    const std::string by =
        role != message.end() && role->is_string() ? role->get<std::string>() : std::string();
    hash = Behind(hash, by, content != message.end() ? TextOf(*content) : std::string(),
                  CallsOf(message));
    if (hashes.empty() && (by == "system" || by == "developer")) continue;
    hashes.push_back(hash);
  }
  return hashes;
}

void AddAnswer(const SaidAnswer& answer, std::vector<uint64_t>* hashes) {
  if (hashes->empty()) return;
  std::string calls;
  for (const SaidAnswer::Call& call : answer.calls) AppendCall(call.name, call.arguments, &calls);
  hashes->push_back(Behind(hashes->back(), "assistant", answer.content, calls));
}

}  // namespace perdure::worker
