// The loop over real sockets: the test is frontend and supervisor.
#include "worker/worker_loop.h"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"
#include "protocol/channel.h"
#include "protocol/heritage.h"
#include "shm/arena.h"
#include "shm/status.h"
#include "tests/worker/fake_model.h"
#include "tests/worker/memory_persistence.h"
#include "tests/worker/peer.h"
#include "tests/worker/test_store.h"

namespace perdure::worker {
namespace {

using protocol::MessageType;

protocol::Submit Completion(protocol::RequestId rid, int max_tokens) {
  protocol::Submit submit;
  submit.rid = rid;
  submit.request.kind = protocol::RequestKind::kCompletion;
  submit.request.prompt = "hello";
  submit.request.max_tokens = max_tokens;
  submit.request.seed = 5;
  submit.credit_bytes = limits::kCreditBytes;
  return submit;
}

class WorkerLoopTest : public testing::Test {
 protected:
  WorkerLoopTest() : status_(shm::StatusBlock::Create().value()) {}
  ~WorkerLoopTest() override {
    supervisor_.reset();
    if (thread_.joinable()) thread_.join();
  }

  void Start() {
    fake_ = MakeFakeModel(model_options_);
    auto control = protocol::MakeChannelPair().value();
    auto channel = protocol::MakeChannelPair().value();
    supervisor_ = std::make_unique<Peer>(std::move(control.a));
    frontend_ = std::make_unique<Peer>(std::move(channel.a));
    thread_ = std::thread([this, control_fd = control.b.release(), fd = channel.b.release()] {
      protocol::Channel to_supervisor{UniqueFd(control_fd)};
      GeneratorOptions options;
      options.admission.max_context = model_options_.max_context;
      options.scheduler = {4, 64, limits::kSequencesMax};
      options.slow_client_timeout_us = int64_t{kGenerousMs} * 1000;
      options.now_us = &MonotonicUs;
      options.persistence = persistence_;
      const auto store = make_store_();
      protocol::Hello hello;
      hello.model = "fake";
      hello.epoch = 3;
      hello.max_context = model_options_.max_context;
      WorkerLoop loop(hello, &fake_.model, options, store.get(), &*status_, &to_supervisor,
                      UniqueFd(fd), kv_granted_bytes_);
      exit_code_ = loop.Run();
    });
  }
  int Join() {
    thread_.join();
    return exit_code_;
  }
  std::unique_ptr<Peer> NewFrontend() {
    auto channel = protocol::MakeChannelPair().value();
    supervisor_->Send(protocol::NewChannel{}, std::move(channel.b));
    return std::make_unique<Peer>(std::move(channel.a));
  }
  static bool Ended(Peer& peer, protocol::RequestId rid) { return peer.Ended(rid); }

