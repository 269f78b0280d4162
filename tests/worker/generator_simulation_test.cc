// Random arrivals, cancels and slow clients against a worker with too few pages: whatever happens
// around it, each answer that ends is the one that the request gets alone.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/limits.h"
#include "shm/status.h"
#include "tests/worker/fake_model.h"
#include "tests/worker/recording_sink.h"
#include "tests/worker/test_store.h"
#include "worker/generator.h"

namespace perdure::worker {
namespace {

using protocol::RequestId;

constexpr int kContext = 256;
constexpr int kKinds = 24;

int64_t now_us = 0;

GeneratorOptions Options(int sequences, int prefill) {
  GeneratorOptions options;
  options.admission.max_context = kContext;
  options.scheduler = {sequences, prefill, sequences + 4};
  options.slow_client_timeout_us = 1'000'000'000'000;
  options.now_us = [] { return now_us += 10; };
  return options;
}

FakeModelOptions ModelOptions() {
  FakeModelOptions options;
  options.max_context = kContext;
  options.eos_logit = -1.0f;  // now and then
  return options;
}

// The request of a kind: everything but its id.
protocol::Submit RequestOfKind(int kind, RequestId rid) {
  protocol::Submit submit;
  submit.rid = rid;
  protocol::GenerationRequest& request = submit.request;
  request.kind = protocol::RequestKind::kCompletion;
  request.prompt =
      std::string(static_cast<size_t>(1 + kind * 37 % 200), static_cast<char>('a' + kind));
  request.seed = static_cast<uint64_t>(kind);
  if (kind % 3 != 0) request.max_tokens = kind * 13 % 90;
  if (kind % 4 == 1) request.stop = {"ab", "zz"};
  if (kind % 5 == 1) request.echo = true;
  if (kind % 6 == 1) request.choices = 2;
  submit.credit_bytes = limits::kCreditBytes;
  return submit;
}

struct Expected {
  std::vector<TokenId> ids;
  std::string text;
  protocol::FinishReason reason{};
};

// Each kind's answers, computed with nobody else there.
std::vector<std::map<int, Expected>> AnswersAlone() {
  std::vector<std::map<int, Expected>> all;
  for (int kind = 0; kind < kKinds; ++kind) {
    FakeModel fake = MakeFakeModel(ModelOptions());
    auto store = MakeStore(kFakeKv, 64);
    auto status = shm::StatusBlock::Create().value();
    RecordingSink sink;
    Generator generator(&fake.model, Options(1, 1 << 20), store.get(), &*status, &sink);
    EXPECT_TRUE(generator.Submit(RequestOfKind(kind, 1)));
    while (generator.HasWork()) generator.Step();
    std::map<int, Expected>& answers = all.emplace_back();
    for (const auto& [index, choice] : sink[1].choices) {
      EXPECT_TRUE(choice.end);
      if (choice.end) answers[index] = {choice.ids, choice.text, choice.end->reason};
    }
  }
  return all;
}

class Simulation {
 public:
  Simulation(uint32_t seed, const std::vector<std::map<int, Expected>>& expected)
      : random_(seed),
        expected_(expected),
        fake_(MakeFakeModel(ModelOptions())),
        store_(MakeStore(kFakeKv, static_cast<PageIndex>(Pick(8, 20)))),
        status_(shm::StatusBlock::Create().value()),
        generator_(&fake_.model, Options(Pick(1, 6), Pick(1, 100)), store_.get(), &*status_,
                   &sink_) {}

  void Run() {
    for (int i = 0; i < 1500 && !testing::Test::HasFailure(); ++i) {
      if (Pick(0, 9) == 0) Arrive();
      if (Pick(0, 60) == 0) Cancel();
      if (Pick(0, 3) == 0) GiveCredit(Pick(1, 300));
      if (generator_.HasWork()) generator_.Step();
      ReleaseEnded();
    }
    for (int i = 0; i < 100'000 && generator_.live() > 0 && !testing::Test::HasFailure(); ++i) {
      GiveCredit(10'000);
      if (generator_.HasWork()) generator_.Step();
      ReleaseEnded();
    }
    EXPECT_EQ(generator_.live(), 0u);
    EXPECT_TRUE(kinds_.empty());
    EXPECT_EQ(store_->referenced(), 0u);
    EXPECT_FALSE(generator_.HasWork());
    EXPECT_EQ(status_->manifest_step.load(), 0u);
  }

  int ended() const { return ended_; }

 private:
  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  RequestId AnyRid() {
    auto it = kinds_.begin();
    std::advance(it, Pick(0, static_cast<int>(kinds_.size()) - 1));
    return it->first;
  }

  void Arrive() {
    const RequestId rid = ++last_rid_ * 7919;
    const int kind = Pick(0, kKinds - 1);
    protocol::Submit submit = RequestOfKind(kind, rid);
    if (Pick(0, 1) == 0) submit.credit_bytes = static_cast<uint32_t>(Pick(0, 500));
    allowed_[rid] = submit.credit_bytes;
    kinds_[rid] = kind;
    EXPECT_TRUE(generator_.Submit(submit));
  }

  void Cancel() {
    if (kinds_.empty()) return;
    const RequestId rid = AnyRid();
    generator_.Cancel(rid);
    sink_.closed[rid] = true;
    kinds_.erase(rid);
  }

  void GiveCredit(int bytes) {
    for (const auto& [rid, kind] : kinds_) {
      if (Pick(0, 2) != 0) continue;
      allowed_[rid] += static_cast<size_t>(bytes);
      generator_.Credit(rid, static_cast<uint32_t>(bytes));
    }
  }

  void ReleaseEnded() {
    std::vector<RequestId> done;
    for (const auto& [rid, kind] : kinds_) {
      RecordedRequest& request = sink_[rid];
      EXPECT_FALSE(request.failed) << request.failed->message;
      const auto& expected = expected_[static_cast<size_t>(kind)];
      size_t sent = 0;
      size_t ended = 0;
      for (auto& [index, choice] : request.choices) {
        sent += choice.payload_bytes;
        const Expected& answer = expected.at(index);
        EXPECT_TRUE(answer.text.starts_with(choice.text));
        if (!choice.end) continue;
        ++ended;
        EXPECT_EQ(choice.ids, answer.ids) << "kind " << kind << ", choice " << index;
        EXPECT_EQ(choice.text, answer.text);
        EXPECT_EQ(choice.end->reason, answer.reason);
      }
      EXPECT_LE(sent, allowed_[rid]);
      if (ended == expected.size()) done.push_back(rid);
    }
    for (RequestId rid : done) {
      ++ended_;
      generator_.Release(rid);
      sink_.closed[rid] = true;
      kinds_.erase(rid);
    }
  }

  std::mt19937 random_;
  const std::vector<std::map<int, Expected>>& expected_;
  FakeModel fake_;
  std::unique_ptr<shm::PageStore> store_;
  shm::StatusBlock status_;
  RecordingSink sink_;
  Generator generator_;
  std::map<RequestId, int> kinds_;  // live ones
  std::map<RequestId, size_t> allowed_;
  RequestId last_rid_ = 0;
  int ended_ = 0;
};

TEST(GeneratorSimulationTest, EveryAnswerIsTheOneGivenAlone) {
  const auto expected = AnswersAlone();
  int ended = 0;
  for (uint32_t seed = 1; seed <= 20 && !HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Simulation simulation(seed, expected);
    simulation.Run();
    ended += simulation.ended();
  }
  EXPECT_GT(ended, 1000);
}

}  // namespace
}  // namespace perdure::worker
