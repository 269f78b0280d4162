#include "frontend/cache_calls.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "frontend/http_response.h"
#include "protocol/frame.h"

namespace perdure::frontend {

using protocol::RequestId;

Status CacheCalls::Start(RequestId rid, const CacheCall& call, const std::vector<Worker>& workers,
                         AnswerSink* sink, int64_t now_ms) {
  if (calls_.size() >= limits::kCacheCallsMax)
    return Err(Error{ErrorCode::overloaded,
                     fmt::format("{} requests of /admin/cache are under way, as many as there may "
                                 "be.",
                                 calls_.size()),
                     {},
                     1});
  Call& kept = calls_[rid];
  kept.sink = sink;
  kept.give_up_ms = now_ms + limits::kCacheCallWaitMs + int64_t{1000} * call.seconds;
  for (const Worker& worker : workers) {
    kept.waits_for[worker.id] = worker.model;
    worker.port->Send(protocol::MakeFrame(
        protocol::CacheCommand{rid, call.operation, call.unused_only, call.seconds}));
  }
  return {};
}

Status CacheCalls::OnAnswer(WorkerId worker, const protocol::CacheAnswer& answer) {
  const auto call = calls_.find(answer.rid);
  if (call == calls_.end()) return {};
  const auto waits = call->second.waits_for.find(worker);
  if (waits == call->second.waits_for.end()) return {};
  // It goes to the client as it is.
  RETURN_IF_ERROR(ParseJson(answer.json, "a CacheAnswer", ErrorCode::protocol_error));
  call->second.answers[waits->second] = answer.json;
  call->second.waits_for.erase(waits);
  FinishIfDone(answer.rid);
  return {};
}

void CacheCalls::GiveUp(Call* call, WorkerId worker, ErrorCode code, const std::string& message) {
  const auto waits = call->waits_for.find(worker);
  call->answers[waits->second] =
      DumpJson({{"error", {{"message", message}, {"code", InfoOf(code).name}}}});
  call->waits_for.erase(waits);
}

void CacheCalls::OnWorkerGone(WorkerId worker) {
  std::vector<RequestId> concerned;
  for (auto& [rid, call] : calls_) {
    if (!call.waits_for.contains(worker)) continue;
    GiveUp(&call, worker, ErrorCode::worker_lost,
           "The model's process ended before it answered: ask again.");
    concerned.push_back(rid);
  }
  for (const RequestId rid : concerned) FinishIfDone(rid);
}

void CacheCalls::OnTick(int64_t now_ms) {
  std::vector<RequestId> late;
  for (auto& [rid, call] : calls_) {
    if (now_ms < call.give_up_ms) continue;
    while (!call.waits_for.empty())
      GiveUp(&call, call.waits_for.begin()->first, ErrorCode::overloaded,
             "The model's process has not answered in time: it is busy, ask again later.");
    late.push_back(rid);
  }
  for (const RequestId rid : late) FinishIfDone(rid);
}

void CacheCalls::EndAll() {
  std::vector<RequestId> all;
  for (auto& [rid, call] : calls_) {
    while (!call.waits_for.empty())
      GiveUp(&call, call.waits_for.begin()->first, ErrorCode::shutting_down,
             "The service is shutting down.");
    all.push_back(rid);
  }
  for (const RequestId rid : all) FinishIfDone(rid);
}

void CacheCalls::FinishIfDone(RequestId rid) {
  const auto it = calls_.find(rid);
  if (it == calls_.end() || !it->second.waits_for.empty()) return;
  std::string body = "{\"models\":{";
  for (const auto& [model, json] : it->second.answers)
    body += (body.back() == '{' ? "" : ",") + DumpJson(Json(model)) + ':' + json;
  AnswerSink* const sink = it->second.sink;
  calls_.erase(it);
  sink->Respond(JsonResponse(200, body + "}}"));
}

}  // namespace perdure::frontend