  FakeModelOptions model_options_;
  Persistence* persistence_ = nullptr;
  uint64_t kv_granted_bytes_ = UINT64_MAX;
  std::function<std::unique_ptr<shm::PageStore>()> make_store_ = [] {
    return MakeStore(kFakeKv, 1 << 16);
  };
  FakeModel fake_;
  shm::StatusBlock status_;
  std::unique_ptr<Peer> supervisor_;
  std::unique_ptr<Peer> frontend_;
  std::thread thread_;
  std::atomic<int> exit_code_{-1};
};

TEST_F(WorkerLoopTest, GreetsAnswersAndGoesWithTheSupervisor) {
  Start();
  frontend_->Send(Completion(1, 20));
  frontend_->Send(Completion(2, 30));
  ASSERT_TRUE(Ended(*frontend_, 1));
  ASSERT_TRUE(Ended(*frontend_, 2));
  EXPECT_EQ(frontend_->types.front(), MessageType::kHello);
  ASSERT_EQ(frontend_->hellos.size(), 1u);
  EXPECT_EQ(frontend_->hellos[0].epoch, 3u);
  EXPECT_EQ(frontend_->received[1].choices[0].ids.size(), 20u);
  EXPECT_EQ(frontend_->received[2].choices[0].ids.size(), 30u);
  frontend_->Send(protocol::Release{1});
  supervisor_.reset();
  EXPECT_EQ(Join(), protocol::kExitOk);
}

TEST_F(WorkerLoopTest, CancelsWhatADeadFrontendAskedForAndTakesTheNextOne) {
  model_options_.max_context = 1 << 20;
  Start();
  frontend_->Send(Completion(1, 1 << 19));
  ASSERT_TRUE(frontend_->ReadUntil([&] { return frontend_->received.events > 0; }));
  frontend_.reset();
  auto next = NewFrontend();
  next->Send(Completion(1, 5));  // the same id: the old one is forgotten
  ASSERT_TRUE(Ended(*next, 1));
  EXPECT_EQ(next->types.front(), MessageType::kHello);
  // Replaced without an EOF before.
  auto third = NewFrontend();
  third->Send(Completion(2, 5));
  ASSERT_TRUE(Ended(*third, 2));
  EXPECT_FALSE(next->ReadUntil([] { return false; }));
  EXPECT_TRUE(next->closed);
}

TEST_F(WorkerLoopTest, ClosesAChannelThatSpeaksNonsenseAndLives) {
  Start();
  std::vector<std::string> nonsense;
  std::string frame;
  protocol::AppendFrame(MessageType::kSubmit, "not a submit", &frame);
  nonsense.push_back(std::exchange(frame, {}));
  protocol::AppendFrame(MessageType::kRoster, "", &frame);
  nonsense.push_back(std::exchange(frame, {}));
  protocol::AppendFrame(static_cast<MessageType>(999), "?", &frame);
  nonsense.push_back(std::exchange(frame, {}));
  nonsense.push_back(std::string(100, '\xFF'));
  nonsense.push_back(protocol::MakeFrame(Completion(1, 1 << 20)) +
                     protocol::MakeFrame(Completion(1, 5)));
  for (const std::string& bytes : nonsense) {
    frontend_->SendRaw(bytes);
    EXPECT_FALSE(frontend_->ReadUntil([] { return false; }));
    EXPECT_TRUE(frontend_->closed);
    frontend_ = NewFrontend();
    frontend_->Send(Completion(1, 3));
    ASSERT_TRUE(Ended(*frontend_, 1));
  }
}

TEST_F(WorkerLoopTest, VerifiesWhatItsPredecessorLeftAndThenSleeps) {
  const UniqueFd arena(memfd_create("arena", MFD_CLOEXEC));
  constexpr shm::PageIndex kPages = 100;
  // One portion a page.
  constexpr uint64_t kPageBytes = limits::kScrubBytes / 4 * 3;
  const shm::ArenaSpec spec{.shape = {{{kPageBytes}}, kPages, 4}, .pages_budget = kPages};
  make_store_ = [&] {
    return std::make_unique<shm::PageStore>(shm::Arena::Attach(arena.get(), spec).value(), kPages);
  };
  {
    const auto store = make_store_();
    for (TokenId i = 0; i < 8; ++i)
      store->Seal(*store->Allocate(), shm::kNoPage, {},
                  std::vector<TokenId>(shm::kArenaPageTokens, i));
    store->address(7)[100] ^= std::byte{1};  // the last one that is looked at
  }
  Start();
  const auto now_damaged = [&] { return status_->kv_pages_damaged.load(); };
  for (int64_t end = MonotonicMs() + kGenerousMs; now_damaged() == 0 && MonotonicMs() < end;)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(now_damaged(), 1u);
  // From now on it wakes for its heartbeat alone.
  const int64_t begin_ms = MonotonicMs();
  const uint64_t begin = status_->progress.load();
  std::this_thread::sleep_for(std::chrono::milliseconds(limits::kHeartbeatMs));
  const uint64_t wakes = status_->progress.load() - begin;
  EXPECT_LE(wakes, static_cast<uint64_t>((MonotonicMs() - begin_ms) / limits::kHeartbeatMs + 2));
  EXPECT_EQ(status_->kv_bytes_used.load(), 7 * kPageBytes);
}

TEST_F(WorkerLoopTest, DrainsWhatRunsAndRefusesWhatComes) {
  model_options_.max_context = 1 << 20;
  Start();
  frontend_->Send(Completion(1, 3000));
  ASSERT_TRUE(frontend_->ReadUntil([&] { return frontend_->received.events > 0; }));
  supervisor_->Send(protocol::Drain{kGenerousMs / 1000});
  // What is asked for after the worker learned of it fails; how soon it learns is its own affair.
  bool refused = false;
  for (protocol::RequestId rid = 2; !refused && rid < 1000; ++rid) {
    frontend_->Send(Completion(rid, 1));
    if (!frontend_->ReadUntil([&] {
          return frontend_->received[rid].failed || frontend_->received[rid].choices[0].end;
        }))
      break;
    refused = frontend_->received[rid].failed.has_value();
  }
  EXPECT_TRUE(refused);
  ASSERT_TRUE(Ended(*frontend_, 1));
  EXPECT_EQ(frontend_->received[1].choices[0].ids.size(), 3000u);
  EXPECT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->drained; }));
  EXPECT_EQ(Join(), protocol::kExitOk);
}

TEST_F(WorkerLoopTest, DrainingEndsAtItsLimit) {
  model_options_.max_context = 1 << 20;
  Start();
  protocol::Submit submit = Completion(1, 1 << 19);
  submit.credit_bytes = 1000;  // stops early, and nobody gives more
  frontend_->Send(submit);
  ASSERT_TRUE(frontend_->ReadUntil([&] { return frontend_->received.events > 0; }));
  supervisor_->Send(protocol::Drain{0});
  ASSERT_TRUE(frontend_->ReadUntil([&] { return frontend_->received[1].failed.has_value(); }));
  EXPECT_EQ(ErrorCodeFromWire(frontend_->received[1].failed->error_code), ErrorCode::shutting_down);
  EXPECT_TRUE(supervisor_->ReadUntil([&] { return supervisor_->drained; }));
  EXPECT_EQ(Join(), protocol::kExitOk);
}

