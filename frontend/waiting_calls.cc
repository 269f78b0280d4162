#include "frontend/waiting_calls.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/limits.h"
#include "frontend/http_response.h"

namespace perdure::frontend {

Status WaitingCalls::Add(protocol::RequestId rid, const std::string& model, AnswerSink* sink,
                         Begin begin, int64_t now_ms) {
  if (calls_.size() >= limits::kConversationCallsMax)
    return Err(Error{ErrorCode::overloaded,
                     "As many requests wait for models to be loaded as there may be.",
                     {},
                     1});
  calls_.push_back({rid, model, sink, std::move(begin), now_ms});
  return {};
}

size_t WaitingCalls::HandTo(const std::string& model, WorkerId worker, WorkerPort* port,
                            int64_t now_ms) {
  std::vector<Call> begun;
  std::erase_if(calls_, [&](Call& call) {
    if (call.model != model) return false;
    begun.push_back(std::move(call));
    return true;
  });
  for (Call& call : begun)
    if (const Status status = call.begin(worker, port, now_ms); !status)
      call.sink->Respond(ErrorResponse(status.error()));
  return begun.size();
}

void WaitingCalls::FailIf(
    const std::function<const Error*(const std::string& model, int64_t since_ms)>& why) {
  std::vector<std::pair<AnswerSink*, Error>> failed;
  std::erase_if(calls_, [&](const Call& call) {
    const Error* const error = why(call.model, call.since_ms);
    if (error != nullptr) failed.emplace_back(call.sink, *error);
    return error != nullptr;
  });
  for (const auto& [sink, error] : failed) sink->Respond(ErrorResponse(error));
}

std::optional<std::string> WaitingCalls::OnClientGone(protocol::RequestId rid) {
  const auto call = std::ranges::find(calls_, rid, &Call::rid);
  if (call == calls_.end()) return std::nullopt;
  std::string model = std::move(call->model);
  calls_.erase(call);
  return model;
}

void WaitingCalls::Visit(
    const std::function<void(const std::string& model, int64_t since_ms)>& visit) const {
  for (const Call& call : calls_) visit(call.model, call.since_ms);
}

}  // namespace perdure::frontend
