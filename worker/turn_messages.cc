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

std::string AnswerMessage(protocol::RequestKind kind, const SaidAnswer& answer,
                          protocol::RequestId rid, int32_t choice) {
  if (kind == protocol::RequestKind::kCompletion)
    return DumpJson(Json{{"completion", answer.content}});
  Json message = {{"role", "assistant"}, {"content", answer.content}};
  if (answer.content.empty() && !answer.calls.empty()) message["content"] = nullptr;
  if (!answer.reasoning.empty()) message["reasoning_content"] = answer.reasoning;
  for (const SaidAnswer::Call& call : answer.calls) {
    const auto index = static_cast<int32_t>(&call - answer.calls.data());
    message["tool_calls"].push_back(
        {{"id", protocol::ToolCallId(rid, choice, index)},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  return DumpJson(message);
}

}  // namespace perdure::worker