TEST_F(WorkerLoopTest, ShowsThatItLives) {
  Start();
  frontend_->Send(Completion(1, 5));
  ASSERT_TRUE(Ended(*frontend_, 1));
  const int64_t deadline_ms = MonotonicMs() + kGenerousMs;
  const auto await = [deadline_ms](const std::function<bool()>& condition) {
    while (!condition() && MonotonicMs() < deadline_ms)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return condition();
  };
  // The step that sent the end is completed a moment after it.
  EXPECT_TRUE(await([&] { return status_->steps_completed.load() == 5; }));
  // Idle, the progress still grows.
  const uint64_t before = status_->progress.load();
  EXPECT_TRUE(await([&] { return status_->progress.load() >= before + 3; }));
  EXPECT_EQ(status_->phase.load(), static_cast<uint32_t>(shm::Phase::kIdle));
}

TEST_F(WorkerLoopTest, ASupervisorThatSpeaksNonsenseEndsIt) {
  Start();
  supervisor_->Send(Completion(1, 5));
  EXPECT_EQ(Join(), protocol::kExitBug);
}

// A disk that stores turns, and of pages none: nor does it say that it cannot.
class HangingDisk : public MemoryPersistence {
 public:
  std::vector<PersistenceAnswer> TakeAnswers() override {
    while (DoTurnJob()) {
    }
    return MemoryPersistence::TakeAnswers();
  }
  int fd() const override { return always_.get(); }

 private:
  UniqueFd always_{eventfd(1, EFD_CLOEXEC)};
};

// A worker of 24 MiB of KV, two thirds of which a prompt has taken, whose disk answers nothing: 8
// MiB are on their way to it.
class GivingBackTest : public WorkerLoopTest {
 protected:
  static constexpr uint64_t kMiB = uint64_t{1} << 20;
  static constexpr uint64_t kPageBytes = kMiB / 2;  // more than the fake model writes
  GivingBackTest() {
    model_options_.max_context = 1 << 20;
    persistence_ = &disk_;
    kv_granted_bytes_ = 24 * kMiB;
    make_store_ = [] {
      shm::ArenaShape shape;
      for (const shm::PageFormat format : shm::kAllFormats) shape.page_bytes[format] = kPageBytes;
      shape.pages_max = 256;
      shape.conversations_max = 20;
      auto memory = shm::MakePrivateMemory(shm::ArenaGeometry::For(shape).value()).value();
      return std::make_unique<shm::PageStore>(std::move(memory), shape.pages_max);
    };
    Start();
    frontend_->Send(Prompt(1, 16));
    EXPECT_TRUE(Ended(*frontend_, 1));
  }
  ~GivingBackTest() override {
    supervisor_.reset();
    if (thread_.joinable()) thread_.join();
  }
  // Of so many MiB of KV.
  static protocol::Submit Prompt(protocol::RequestId rid, size_t mib) {
    protocol::Submit submit = Completion(rid, 1);
    submit.request.prompt_ids.emplace();
    const size_t tokens = mib * kMiB / kPageBytes * shm::kArenaPageTokens;
    for (size_t i = 0; i + 1 < tokens; ++i)
      submit.request.prompt_ids->push_back(static_cast<TokenId>((rid + i / 64 + i) % 64));
    return submit;
  }

  HangingDisk disk_;
};

TEST_F(GivingBackTest, ADiskThatHangsKeepsNoMemory) {
  supervisor_->Send(protocol::KvLimit{1, kMiB});
  ASSERT_TRUE(supervisor_->ReadUntil([&] { return !supervisor_->kv_states.empty(); }));
  EXPECT_EQ(supervisor_->kv_states[0].serial, 1u);
  EXPECT_LE(supervisor_->kv_states[0].limit_bytes, 8 * kMiB) << "slabs are whole";
  supervisor_.reset();
  EXPECT_EQ(Join(), protocol::kExitOk);
  uint64_t copied = 0;
  for (const snapshot::StoredPage& page : disk_.given_pages) copied += page.data_bytes;
  EXPECT_GE(copied, limits::kKeepPagesBytes);
  EXPECT_LE(copied, limits::kKeepingBytesMax + kMiB);
}

TEST_F(GivingBackTest, ARequestThatCannotGoOnWithoutMoreStillGetsIt) {
  supervisor_->Send(protocol::KvLimit{1, kMiB});
  frontend_->Send(Completion(2, 3));
  ASSERT_TRUE(Ended(*frontend_, 2));  // it knows of the limit
  EXPECT_TRUE(supervisor_->kv_states.empty());
  frontend_->Send(Prompt(3, 40));
  ASSERT_TRUE(supervisor_->ReadUntil([&] {
    return !supervisor_->kv_states.empty() && supervisor_->kv_states.back().wanted_bytes > 0;
  }));
  EXPECT_GT(supervisor_->kv_states.size(), 1u) << "what was asked of it is answered first";
  supervisor_->Send(protocol::KvLimit{2, 64 * kMiB});
  ASSERT_TRUE(Ended(*frontend_, 3));
  EXPECT_FALSE(frontend_->received[3].failed.has_value());
}

}  // namespace
}  // namespace perdure::worker
