#include "frontend/memory_calls.h"

#include <utility>
#include <vector>

#include "base/limits.h"
#include "frontend/http_response.h"

namespace perdure::frontend {

Status MemoryCalls::Start(protocol::RequestId rid, AnswerSink* sink, int64_t now_ms) {
  if (calls_.size() >= limits::kMemoryCallsMax)
    return Err(ErrorCode::overloaded,
               "As many requests of /admin/memory are under way as there may be: try again later.");
  calls_.emplace(rid, Call{sink, now_ms + limits::kMemoryCallWaitMs});
  ask_({rid});
  return {};
}

void MemoryCalls::OnReport(protocol::MemoryReport report) {
  const auto call = calls_.extract(report.id);
  if (!call.empty()) call.mapped().sink->Respond(JsonResponse(200, std::move(report.json)));
}

void MemoryCalls::OnTick(int64_t now_ms) {
  std::vector<AnswerSink*> given_up;
  std::erase_if(calls_, [&](const auto& each) {
    if (now_ms < each.second.give_up_ms) return false;
    given_up.push_back(each.second.sink);
    return true;
  });
  for (AnswerSink* sink : given_up)
    sink->Respond(ErrorResponse(
        {ErrorCode::overloaded, "The supervisor does not answer: try again later.", {}, 1}));
}

}  // namespace perdure::frontend
