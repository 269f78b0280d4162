#include "frontend/conversation_file_calls.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/limits.h"
#include "base/percent_encode.h"
#include "frontend/conversation_calls.h"
#include "frontend/http_response.h"
#include "protocol/frame.h"

namespace perdure::frontend {

using protocol::RequestId;

Status ConversationFileCalls::Start(RequestId rid, ConversationFileCall call, WorkerId worker,
                                    WorkerPort* port, AnswerSink* sink, int64_t now_ms) {
  if (calls_.size() >= limits::kConversationCallsMax)
    return Err(Error{ErrorCode::overloaded,
                     "As many requests of files of conversations are under way as there may be.",
                     {},
                     1});
  calls_[rid] = {sink, worker, port, now_ms + limits::kFileCallWaitMs};
  if (call.upload != nullptr) {
    const protocol::ConversationUpload upload{rid, call.command.tenant, call.command.id,
                                              call.command.owner};
    port->SendWithFd(protocol::MakeFrame(upload), std::move(call.upload->fd));
  } else {
    call.command.rid = rid;
    port->Send(protocol::MakeFrame(call.command));
  }
  return {};
}

Status ConversationFileCalls::OnAnswer(WorkerId worker,
                                       const protocol::ConversationAnswer& answer) {
  const auto call = calls_.find(answer.rid);
  if (call == calls_.end() || call->second.worker != worker) return {};
  ASSIGN_OR_RETURN(HttpResponse response, ResponseTo(answer));
  AnswerSink* const sink = call->second.sink;
  calls_.erase(call);
  sink->Respond(std::move(response));
  return {};
}

void ConversationFileCalls::OnFile(WorkerId worker, const protocol::ConversationFile& file,
                                   UniqueFd fd) {
  const auto call = calls_.find(file.rid);
  if (call == calls_.end() || call->second.worker != worker) return;
  AnswerSink* const sink = call->second.sink;
  calls_.erase(call);
  HttpResponse head;
  head.content_length = file.bytes;
  const std::string name = PercentEncode(file.id, ".");
  head.headers = {
      {"content-type", "application/octet-stream"},
      // RFC 6266: the first for clients that do not know the second.
      {"content-disposition",
       fmt::format("attachment; filename=\"{0}.perdure\"; filename*=UTF-8''{0}.perdure", name)},
      {"cache-control", "no-store"},
      {"x-content-type-options", "nosniff"}};
  sink->RespondWithFile(std::move(head), std::move(fd));
}

template <class Condition>
void ConversationFileCalls::FailIf(const Condition& condition, bool tell, ErrorCode code,
                                   const char* message) {
  std::vector<AnswerSink*> sinks;
  std::erase_if(calls_, [&](const auto& entry) {
    const auto& [rid, call] = entry;
    if (!condition(call)) return false;
    if (tell) call.port->Send(protocol::MakeFrame(protocol::Cancel{rid}));
    sinks.push_back(call.sink);
    return true;
  });
  for (AnswerSink* sink : sinks) sink->Respond(ErrorResponse({code, message, {}, 1}));
}

void ConversationFileCalls::OnWorkerGone(WorkerId worker) {
  FailIf(
      [worker](const Call& call) { return call.worker == worker; }, false, ErrorCode::worker_lost,
      "The model's process ended before it answered: look what has become of it, and ask again.");
}

void ConversationFileCalls::OnClientGone(RequestId rid) {
  const auto call = calls_.find(rid);
  if (call == calls_.end()) return;
  call->second.port->Send(protocol::MakeFrame(protocol::Cancel{rid}));
  calls_.erase(call);
}

void ConversationFileCalls::OnTick(int64_t now_ms) {
  FailIf([now_ms](const Call& call) { return now_ms >= call.give_up_ms; }, true,
         ErrorCode::overloaded,
         "The model's process has not answered in time: it is busy, ask again later.");
}

void ConversationFileCalls::EndAll() {
  FailIf([](const Call&) { return true; }, true, ErrorCode::shutting_down,
         "The service is shutting down.");
}

}  // namespace perdure::frontend
