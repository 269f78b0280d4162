// What people ask of a model's cache: facts, and work that is done a portion at a time beside the
// requests.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "protocol/messages.h"
#include "worker/cache_counters.h"
#include "worker/cache_facts.h"
#include "worker/conversations.h"
#include "worker/divergence.h"
#include "worker/model.h"

namespace perdure::worker {

// Not thread-safe.
class CacheOperator {
 public:
  struct Context {
    const Model* model = nullptr;
    shm::PageStore* store = nullptr;
    ConversationTable* conversations = nullptr;
    CacheSchedule standard;                    // of conversations of which nothing is said
    std::optional<int> optimization_interval;  // requests, where they do not say
    std::function<int64_t()> now_us, unix_ms;
    std::function<void()> scrub;  // a portion of a check
    std::function<void(const protocol::CacheAnswer&)> answer;
    std::function<std::optional<StoredFacts>()> stored;  // may be empty
  };
  explicit CacheOperator(Context context);
  ~CacheOperator();

  // Its answer comes now or later.
  void Handle(const protocol::CacheCommand& command);
  // Nobody waits for answers any more.
  void ForgetAskers();

  // A request has ended. `interval`: the cache is to be optimized after so many of them. Where the
  // client asks for that, only what is its own, `owner`, is dropped.
  void NoteRequest(const std::string& type, const CacheUse& use, int64_t response_us,
                   std::optional<int> interval, std::optional<uint64_t> owner);
  // Something of what was begun can be done now. Measuring waits for an idle worker.
  bool HasWork(bool is_idle) const;
  // A portion of it, a few milliseconds.
  void Work(bool is_idle);
  // What is due by the clock.
  void Tick();

  CacheFacts Facts() const;

 private:
  struct Monitor;
  struct Optimization;
  struct Check;

  void Answer(protocol::RequestId rid, const Json& json);
  void AnswerAll(std::vector<protocol::RequestId>* rids, const Json& json);
  // Drops what nobody needs; of one owner, if any.
  void BeginOptimization(std::optional<uint64_t> owner);
  void Optimize();
  void BeginCheck();
  void FinishCheck();
  void BeginMeasure();
  void EndMeasure();
  void Advise();
  Json Clear(bool unused_only);

  const Context context_;
  CacheCounters counters_;
  uint64_t requests_since_optimization_ = 0;
  std::optional<int64_t> optimized_unix_s_;
  int64_t optimize_from_us_ = 0;  // not by itself before
  std::unique_ptr<Optimization> optimization_;
  std::unique_ptr<Check> check_;
  uint64_t problems_told_ = 0;
  bool recovery_told_ = false;
  std::vector<protocol::RequestId> advised_;  // that wait for advice
  int64_t advise_by_us_ = 0;                  // with what is known by then
  std::unique_ptr<DivergenceMeasure> measure_;
  std::optional<CacheDivergence> divergence_;
  std::vector<Monitor> monitors_;
};

}  // namespace perdure::worker
