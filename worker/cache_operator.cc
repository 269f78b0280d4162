#include "worker/cache_operator.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "worker/cache_advice.h"
#include "worker/cache_types.h"
#include "worker/shared_prefixes.h"

namespace perdure::worker {

using protocol::CacheOperation;
using protocol::RequestId;

struct CacheOperator::Monitor {
  RequestId rid = 0;
  int64_t begin_us = 0, end_us = 0;
  CacheUse use{};  // of requests that ended meanwhile
  std::vector<float> response_ms{};
  double efficiency_sum = 0;  // of looks
  int looks = 0;
};

struct CacheOperator::Optimization {
  std::vector<RequestId> rids;
  int64_t begin_us = 0;
  uint64_t granted_before = 0, dropped = 0;
  double fragmentation_before = 0;
};

struct CacheOperator::Check {
  std::vector<RequestId> rids;
  int64_t begin_us = 0;
  uint64_t pages = 0, bytes = 0, damaged_before = 0;
};

namespace {

constexpr int64_t kSecondUs = 1'000'000;

double Seconds(int64_t us) { return static_cast<double>(us) / kSecondUs; }

// `part` of 0 to 1; sorts.
float Quantile(std::vector<float>* values, double part) {
  if (values->empty()) return 0;
  const auto at = static_cast<size_t>(part * static_cast<double>(values->size() - 1) + 0.5);
  std::ranges::nth_element(*values, values->begin() + static_cast<std::ptrdiff_t>(at));
  return (*values)[at];
}

}  // namespace

CacheOperator::CacheOperator(Context context) : context_(std::move(context)) {}
CacheOperator::~CacheOperator() = default;

// --- Commands ----------------------------------------------------------------------------------

void CacheOperator::Answer(RequestId rid, const Json& json) {
  context_.answer(protocol::CacheAnswer{rid, DumpJson(json)});
}

void CacheOperator::AnswerAll(std::vector<RequestId>* rids, const Json& json) {
  for (const RequestId rid : std::exchange(*rids, {})) Answer(rid, json);
}

void CacheOperator::ForgetAskers() {
  if (optimization_) optimization_->rids.clear();
  if (check_) check_->rids.clear();
  advised_.clear();
  measure_.reset();
  monitors_.clear();
}

void CacheOperator::Handle(const protocol::CacheCommand& command) {
  switch (command.operation) {
    case CacheOperation::kStats:
      return Answer(command.rid, FactsJson(Facts()));
    case CacheOperation::kClear:
      return Answer(command.rid, Clear(command.unused_only));
    case CacheOperation::kOptimize:
      if (!optimization_) BeginOptimization(std::nullopt);
      optimization_->rids.push_back(command.rid);
      return;
    case CacheOperation::kHealth:
      if (!check_) BeginCheck();
      check_->rids.push_back(command.rid);
      return;
    case CacheOperation::kRecommend:
      if (advised_.empty()) BeginMeasure();
      advised_.push_back(command.rid);
      if (!measure_) Advise();
      return;
    case CacheOperation::kMonitor: {
      const int64_t now_us = context_.now_us();
      const int seconds = std::clamp(command.seconds, 1, limits::kMonitorSecondsMax);
      // A client that has left is not told of: its place is the first to be taken.
      if (monitors_.size() >= limits::kMonitorsMax) monitors_.erase(monitors_.begin());
      monitors_.push_back({command.rid, now_us, now_us + seconds * kSecondUs});
      return;
    }
  }
  Answer(command.rid, {{"error", "there is no such operation"}});
}

bool CacheOperator::HasWork(bool is_idle) const {
  return optimization_ != nullptr || check_ != nullptr || (measure_ != nullptr && is_idle);
}

void CacheOperator::Work(bool is_idle) {
  if (optimization_) {
    Optimize();
  } else if (check_) {
    if (context_.store->checks_all()) context_.scrub();
    if (!context_.store->checks_all()) FinishCheck();
  } else if (measure_ && is_idle && measure_->Step()) {
    divergence_ = measure_->result();
    EndMeasure();
  }
}

void CacheOperator::Tick() {
  const int64_t now_us = context_.now_us();
  if (measure_ && now_us >= advise_by_us_) EndMeasure();
  if (monitors_.empty()) return;
  const double efficiency = Facts().efficiency();
  for (Monitor& monitor : monitors_) {
    monitor.efficiency_sum += efficiency;
    ++monitor.looks;
    if (now_us < monitor.end_us) continue;
    double sum = 0;
    for (const float ms : monitor.response_ms) sum += ms;
    const size_t count = monitor.response_ms.size();
    Answer(monitor.rid, {{"seconds", Seconds(now_us - monitor.begin_us)},
                         {"requests", monitor.use.requests},
                         {"prompt_tokens", monitor.use.prompt_tokens},
                         {"cached_tokens", monitor.use.cached_tokens},
                         {"hit_rate", monitor.use.hit_rate()},
                         {"avg_response_ms", count > 0 ? sum / static_cast<double>(count) : 0.0},
                         {"median_response_ms", Quantile(&monitor.response_ms, 0.5)},
                         {"p95_response_ms", Quantile(&monitor.response_ms, 0.95)},
                         {"memory_efficiency", monitor.efficiency_sum / monitor.looks}});
  }
  std::erase_if(monitors_, [now_us](const Monitor& monitor) { return now_us >= monitor.end_us; });
}

// --- Facts -------------------------------------------------------------------------------------

CacheFacts CacheOperator::Facts() const {
  CacheFacts facts = TakeFacts(*context_.store, *context_.conversations, counters_);
  facts.type = context_.standard.type;
  facts.description = DescribeCache(context_.standard);
  facts.optimized_unix_s = optimized_unix_s_;
  facts.divergence = divergence_;
  if (context_.stored) facts.stored = context_.stored();
  return facts;
}

void CacheOperator::NoteRequest(const std::string& type, const CacheUse& use, int64_t response_us,
                                std::optional<int> interval, std::optional<uint64_t> owner) {
  const auto add = [&](CacheUse* to) {
    to->requests += use.requests;
    to->prompt_tokens += use.prompt_tokens;
    to->cached_tokens += use.cached_tokens;
  };
  add(&counters_.all);
  add(&counters_.by_type[type]);
  for (Monitor& monitor : monitors_) {
    add(&monitor.use);
    if (monitor.response_ms.size() < limits::kMonitorRequestsMax)
      monitor.response_ms.push_back(static_cast<float>(response_us) / 1000);
  }
  ++requests_since_optimization_;
  if (!interval) interval = context_.optimization_interval;
  if (!interval || requests_since_optimization_ < static_cast<uint64_t>(*interval) ||
      optimization_ || context_.now_us() < optimize_from_us_)
    return;
  optimize_from_us_ = context_.now_us() + int64_t{limits::kOptimizationPauseMs} * 1000;
  BeginOptimization(owner);
}

// --- Optimizing --------------------------------------------------------------------------------

void CacheOperator::BeginOptimization(std::optional<uint64_t> owner) {
  shm::PageStore& store = *context_.store;
  optimization_ = std::make_unique<Optimization>();
  optimization_->begin_us = context_.now_us();
  optimization_->granted_before = store.bytes_granted();
  optimization_->fragmentation_before = Facts().fragmentation();
  const uint64_t used = store.used_bytes();
  context_.conversations->Expire();
  if (owner)
    store.DropUnneeded([&](shm::PageIndex page) { return store.owner(page) != *owner; });
  else
    store.DropUnneeded(KeepsShared(store));
  optimization_->dropped = used - store.used_bytes();
}

void CacheOperator::Optimize() {
  shm::PageStore& store = *context_.store;
  if (!store.Compact(limits::kCompactBytes)) return;
  store.ReleaseUnused();
  const std::unique_ptr<Optimization> done = std::move(optimization_);
  requests_since_optimization_ = 0;
  optimized_unix_s_ = context_.unix_ms() / 1000;
  const uint64_t after = store.bytes_granted();
  const uint64_t returned = done->granted_before - std::min(done->granted_before, after);
  const double seconds = Seconds(context_.now_us() - done->begin_us);
  LogInfo(
      "the cache is optimized: {} KiB of what nobody needs dropped, {} KiB returned to the "
      "system, in {:.2f} s",
      done->dropped >> 10, returned >> 10, seconds);
  AnswerAll(&done->rids, {{"dropped_bytes", done->dropped},
                          {"returned_bytes", returned},
                          {"bytes", store.used_bytes()},
                          {"bytes_granted", after},
                          {"fragmentation_before", done->fragmentation_before},
                          {"fragmentation", Facts().fragmentation()},
                          {"seconds", seconds}});
}

Json CacheOperator::Clear(bool unused_only) {
  shm::PageStore& store = *context_.store;
  const uint64_t used = store.used_bytes(), granted = store.bytes_granted();
  const size_t forgotten = unused_only ? 0 : context_.conversations->Clear();
  store.DropUnneeded(unused_only ? KeepsShared(store) : nullptr);
  store.ReleaseUnused();
  return {{"conversations", forgotten},
          {"dropped_bytes", used - store.used_bytes()},
          {"returned_bytes", granted - store.bytes_granted()},
          {"bytes", store.used_bytes()}};
}

// --- Health ------------------------------------------------------------------------------------

void CacheOperator::BeginCheck() {
  shm::PageStore& store = *context_.store;
  check_ = std::make_unique<Check>();
  check_->begin_us = context_.now_us();
  check_->pages = store.cached();
  for (shm::PageIndex page = 0; page < store.pages_end(); ++page)
    if (store.is_loaded(page) && !store.is_open(page))
      check_->bytes += store.page_bytes(store.format(page));
  check_->damaged_before = store.damaged();
  store.BeginCheck();
}

void CacheOperator::FinishCheck() {
  const shm::PageStore& store = *context_.store;
  const std::unique_ptr<Check> done = std::move(check_);
  // Each is told once.
  Json issues = Json::array();
  const auto& problems = store.problems();
  const uint64_t news =
      store.problems_found() - std::exchange(problems_told_, store.problems_found());
  for (size_t i = problems.size() - std::min<size_t>(news, problems.size()); i < problems.size();
       ++i)
    issues.push_back(problems[i]);
  if (!std::exchange(recovery_told_, true) && store.recovery().dropped > 0)
    issues.push_back("when this process took the cache over, " +
                     std::to_string(store.recovery().dropped) +
                     " pages were not whole: they are computed again when they are needed");
  AnswerAll(&done->rids, {{"healthy", issues.empty()},
                          {"issues", std::move(issues)},
                          {"damaged_now", store.damaged() - done->damaged_before},
                          {"damaged", store.damaged() + store.recovery().dropped},
                          {"checked_pages", done->pages},
                          {"checked_bytes", done->bytes},
                          {"seconds", Seconds(context_.now_us() - done->begin_us)}});
}

// --- Advice ------------------------------------------------------------------------------------

// On the longest conversation that there is; once is enough.
void CacheOperator::BeginMeasure() {
  if (divergence_ || measure_) return;
  const Conversation* longest = nullptr;
  for (const auto& conversation : context_.conversations->all())
    if (longest == nullptr || conversation->ids.size() > longest->ids.size())
      longest = conversation.get();
  if (longest == nullptr || longest->ids.size() < limits::kDivergenceTokensMin) return;
  std::vector<TokenId> tokens = longest->ids;
  tokens.resize(std::min(tokens.size(), limits::kDivergenceTokensMax));
  measure_ = std::make_unique<DivergenceMeasure>(context_.model->engine.get(), std::move(tokens));
  advise_by_us_ = context_.now_us() + int64_t{limits::kAdviceWaitMs} * 1000;
}

void CacheOperator::EndMeasure() {
  measure_.reset();
  Advise();
}

void CacheOperator::Advise() {
  const CacheFacts facts = Facts();
  Json list = Json::array();
  for (const CacheAdvice& advice : worker::Advise(facts))
    list.push_back({{"text", advice.text}, {"setting", advice.setting}});
  Json json = {{"recommendations", std::move(list)}};
  if (facts.divergence)
    json["measured"] = {{"kl_bits8", facts.divergence->bits8},
                        {"kl_bits4", facts.divergence->bits4},
                        {"positions", facts.divergence->positions}};
  AnswerAll(&advised_, json);
}

}  // namespace perdure::worker
