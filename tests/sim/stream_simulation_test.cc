// How a stream survives its worker, under a seeded simulation of everything that can go wrong
// between the processes: the frontend's dispatcher, the worker's generator and the supervisor's
// book of suspects are the real ones; the engine is the fake one that notices any KV that is not
// its own.
//
// Bytes wait in both directions of a channel and arrive in pieces; a worker is killed at any step,
// at any send, between any two frames, its last frame torn; a request may be poison; clients read
// slowly or hang up; frontends die. At every point a client's bytes are a prefix of the answer that
// it gets undisturbed, and in the end they are all of it.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "frontend/dispatcher.h"
#include "protocol/codec.h"
#include "protocol/frame.h"
#include "shm/arena.h"
#include "shm/page_store.h"
#include "shm/status.h"
#include "supervisor/suspects.h"
#include "tests/worker/fake_model.h"
#include "worker/generator.h"

namespace perdure {
namespace {

using protocol::ModelState;
using protocol::RequestId;

constexpr int kContext = 96;
constexpr char kPoison = '\x01';
constexpr int kPagesMax = 20;

struct Killed {
  bool counts;  // a crash; else SIGKILL from outside
};

// --- Clients -------------------------------------------------------------------------------------

// An answer's bytes without what is allowed to differ: comments, measured times, and how much of
// the prompt was cached when it began.
std::string Comparable(std::string bytes) {
  for (size_t at; (at = bytes.find(frontend::kStreamComment)) != std::string::npos;)
    bytes.erase(at, frontend::kStreamComment.size());
  if (const size_t at = bytes.find("\"timings\":{"); at != std::string::npos)
    bytes.erase(at, bytes.find("}}", at) + 2 - at);
  if (const size_t at = bytes.find("\"cached_tokens\":"); at != std::string::npos)
    bytes.erase(at, bytes.find('}', at) - at);
  return bytes;
}

class Client final : public frontend::AnswerSink {
 public:
  void Respond(frontend::HttpResponse response) override {
    EXPECT_FALSE(ended_);
    EXPECT_EQ(status, 0);
    status = response.status;
    bytes = Comparable(std::move(response.body));
    ended_ = true;
  }
  void BeginStream(frontend::HttpResponse head) override {
    EXPECT_EQ(status, 0);
    status = head.status;
  }
  void Stream(std::string more, size_t payload_bytes) override {
    EXPECT_FALSE(ended_);
    bytes += Comparable(std::move(more));
    unread.push_back(payload_bytes);
  }
  void EndStream() override {
    EXPECT_FALSE(ended_);
    ended_ = true;
  }
  bool caught_up() const override { return unread.empty(); }
  bool ended() const { return ended_; }

  int status = 0;
  std::string bytes;
  std::deque<size_t> unread;  // payload bytes of what it has not taken yet

