// Requests of /admin/memory under way: the supervisor is asked, and its answer is passed on. Pure.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>

#include "base/result.h"
#include "frontend/answer_sink.h"
#include "protocol/messages.h"

namespace perdure::frontend {

struct MemoryCall {};

class MemoryCalls {
 public:
  using Ask = std::function<void(const protocol::MemoryQuery&)>;
  explicit MemoryCalls(Ask ask) : ask_(std::move(ask)) {}

  // The sink is used only after a success, and not before this returns. overloaded: too many wait.
  Status Start(protocol::RequestId rid, AnswerSink* sink, int64_t now_ms);
  // Answers of calls that are over are ignored.
  void OnReport(protocol::MemoryReport report);
  void OnClientGone(protocol::RequestId rid) { calls_.erase(rid); }
  // Gives those up that take too long.
  void OnTick(int64_t now_ms);

  size_t active() const { return calls_.size(); }

 private:
  struct Call {
    AnswerSink* sink = nullptr;
    int64_t give_up_ms = 0;
  };
  const Ask ask_;
  std::unordered_map<protocol::RequestId, Call> calls_;
};

}  // namespace perdure::frontend
