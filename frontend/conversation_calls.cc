#include "frontend/conversation_calls.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/limits.h"
#include "frontend/http_response.h"
#include "protocol/frame.h"

namespace perdure::frontend {

using protocol::RequestId;

Result<HttpResponse> ResponseTo(const protocol::ConversationAnswer& answer) {
  if (answer.error_code != 0)
    return ErrorResponse({ErrorCodeFromWire(answer.error_code), answer.text, answer.param, 0});
  // A parser's message would repeat some of it, and the log that.
  if (!ParseJson(answer.text, "a ConversationAnswer", ErrorCode::protocol_error))
    return Err(ErrorCode::protocol_error, "a ConversationAnswer is not valid JSON");
  return JsonResponse(200, answer.text);
}

Status ConversationCalls::Start(protocol::ConversationCommand command, WorkerId worker,
                                WorkerPort* port, AnswerSink* sink, int64_t now_ms) {
  if (calls_.size() >= limits::kConversationCallsMax)
    return Err(Error{ErrorCode::overloaded,
                     "As many requests of /v1/conversations are under way as there may be.",
                     {},
                     1});
  calls_[command.rid] = {sink, worker, now_ms + limits::kConversationCallWaitMs};
  port->Send(protocol::MakeFrame(command));
  return {};
}

Status ConversationCalls::OnAnswer(WorkerId worker, const protocol::ConversationAnswer& answer) {
  const auto call = calls_.find(answer.rid);
  if (call == calls_.end() || call->second.worker != worker) return {};
  ASSIGN_OR_RETURN(HttpResponse response, ResponseTo(answer));
  AnswerSink* const sink = call->second.sink;
  calls_.erase(call);
  sink->Respond(std::move(response));
  return {};
}

template <class Condition>
void ConversationCalls::FailIf(const Condition& condition, ErrorCode code, const char* message) {
  std::vector<AnswerSink*> sinks;
  std::erase_if(calls_, [&](const auto& entry) {
    if (!condition(entry.second)) return false;
    sinks.push_back(entry.second.sink);
    return true;
  });
  for (AnswerSink* sink : sinks) sink->Respond(ErrorResponse({code, message, {}, 1}));
}

void ConversationCalls::OnWorkerGone(WorkerId worker) {
  FailIf(
      [worker](const Call& call) { return call.worker == worker; }, ErrorCode::worker_lost,
      "The model's process ended before it answered: look what has become of it, and ask again.");
}

void ConversationCalls::OnTick(int64_t now_ms) {
  FailIf([now_ms](const Call& call) { return now_ms >= call.give_up_ms; }, ErrorCode::overloaded,
         "The model's process has not answered in time: it is busy, ask again later.");
}

void ConversationCalls::EndAll() {
  FailIf([](const Call&) { return true; }, ErrorCode::shutting_down,
         "The service is shutting down.");
}

}  // namespace perdure::frontend