 private:
  bool ended_ = false;
};

struct Script {
  RequestId rid = 0;
  bool poison = false;
  frontend::ParsedRequest request;
};

// A request of a seed, with a rid that says which.
Script MakeScript(std::mt19937& random, RequestId rid, bool poison) {
  const auto pick = [&random](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  Script script;
  script.rid = rid;
  script.poison = poison;
  script.request.stream = pick(0, 2) != 0;
  protocol::GenerationRequest& request = script.request.generation;
  if (pick(0, 1) == 0) {
    request.kind = protocol::RequestKind::kCompletion;
    request.prompt =
        std::string(static_cast<size_t>(pick(1, 60)), static_cast<char>(pick('a', 'z')));
    request.echo = pick(0, 3) == 0;
    if (poison) request.prompt += kPoison;
  } else {
    std::string text(static_cast<size_t>(pick(1, 50)), static_cast<char>(pick('a', 'z')));
    if (poison) text += "\\u0001";
    request.chat_json = R"({"messages":[{"role":"user","content":")" + text + R"("}]})";
  }
  request.seed = rid;
  request.max_tokens = pick(poison ? 1 : 0, 24);
  if (pick(0, 2) == 0) request.stop = {std::string(1, static_cast<char>(pick('a', 'z'))), "qx"};
  return script;
}

// --- The processes -------------------------------------------------------------------------------

// One direction of a channel: what was sent and has not arrived.
struct Pipe {
  std::string bytes;
  bool closed = false;
};

struct WorkerProcess final : public worker::EventSink {
  WorkerProcess(uint32_t epoch_, int sequences, int prefill, shm::PageIndex pages, int arena_fd)
      : epoch(epoch_),
        fake(worker::MakeFakeModel(ModelOptions())),
        store(AttachArena(arena_fd, pages)),
        status(shm::StatusBlock::Create().value()),
        generator(&fake.model, Options(sequences, prefill), store.get(), &*status, this) {
    Queue(protocol::Hello{"m", epoch, kContext, sequences});
  }

  static std::unique_ptr<shm::PageStore> AttachArena(int fd, shm::PageIndex pages) {
    shm::ArenaSpec spec;
    spec.page_bytes = 256;
    spec.pages_max = kPagesMax;
    spec.pages_budget = pages;
    return std::make_unique<shm::PageStore>(shm::Arena::Attach(fd, spec).value(), pages);
  }
  worker::FakeModelOptions ModelOptions() {
    worker::FakeModelOptions options;
    options.max_context = kContext;
    options.eos_logit = -2.0f;
    options.on_step = [this](std::span<const engine::SequenceStep> sequences) {
      if (steps_left-- == 0) throw Killed{false};
      for (const engine::SequenceStep& step : sequences) {
        if (std::find(step.tokens.begin(), step.tokens.end(), kPoison) != step.tokens.end())
          throw Killed{true};
      }
    };
    return options;
  }
  static worker::GeneratorOptions Options(int sequences, int prefill) {
    worker::GeneratorOptions options;
    options.admission.max_context = kContext;
    options.scheduler = {sequences, prefill, sequences + 3};
    options.slow_client_timeout_us = int64_t{1} << 60;
    options.now_us = [] { return int64_t{0}; };
    return options;
  }

  template <class T>
  void Queue(const T& message) {
    if (sends_left-- == 0) {
      // The frame was being written: any part of it may have left.
      const std::string frame = protocol::MakeFrame(message);
      to_frontend.bytes += frame.substr(0, frame.size() / 2);
      throw Killed{false};
    }
    to_frontend.bytes += protocol::MakeFrame(message);
  }
  void Send(const protocol::Accepted& message) override { Queue(message); }
  void Send(const protocol::Begun& message) override { Queue(message); }
  void Send(const protocol::Event& message) override { Queue(message); }
  void Send(const protocol::End& message) override { Queue(message); }
  void Send(const protocol::Failed& message) override { Queue(message); }
  void Send(const protocol::Cleared& message) override { cleared.push_back(message.rid); }

  void Receive(size_t bytes) {
    reader.Append(std::string_view(from_frontend.bytes).substr(0, bytes));
    from_frontend.bytes.erase(0, bytes);
    while (const auto frame = reader.Next().value()) OnFrame(*frame);
  }
  void OnFrame(const protocol::Frame& frame) {
    switch (frame.type) {
      case protocol::MessageType::kSubmit:
        EXPECT_TRUE(generator.Submit(*protocol::Decode<protocol::Submit>(frame.payload)));
        break;
      case protocol::MessageType::kResume:
        EXPECT_TRUE(generator.Resume(*protocol::Decode<protocol::Resume>(frame.payload)));
        break;
      case protocol::MessageType::kCancel:
        generator.Cancel(protocol::Decode<protocol::Cancel>(frame.payload)->rid);
        break;
      case protocol::MessageType::kRelease:
        generator.Release(protocol::Decode<protocol::Release>(frame.payload)->rid);
        break;
      case protocol::MessageType::kCredit: {
        const auto credit = *protocol::Decode<protocol::Credit>(frame.payload);
        generator.Credit(credit.rid, credit.bytes);
        break;
      }
      default:
        ADD_FAILURE() << "a frame that frontends do not send";
    }
  }

  const uint32_t epoch;
  int steps_left = -1;  // until it is killed; never for negative ones
  int sends_left = -1;
  worker::FakeModel fake;
  std::unique_ptr<shm::PageStore> store;
  shm::StatusBlock status;
  Pipe to_frontend, from_frontend;
  protocol::FrameReader reader;
  std::vector<RequestId> cleared;
  worker::Generator generator;
};

// The frontend's end of a channel. It outlives the worker: what that had sent is read to the end.
struct Connection final : public frontend::WorkerPort {
  explicit Connection(protocol::ChannelOffer offer_) : offer(std::move(offer_)) {}
  void Send(std::string frame) override {
    if (outgoing != nullptr) outgoing->bytes += frame;
  }
  size_t outbox_bytes() const override { return 0; }

  protocol::ChannelOffer offer;
  frontend::WorkerId id = 0;
  Pipe* outgoing = nullptr;  // null: nobody reads any more
  Pipe incoming;             // of a dead worker: its last bytes
  protocol::FrameReader reader;
};

struct Weather {  // how rough it is
  bool deaths = false;
  bool frontend_deaths = false;
  bool slow_clients = false;
  bool hangups = false;
};

class Host {
 public:
  Host(uint32_t seed, std::vector<Script> scripts, const Weather& weather)
      : random_(seed), scripts_(std::move(scripts)), weather_(weather) {
    settings_.queue_max = 1000;
    settings_.sse_comment_s = 1;
    StartFrontend();
    StartWorker();
  }

  // The answers by rid, comparable.
  void Run(const std::map<RequestId, std::string>* expected) {
    expected_ = expected;
    const int rough = weather_.deaths ? 400 : 0;
    for (int i = 0; i < rough && !testing::Test::HasFailure(); ++i) Turn(true);
    for (int i = 0; i < 20'000 && !Done() && !testing::Test::HasFailure(); ++i) Turn(false);
    EXPECT_TRUE(Done());
    for (int i = 0; i < 200; ++i) Turn(false);  // releases arrive
    ASSERT_NE(worker_, nullptr);
    EXPECT_EQ(worker_->generator.live(), 0u);
    EXPECT_EQ(worker_->store->referenced(), 0u);
    EXPECT_EQ(dispatcher_->active(), 0u);
  }

  std::map<RequestId, std::unique_ptr<Client>>& clients() { return clients_; }
  int deaths() const { return deaths_; }
  int frontend_deaths() const { return frontend_deaths_; }
  const std::set<RequestId>& forgiven() const { return forgiven_; }

 private:
  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool Done() const {
    return started_ == scripts_.size() &&
           std::all_of(clients_.begin(), clients_.end(),
                       [](const auto& c) { return c.second->ended(); });
  }

  void SetState(ModelState state) {
    if (dispatcher_ == nullptr || state_ == state) return;
    state_ = state;
    protocol::Roster roster;
    roster.models.emplace_back();
    roster.models[0].name = "m";
    roster.models[0].state = state;
    models_.Apply(roster);
    dispatcher_->OnRoster(now_ms_);
  }

  void Turn(bool rough) {
    now_ms_ += Pick(0, 300);
    switch (Pick(0, 9)) {
      case 0:
        return Arrive();
      case 1:
      case 2:
        return WorkerReads();
      case 3:
      case 4:
      case 5:
        return WorkerSteps();
      case 6:
      case 7:
        return FrontendReads();
      case 8:
        return ClientReads(rough);
      case 9:
        dispatcher_->OnTick(now_ms_);
        if (!rough) return;
        if (weather_.deaths && Pick(0, 4) == 0) ArmDeath();
        if (weather_.hangups && Pick(0, 30) == 0) Hangup();
        if (weather_.frontend_deaths && Pick(0, 40) == 0) KillFrontend();
        return;
    }
  }

  // --- Clients ---

  void Arrive() {
    if (started_ == scripts_.size()) return;
    const Script& script = scripts_[started_++];
    auto client = std::make_unique<Client>();
    if (const Status taken = dispatcher_->Start(script.rid, script.request, client.get(), now_ms_);
        !taken) {
      ADD_FAILURE() << taken.error().message;
      return;
    }
    clients_[script.rid] = std::move(client);
  }

  void ClientReads(bool rough) {
    for (auto& [rid, client] : clients_) {
      if (rough && weather_.slow_clients && Pick(0, 3) != 0) continue;
      while (!client->unread.empty()) {
        const size_t bytes = client->unread.front();
        client->unread.pop_front();
        dispatcher_->OnTaken(rid, bytes);
        if (rough && Pick(0, 1) == 0) break;
      }
      Check(rid, *client);
    }
  }

  // What a client has is a prefix of what it is to get.
  void Check(RequestId rid, const Client& client) const {
    if (expected_ == nullptr || forgiven_.contains(rid)) return;
    const auto it = expected_->find(rid);
    if (it == expected_->end()) return;  // poison
    EXPECT_TRUE(it->second.starts_with(client.bytes))
        << "request " << rid << "\ngot  " << client.bytes << "\nof   " << it->second;
  }

  void Hangup() {
    for (auto& [rid, client] : clients_) {
      if (client->ended() || Pick(0, 2) != 0) continue;
      dispatcher_->OnClientGone(rid);
      client->EndStream();
      forgiven_.insert(rid);
      return;
    }
  }

  // --- The worker ---

  void StartWorker() {
    worker_ = std::make_unique<WorkerProcess>(++epoch_, Pick(1, 5), Pick(1, 60),
                                              static_cast<shm::PageIndex>(Pick(6, kPagesMax)),
                                              arena_.get());
    SetState(ModelState::kStarting);
    OfferChannel();
  }

  void OfferChannel() {
    auto connection = std::make_unique<Connection>(
        protocol::ChannelOffer{"m", epoch_, suspects_.suspects(), suspects_.quarantined()});
    connection->outgoing = &worker_->from_frontend;
    live_ = connection.get();
    connection->id = dispatcher_->AddWorker(connection->offer, connection.get());
    connections_.push_back(std::move(connection));
  }

  void ArmDeath() {
    if (worker_ == nullptr) return;
    if (Pick(0, 1) == 0) {
      worker_->steps_left = Pick(0, 6);
    } else {
      worker_->sends_left = Pick(0, 12);
    }
  }

  template <class F>
  void InWorker(F f) {
    if (worker_ == nullptr) return;
    try {
      f();
      for (const RequestId rid : worker_->cleared) suspects_.OnCleared(rid);
      worker_->cleared.clear();
    } catch (const Killed& killed) {
      OnDeath(killed.counts);
    }
  }

  void WorkerReads() {
    InWorker([this] {
      const auto waiting = static_cast<int>(worker_->from_frontend.bytes.size());
      worker_->Receive(static_cast<size_t>(Pick(0, 1) == 0 ? waiting : Pick(0, waiting)));
    });
  }

  void WorkerSteps() {
    if (worker_ == nullptr) {
      if (Pick(0, 3) == 0) StartWorker();
      return;
    }
    if (state_ == ModelState::kStarting && Pick(0, 1) == 0) return SetState(ModelState::kReady);
    InWorker([this] {
      if (worker_->generator.HasWork()) worker_->generator.Step();
    });
  }

  // It is reaped: the manifest is read, what it had handed to the kernel can still be read.
  void OnDeath(bool counts) {
    ++deaths_;
    if (counts) suspects_.OnDeath(shm::ReadLastWords(*worker_->status).step_rids);
    if (live_ != nullptr) {
      live_->outgoing = nullptr;
      live_->incoming.bytes = std::move(worker_->to_frontend.bytes);
      // What still waited in the process is lost with it, in the middle of any frame.
      const auto size = static_cast<int>(live_->incoming.bytes.size());
      if (Pick(0, 2) == 0) live_->incoming.bytes.resize(static_cast<size_t>(Pick(0, size)));
      live_->incoming.closed = true;
      live_ = nullptr;
    }
    worker_.reset();
    // The frontend may hear of it by the roster first, by the end of the channel first, or late.
    if (Pick(0, 1) == 0) SetState(ModelState::kBackoff);
  }

  // --- The frontend ---

  void StartFrontend() {
    dispatcher_ = std::make_unique<frontend::Dispatcher>(&settings_, &models_);
    state_ = ModelState::kFailed;
    SetState(ModelState::kStarting);
  }

  void KillFrontend() {
    ++frontend_deaths_;
    for (auto& [rid, client] : clients_) {
      if (client->ended()) continue;
      client->EndStream();
      forgiven_.insert(rid);
    }
    connections_.clear();
    live_ = nullptr;
    const bool was_ready = state_ == ModelState::kReady;
    StartFrontend();
    if (worker_ == nullptr) return;
    worker_->generator.CancelAll();
    EXPECT_EQ(worker_->store->referenced(), 0u);
    worker_->from_frontend.bytes.clear();
    worker_->to_frontend.bytes.clear();
    worker_->reader = {};
    OfferChannel();
    InWorker([this] { worker_->Queue(protocol::Hello{"m", epoch_, kContext, 4}); });
    if (worker_ != nullptr && was_ready) SetState(ModelState::kReady);
  }

  void FrontendReads() {
    for (size_t i = 0; i < connections_.size(); ++i) {
      Connection& connection = *connections_[i];
      Pipe& pipe = &connection == live_ ? worker_->to_frontend : connection.incoming;
      const auto waiting = static_cast<int>(pipe.bytes.size());
      const auto bytes = static_cast<size_t>(Pick(0, 2) == 0 ? Pick(0, waiting) : waiting);
      connection.reader.Append(std::string_view(pipe.bytes).substr(0, bytes));
      pipe.bytes.erase(0, bytes);
      while (const auto frame = connection.reader.Next().value()) {
        const Status status = dispatcher_->OnFrame(connection.id, *frame, now_ms_);
        EXPECT_TRUE(status) << status.error().message;
      }
      if (pipe.closed && pipe.bytes.empty()) {
        dispatcher_->OnWorkerGone(connection.id, now_ms_);
        connections_.erase(connections_.begin() + static_cast<ptrdiff_t>(i--));
      }
    }
    for (auto& [rid, client] : clients_) Check(rid, *client);
  }

  std::mt19937 random_;
  const std::vector<Script> scripts_;
  const Weather weather_;
  const std::map<RequestId, std::string>* expected_ = nullptr;
  int64_t now_ms_ = 1'000'000;

  protocol::FrontendSettings settings_;
  frontend::ModelTable models_;
  std::unique_ptr<frontend::Dispatcher> dispatcher_;
  ModelState state_ = ModelState::kFailed;
  std::vector<std::unique_ptr<Connection>> connections_;
  Connection* live_ = nullptr;  // the one to the worker that lives

  UniqueFd arena_{memfd_create("arena", MFD_CLOEXEC)};
  std::unique_ptr<WorkerProcess> worker_;
  uint32_t epoch_ = 0;
  supervisor::Suspects suspects_;

  size_t started_ = 0;
  std::map<RequestId, std::unique_ptr<Client>> clients_;
  std::set<RequestId> forgiven_;  // their clients or their frontend went away
  int deaths_ = 0, frontend_deaths_ = 0;
};

struct Tally {
  int deaths = 0, frontend_deaths = 0, answers = 0, poisons = 0;
};

void RunSeed(uint32_t seed, Tally* tally) {
  std::mt19937 random(seed);
  const auto pick = [&random](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  std::vector<Script> scripts, healthy;
  const int count = pick(1, 7);
  const int poison = pick(0, 3) == 0 ? pick(1, count) : 0;
  for (int i = 1; i <= count; ++i) {
    scripts.push_back(MakeScript(random, static_cast<RequestId>(i), i == poison));
    if (i != poison) healthy.push_back(scripts.back());
  }
  std::map<RequestId, std::string> expected;
  Host calm(seed, healthy, {});
  calm.Run(nullptr);
  for (auto& [rid, client] : calm.clients()) expected[rid] = client->bytes;
  if (testing::Test::HasFailure()) return;

  Weather weather;
  weather.deaths = true;
  weather.slow_clients = pick(0, 1) == 0;
  weather.hangups = pick(0, 3) == 0;
  weather.frontend_deaths = pick(0, 5) == 0;
  Host rough(seed + 1, scripts, weather);
  rough.Run(&expected);
  for (auto& [rid, client] : rough.clients()) {
    if (rough.forgiven().contains(rid)) continue;
    if (static_cast<int>(rid) == poison) {
      EXPECT_NE(client->bytes.find("worker_crashed"), std::string::npos) << client->bytes;
      ++tally->poisons;
      continue;
    }
    EXPECT_EQ(client->status, 200) << client->bytes;
    EXPECT_EQ(client->bytes, expected[rid]) << "request " << rid;
    ++tally->answers;
  }
  tally->deaths += rough.deaths();
  tally->frontend_deaths += rough.frontend_deaths();
}

// 20,000 seeds in all; a shard is a test so that they can run side by side.
constexpr uint32_t kShards = 8;
constexpr uint32_t kSeedsPerShard = 2500;

class StreamSimulation : public testing::TestWithParam<uint32_t> {};

TEST_P(StreamSimulation, EveryAnswerIsTheUndisturbedOne) {
  SetLogLevel(LogLevel::kError);
  Tally tally;
  for (uint32_t i = 0; i < kSeedsPerShard; ++i) {
    const uint32_t seed = 2 * (GetParam() * kSeedsPerShard + i);
    RunSeed(seed, &tally);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
  // The simulation reaches what it is for.
  EXPECT_GT(tally.deaths, static_cast<int>(2 * kSeedsPerShard));
  EXPECT_GT(tally.answers, static_cast<int>(2 * kSeedsPerShard));
  EXPECT_GT(tally.poisons, static_cast<int>(kSeedsPerShard / 10));
  EXPECT_GT(tally.frontend_deaths, static_cast<int>(kSeedsPerShard / 20));
}

INSTANTIATE_TEST_SUITE_P(Seeds, StreamSimulation, testing::Range(0u, kShards));

}  // namespace
}  // namespace perdure
