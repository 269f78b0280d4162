#include "worker/turn_messages.h"

#include <nlohmann/json.hpp>

#include "base/json.h"

namespace perdure::worker {

std::vector<std::string> MessagesOf(const protocol::GenerationRequest& request) {
  if (request.kind == protocol::RequestKind::kCompletion)
    return {DumpJson(Json{{"prompt", request.prompt_ids ? Json() : Json(request.prompt)}})};
  std::vector<std::string> messages;
  const auto chat = ParseJson(request.chat_json, "the chat request", ErrorCode::invalid_request);
  if (!chat || !chat->is_object() || !chat->contains("messages")) return messages;
  for (const Json& message : (*chat)["messages"]) messages.push_back(DumpJson(message));
  return messages;
}

std::string AnswerMessage(protocol::RequestKind kind, std::string_view text) {
  if (kind == protocol::RequestKind::kCompletion) return DumpJson(Json{{"completion", text}});
  return DumpJson(Json{{"role", "assistant"}, {"content", text}});
}

}  // namespace perdure::worker
