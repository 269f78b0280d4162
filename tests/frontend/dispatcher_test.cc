// The dispatcher with a clock of the test's own, a sink and a port that only record.
#include "frontend/dispatcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

using protocol::ModelState;
using ::testing::HasSubstr;
using ::testing::Not;

class RecordingSink final : public AnswerSink {
 public:
  void Respond(HttpResponse response) override {
    EXPECT_FALSE(ended);
    ended = true;
    status = response.status;
    bytes += response.body;
  }
  void RespondWithFile(HttpResponse head, UniqueFd file) override {
    EXPECT_TRUE(file);
    Respond(std::move(head));
  }
  void BeginStream(HttpResponse head) override {
    EXPECT_EQ(status, 0);
    status = head.status;
  }
  void Stream(std::string more, size_t payload_bytes) override {
    EXPECT_FALSE(ended);
    bytes += more;
    payload += payload_bytes;
  }
  void EndStream() override {
    EXPECT_FALSE(ended);
    ended = true;
  }
  bool caught_up() const override { return is_caught_up; }

  int status = 0;
  bool ended = false;
  bool is_caught_up = true;
  std::string bytes;
  size_t payload = 0;
};

class RecordingPort final : public WorkerPort {
 public:
  void Send(std::string bytes) override {
    reader.Append(bytes);
    while (auto frame = *reader.Next()) frames.push_back(std::move(*frame));
  }
  void SendWithFd(std::string, UniqueFd) override { ADD_FAILURE() << "nobody expects a file"; }
  size_t outbox_bytes() const override { return outbox; }
  template <class T>
  std::vector<T> All() const {
    std::vector<T> messages;
    for (const auto& frame : frames)
      if (frame.type == T::kType) messages.push_back(*protocol::Decode<T>(frame.payload));
    return messages;
  }

  protocol::FrameReader reader;
  std::vector<protocol::Frame> frames;
  size_t outbox = 0;
};

class DispatcherTest : public ::testing::Test {
 protected:
  DispatcherTest() : dispatcher_(&settings_, &models_) {
    settings_.queue_max = 10;
    settings_.sse_comment_s = 10;
    SetState(ModelState::kReady);
  }
  void SetState(ModelState state, int retry_after_s = 0) {
    protocol::Roster roster;
    roster.models.emplace_back();
    roster.models[0].name = "m";
    roster.models[0].state = state;
    roster.models[0].retry_after_s = retry_after_s;
    models_.Apply(roster);
    dispatcher_.OnRoster(now_ms_);
  }
  WorkerId AddWorker(RecordingPort* port, uint32_t epoch = 1,
                     std::vector<protocol::RequestId> suspects = {},
                     std::vector<protocol::RequestId> quarantined = {}) {
    const WorkerId id = dispatcher_.AddWorker({"m", epoch, suspects, quarantined}, port);
    EXPECT_TRUE(Send(id, protocol::Hello{"m", epoch, 100, 4}));
    return id;
  }
  template <class T>
  Status Send(WorkerId id, const T& message) {
    return dispatcher_.OnFrame(id, {T::kType, protocol::Encode(message)}, now_ms_);
  }
  Status Start(protocol::RequestId rid, RecordingSink* sink, bool stream = true,
               uint64_t client = 0, std::optional<int64_t> timeout_ms = std::nullopt) {
    ParsedRequest request;
    request.stream = stream;
    request.generation.client = client;
    request.timeout_ms = timeout_ms;
    return dispatcher_.Start(rid, std::move(request), sink, now_ms_);
  }
  static protocol::End EndOf(protocol::RequestId rid, uint64_t seq) {
    protocol::End end;
    end.rid = rid;
    end.seq = seq;
    return end;
  }

  protocol::FrontendSettings settings_;
  ModelTable models_;
  Dispatcher dispatcher_;
  int64_t now_ms_ = 1'000'000;
};

TEST_F(DispatcherTest, WaitsForAModelOnlySoLong) {
  SetState(ModelState::kLoading);
  RecordingSink stream, whole;
  ASSERT_TRUE(Start(1, &stream));
  ASSERT_TRUE(Start(2, &whole, false));
  now_ms_ += 9'999;
  dispatcher_.OnTick(now_ms_);
  EXPECT_EQ(stream.status, 0);
  now_ms_ += 1;
  dispatcher_.OnTick(now_ms_);
  EXPECT_EQ(stream.status, 200);
  EXPECT_EQ(stream.bytes, ": waiting\n\n");
  EXPECT_EQ(whole.status, 0);
  now_ms_ += limits::kModelWaitS * 1000;
  dispatcher_.OnTick(now_ms_);
  EXPECT_EQ(whole.status, 503);
  EXPECT_THAT(whole.bytes, HasSubstr("model_loading"));
  EXPECT_THAT(stream.bytes, HasSubstr("model_loading"));
  EXPECT_TRUE(stream.ended);
  EXPECT_EQ(dispatcher_.active(), 0u);
}

TEST_F(DispatcherTest, AModelThatComesOnDemandIsAskedForAndWaitedFor) {
  protocol::Roster roster;
  roster.models.emplace_back();
  roster.models[0].name = "m";
  roster.models[0].state = ModelState::kStopped;
  roster.models[0].on_demand = true;
  models_.Apply(roster);
  EXPECT_TRUE(models_.any_ready());
  RecordingSink sink;
  ParsedRequest request;
  request.keep_alive_s = 7;
  ASSERT_TRUE(dispatcher_.Start(1, std::move(request), &sink, now_ms_));
  auto demand = dispatcher_.TakeDemand(now_ms_ + 50);
  ASSERT_TRUE(demand);
  ASSERT_EQ(demand->models.size(), 1u);
  EXPECT_EQ(demand->models[0].waiting, 1u);
  EXPECT_EQ(demand->models[0].longest_wait_ms, 50);
  EXPECT_FALSE(dispatcher_.TakeDemand(now_ms_));

  // It makes room for another one for a while: who comes waits, too.
  roster.models[0].state = ModelState::kStopping;
  models_.Apply(roster);
  dispatcher_.OnRoster(now_ms_);
  EXPECT_FALSE(sink.ended);

  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  EXPECT_TRUE(port.All<protocol::Submit>().empty());
  SetState(ModelState::kReady);
  ASSERT_EQ(port.All<protocol::Submit>().size(), 1u);
  demand = dispatcher_.TakeDemand(now_ms_);
  ASSERT_TRUE(demand);
  EXPECT_EQ(demand->models[0].waiting, 0u);
  EXPECT_EQ(demand->models[0].running, 1u);

  // Its worker left before it had read the request: that waits again.
  dispatcher_.OnWorkerGone(worker, now_ms_);
  demand = dispatcher_.TakeDemand(now_ms_);
  ASSERT_TRUE(demand);
  EXPECT_EQ(demand->models[0].waiting, 1u);
  dispatcher_.OnClientGone(1);
  demand = dispatcher_.TakeDemand(now_ms_);
  ASSERT_TRUE(demand);
  EXPECT_EQ(demand->models[0].waiting + demand->models[0].running, 0u);
  EXPECT_EQ(demand->models[0].keep_alive_s, 7);
}

TEST_F(DispatcherTest, CallsForConversationsWaitForTheirModelToo) {
  protocol::Roster roster;
  roster.models.emplace_back();
  roster.models[0].name = "m";
  roster.models[0].state = ModelState::kStopped;
  roster.models[0].on_demand = true;
  models_.Apply(roster);
  RecordingSink first, gone, late;
  const auto call = [&](protocol::RequestId rid, RecordingSink* sink) {
    ConversationCall wanted;
    wanted.command.operation = protocol::ConversationOperation::kList;
    return dispatcher_.StartConversationCall(rid, std::move(wanted), sink, now_ms_);
  };
  ASSERT_TRUE(call(1, &first));
  ASSERT_TRUE(call(2, &gone));
  auto demand = dispatcher_.TakeDemand(now_ms_);
  ASSERT_TRUE(demand);
  EXPECT_EQ(demand->models.at(0).waiting, 2u);
  EXPECT_EQ(dispatcher_.active(), 2u);
  dispatcher_.OnClientGone(2);
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  SetState(ModelState::kReady);
  ASSERT_EQ(port.All<protocol::ConversationCommand>().size(), 1u);
  EXPECT_EQ(port.All<protocol::ConversationCommand>()[0].rid, 1u);
  demand = dispatcher_.TakeDemand(now_ms_);
  ASSERT_TRUE(demand);
  EXPECT_EQ(demand->models.at(0).waiting, 0u);
  EXPECT_EQ(demand->models.at(0).running, 1u) << "it is not unloaded meanwhile";
  EXPECT_FALSE(dispatcher_.TakeDemand(now_ms_));
  ASSERT_TRUE(Send(worker, protocol::ConversationAnswer{1, 0, "{}", ""}));
  demand = dispatcher_.TakeDemand(now_ms_);
  ASSERT_TRUE(demand);
  EXPECT_TRUE(demand->models.empty());

  models_.Apply(roster);
  ASSERT_TRUE(call(3, &late));
  roster.models[0].state = ModelState::kFailed;
  models_.Apply(roster);
  dispatcher_.OnRoster(now_ms_);
  EXPECT_EQ(late.status, 503);
  EXPECT_FALSE(gone.ended);
}

TEST_F(DispatcherTest, AModelThatCannotFitIsTold) {
  protocol::Roster roster;
  roster.models.emplace_back();
  roster.models[0].name = "m";
  roster.models[0].state = ModelState::kStopped;
  roster.models[0].on_demand = true;
  models_.Apply(roster);
  RecordingSink waits;
  ASSERT_TRUE(Start(1, &waits, false));
  roster.models[0].missing_bytes = 5 << 20;
  models_.Apply(roster);
  EXPECT_FALSE(models_.any_ready());
  dispatcher_.OnRoster(now_ms_);
  EXPECT_EQ(waits.status, 507);
  EXPECT_THAT(waits.bytes, HasSubstr("6 MiB are missing"));
  RecordingSink refused;
  const Status status = Start(2, &refused);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::out_of_memory);
}

TEST_F(DispatcherTest, NoCommentsForAClientThatDoesNotRead) {
  SetState(ModelState::kLoading);
  RecordingSink sink;
  sink.is_caught_up = false;
  ASSERT_TRUE(Start(1, &sink));
  now_ms_ += 50'000;
  dispatcher_.OnTick(now_ms_);
  EXPECT_EQ(sink.bytes, "");
  dispatcher_.OnClientGone(1);
}

TEST_F(DispatcherTest, WaitsThroughABackoffButNotForAFailedModel) {
  SetState(ModelState::kStarting);
  RecordingSink sink;
  ASSERT_TRUE(Start(1, &sink, false));
  SetState(ModelState::kBackoff, limits::kBackoffWaitS);
  RecordingSink patient, late;
  ASSERT_TRUE(Start(3, &patient, false));
  SetState(ModelState::kBackoff, limits::kBackoffWaitS + 1);
  EXPECT_FALSE(sink.ended);
  const auto refused = Start(2, &late, false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::model_failed);
  SetState(ModelState::kFailed);
  EXPECT_EQ(sink.status, 503);
}

TEST_F(DispatcherTest, AModelThatLeavesTheRosterFailsWhatWaitsForIt) {
  SetState(ModelState::kLoading);
  RecordingSink sink;
  ASSERT_TRUE(Start(1, &sink, false));
  models_.Apply({});
  dispatcher_.OnRoster(now_ms_);
  EXPECT_EQ(sink.status, 404);
  EXPECT_FALSE(Start(2, &sink));
}

TEST_F(DispatcherTest, TheNewestWorkerGetsNewWorkWhileAnOlderOneEnds) {
  RecordingPort old_port, new_port;
  const WorkerId old_worker = AddWorker(&old_port, 1);
  RecordingSink first, second;
  ASSERT_TRUE(Start(1, &first, false));
  const WorkerId new_worker = AddWorker(&new_port, 2);
  ASSERT_TRUE(Start(2, &second, false));
  EXPECT_EQ(old_port.All<protocol::Submit>().size(), 1u);
  EXPECT_EQ(new_port.All<protocol::Submit>().size(), 1u);
  // Frames about another worker's request have no effect.
  EXPECT_TRUE(Send(old_worker, protocol::Accepted{2, {1}}));
  EXPECT_TRUE(Send(old_worker, protocol::Accepted{1, {1}}));
  EXPECT_TRUE(Send(old_worker, protocol::Event{1, 0, 1, {5}, "x"}));
  EXPECT_TRUE(Send(old_worker, EndOf(1, 2)));
  EXPECT_EQ(first.status, 200);
  dispatcher_.OnWorkerGone(old_worker, now_ms_);
  EXPECT_FALSE(second.ended);
  EXPECT_TRUE(Send(new_worker, protocol::Accepted{2, {1}}));
  EXPECT_TRUE(Send(new_worker, EndOf(2, 1)));
  EXPECT_EQ(second.status, 200);
}

TEST_F(DispatcherTest, RefusesBreachesOfTheProtocol) {
  RecordingPort port;
  auto fresh = [&] { return dispatcher_.AddWorker({"m", 1, {}, {}}, &port); };
  EXPECT_FALSE(Send(fresh(), protocol::Hello{"other", 1, 1, 1}));
  EXPECT_FALSE(Send(fresh(), protocol::Hello{"m", 2, 1, 1}));
  EXPECT_FALSE(Send(fresh(), protocol::Accepted{1, {}}));  // before Hello
  const WorkerId worker = AddWorker(&port);
  EXPECT_FALSE(Send(worker, protocol::Hello{"m", 1, 1, 1}));
  EXPECT_FALSE(Send(worker, protocol::Release{1}));
  EXPECT_FALSE(Send(worker, protocol::Roster{}));
  EXPECT_FALSE(dispatcher_.OnFrame(worker, {static_cast<protocol::MessageType>(999), ""}, now_ms_));
  EXPECT_FALSE(dispatcher_.OnFrame(worker, {protocol::MessageType::kEvent, "short"}, now_ms_));
  // Each of these gives its request up, as the next worker could do the same.
  protocol::RequestId rid = 0;
  const auto breach = [&](bool accept, auto message) {
    RecordingSink sink;
    ASSERT_TRUE(Start(++rid, &sink, false));
    if (accept) {
      EXPECT_TRUE(Send(worker, protocol::Accepted{rid, {}}));
    }
    message.rid = rid;
    EXPECT_FALSE(Send(worker, message));
    EXPECT_EQ(sink.status, 500);
    EXPECT_EQ(dispatcher_.active(), 0u);
  };
  breach(false, protocol::Event{0, 0, 1, {5}, "before Accepted"});
  breach(true, protocol::Accepted{});
  breach(true, protocol::Event{0, 0, 3, {5}, "a gap"});
  breach(true, protocol::Event{0, 7, 1, {5}, "no such choice"});
  breach(true, EndOf(0, 9));
  breach(true, protocol::Event{0, 0, 1, {5}, "not asked for", {{}}, 0});
  // Of requests that are not known: they may have been cancelled.
  EXPECT_TRUE(Send(worker, protocol::Event{77, 0, 3, {5}, "x"}));
  EXPECT_TRUE(Send(worker, protocol::Failed{77, 1, "x", ""}));
}

TEST_F(DispatcherTest, AStreamGoesOnWithTheNextWorker) {
  RecordingPort old_port, new_port;
  const WorkerId old_worker = AddWorker(&old_port, 1);
  RecordingSink stream, whole, untouched;
  ASSERT_TRUE(Start(1, &stream));
  ASSERT_TRUE(Start(2, &whole, false));
  ASSERT_TRUE(Start(3, &untouched, false));
  for (protocol::RequestId rid : {1, 2})
    ASSERT_TRUE(Send(old_worker, protocol::Accepted{rid, {1, 2}}));
  for (uint64_t seq : {1, 2}) {
    ASSERT_TRUE(Send(old_worker, protocol::Event{1, 0, seq, {5}, "a"}));
    ASSERT_TRUE(Send(old_worker, protocol::Event{2, 0, seq, {5}, "a"}));
  }
  SetState(ModelState::kStarting);
  dispatcher_.OnWorkerGone(old_worker, now_ms_);
  EXPECT_FALSE(stream.ended || whole.ended || untouched.ended);
  // It takes a while: the client hears that something is alive.
  now_ms_ += 10'000;
  dispatcher_.OnTick(now_ms_);
  EXPECT_THAT(stream.bytes, HasSubstr(": waiting"));
  const WorkerId new_worker = AddWorker(&new_port, 2, {2, 3});
  EXPECT_EQ(new_port.frames.size(), 1u) << "the settings of tenants";
  SetState(ModelState::kReady);
  const auto resumes = new_port.All<protocol::Resume>();
  ASSERT_EQ(resumes.size(), 2u);
  for (const protocol::Resume& resume : resumes) {
    EXPECT_EQ(resume.prompt_ids, (std::vector<TokenId>{1, 2}));
    EXPECT_EQ(resume.choices[0].last_seq, 2u);
    EXPECT_EQ(resume.choices[0].token_ids, (std::vector<TokenId>{5, 5}));
    EXPECT_EQ(resume.suspect, resume.rid == 2);
  }
  ASSERT_EQ(new_port.All<protocol::Submit>().size(), 1u);
  EXPECT_EQ(new_port.All<protocol::Submit>()[0].rid, 3u);
  EXPECT_TRUE(new_port.All<protocol::Submit>()[0].suspect);
  for (protocol::RequestId rid : {1, 2}) {
    // What was under way when the old one died is known already.
    ASSERT_TRUE(Send(new_worker, protocol::Event{rid, 0, 2, {5}, "a"}));
    ASSERT_TRUE(Send(new_worker, protocol::Event{rid, 0, 3, {6}, "b"}));
    ASSERT_TRUE(Send(new_worker, EndOf(rid, 4)));
  }
  EXPECT_TRUE(stream.ended);
  EXPECT_THAT(whole.bytes, HasSubstr("\"aab\""));
  EXPECT_EQ(new_port.All<protocol::Release>().size(), 2u);
}

TEST_F(DispatcherTest, GivesUpWhatIsInQuarantineAndNothingElse) {
  RecordingPort old_port, new_port;
  const WorkerId old_worker = AddWorker(&old_port, 1);
  RecordingSink poison, late_poison, other;
  ASSERT_TRUE(Start(1, &poison, false));
  ASSERT_TRUE(Start(2, &late_poison, false));
  ASSERT_TRUE(Start(3, &other, false));
  ASSERT_TRUE(Send(old_worker, protocol::Accepted{1, {1}}));
  dispatcher_.OnWorkerGone(old_worker, now_ms_);
  AddWorker(&new_port, 2, {}, {1, 2, 99});
  for (RecordingSink* sink : {&poison, &late_poison}) {
    EXPECT_EQ(sink->status, 500);
    EXPECT_THAT(sink->bytes, HasSubstr("worker_crashed"));
  }
  EXPECT_FALSE(other.ended);
  EXPECT_EQ(new_port.frames.size(), 2u) << "with the settings of tenants";
}

TEST_F(DispatcherTest, AnOrphanWaitsForAReplacedWorkerButNotForAStoppedModel) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  RecordingSink first, second;
  ASSERT_TRUE(Start(1, &first, false));
  ASSERT_TRUE(Send(worker, protocol::Accepted{1, {1}}));
  SetState(ModelState::kStopping);
  dispatcher_.OnWorkerGone(worker, now_ms_);
  EXPECT_FALSE(first.ended);
  SetState(ModelState::kStopped);
  EXPECT_EQ(first.status, 503);

  SetState(ModelState::kReady);
  const WorkerId next = AddWorker(&port, 2);
  ASSERT_TRUE(Start(2, &second, false));
  ASSERT_TRUE(Send(next, protocol::Accepted{2, {1}}));
  dispatcher_.OnWorkerGone(next, now_ms_);
  models_.Apply({});
  dispatcher_.OnRoster(now_ms_);
  EXPECT_EQ(second.status, 503);
  EXPECT_THAT(second.bytes, HasSubstr("worker_lost"));
}

TEST_F(DispatcherTest, ADrainLetsAnOrphanGoOn) {
  RecordingPort old_port, new_port;
  const WorkerId old_worker = AddWorker(&old_port, 1);
  RecordingSink sink;
  ASSERT_TRUE(Start(1, &sink, false));
  ASSERT_TRUE(Send(old_worker, protocol::Accepted{1, {1}}));
  dispatcher_.OnWorkerGone(old_worker, now_ms_);
  dispatcher_.BeginDrain();
  EXPECT_FALSE(sink.ended);
  const WorkerId new_worker = AddWorker(&new_port, 2);
  ASSERT_TRUE(Send(new_worker, EndOf(1, 1)));
  EXPECT_EQ(sink.status, 200);
}

TEST_F(DispatcherTest, CreditFollowsWhatTheClientTook) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  RecordingSink sink;
  ASSERT_TRUE(Start(1, &sink));
  ASSERT_TRUE(Send(worker, protocol::Accepted{1, {1}}));
  const protocol::Event small{1, 0, 1, {5}, "x"};
  const size_t small_bytes = protocol::Encode(small).size();
  ASSERT_TRUE(Send(worker, small));
  EXPECT_EQ(sink.payload, small_bytes);
  dispatcher_.OnTick(now_ms_);
  EXPECT_TRUE(port.All<protocol::Credit>().empty());  // nothing was taken
  dispatcher_.OnTaken(1, small_bytes);
  EXPECT_TRUE(port.All<protocol::Credit>().empty());  // a small portion waits for the tick
  dispatcher_.OnTick(now_ms_);
  ASSERT_EQ(port.All<protocol::Credit>().size(), 1u);
  EXPECT_EQ(port.All<protocol::Credit>()[0].bytes, small_bytes);
  const protocol::Event large{1, 0, 2, {5}, std::string(limits::kCreditPortionBytes, 'x')};
  ASSERT_TRUE(Send(worker, large));
  dispatcher_.OnTaken(1, protocol::Encode(large).size());
  EXPECT_EQ(port.All<protocol::Credit>().size(), 2u);
  // Events without text take no room at the client.
  ASSERT_TRUE(Send(worker, protocol::Event{1, 0, 3, {5}, ""}));
  dispatcher_.OnTick(now_ms_);
  EXPECT_EQ(port.All<protocol::Credit>().size(), 3u);
  // After the end, too late for anything.
  ASSERT_TRUE(Send(worker, EndOf(1, 4)));
  dispatcher_.OnTaken(1, 5);
  EXPECT_EQ(port.All<protocol::Release>().size(), 1u);
  EXPECT_TRUE(port.All<protocol::Cancel>().empty());
}

TEST_F(DispatcherTest, UnstreamedAnswersTakeTheirEventsAtOnce) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  RecordingSink sink;
  ASSERT_TRUE(Start(1, &sink, false));
  ASSERT_TRUE(Send(worker, protocol::Accepted{1, {1}}));
  ASSERT_TRUE(
      Send(worker, protocol::Event{1, 0, 1, {5}, std::string(limits::kCreditPortionBytes, 'x')}));
  EXPECT_EQ(port.All<protocol::Credit>().size(), 1u);
  EXPECT_EQ(sink.status, 0);
}

// Logprobs that are wanted, of as many choices as there are.
ParsedRequest WithLogprobs(bool stream, int choices = 1) {
  ParsedRequest request;
  request.stream = stream;
  request.generation.choices = choices;
  request.generation.top_logprobs = 1;
  return request;
}

protocol::Event LogprobEvent(protocol::RequestId rid, int choice, uint64_t seq,
                             const std::string& text, uint32_t tokens_out) {
  protocol::Event event{rid, choice, seq, {5}, text};
  event.logprobs.emplace_back();
  event.logprobs[0].token = {-0.5f, "t" + std::to_string(seq), false};
  event.tokens_out = tokens_out;
  return event;
}

TEST_F(DispatcherTest, LogprobsGoOnWithTheNextWorker) {
  for (const bool stream : {true, false}) {
    RecordingPort old_port, new_port;
    const WorkerId old_worker = AddWorker(&old_port, 1);
    RecordingSink sink;
    const protocol::RequestId rid = stream ? 1 : 2;
    ASSERT_TRUE(dispatcher_.Start(rid, WithLogprobs(stream), &sink, now_ms_));
    ASSERT_TRUE(Send(old_worker, protocol::Accepted{rid, {1}}));
    ASSERT_TRUE(Send(old_worker, LogprobEvent(rid, 0, 1, "t1", 1)));
    ASSERT_TRUE(Send(old_worker, LogprobEvent(rid, 0, 2, "", 1)));  // held
    EXPECT_THAT(sink.bytes, Not(HasSubstr("t2")));
    dispatcher_.OnWorkerGone(old_worker, now_ms_);
    const WorkerId new_worker = AddWorker(&new_port, 2);
    ASSERT_EQ(new_port.All<protocol::Resume>().size(), 1u);
    EXPECT_EQ(new_port.All<protocol::Resume>()[0].request.top_logprobs, 1);
    ASSERT_TRUE(Send(new_worker, LogprobEvent(rid, 0, 3, "t2t3", 3)));
    ASSERT_TRUE(Send(new_worker, LogprobEvent(rid, 0, 4, "", 3)));  // the end token
    ASSERT_TRUE(Send(new_worker, EndOf(rid, 5)));
    EXPECT_EQ(sink.status, 200);
    for (const char* token : {R"("token":"t1")", R"("token":"t2")", R"("token":"t3")"}) {
      const size_t at = sink.bytes.find(token);
      EXPECT_NE(at, std::string::npos) << token;
      EXPECT_EQ(sink.bytes.find(token, at + 1), std::string::npos) << token;
    }
    EXPECT_THAT(sink.bytes, Not(HasSubstr("t4")));
    dispatcher_.OnWorkerGone(new_worker, now_ms_);
  }
}

TEST_F(DispatcherTest, ChoicesAreInterleavedAndCountedTogether) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  RecordingSink stream, whole;
  for (const auto& [rid, sink] : {std::pair{1, &stream}, std::pair{2, &whole}}) {
    const auto id = static_cast<protocol::RequestId>(rid);
    ParsedRequest request;
    request.stream = request.include_usage = rid == 1;
    request.generation.choices = 2;
    ASSERT_TRUE(dispatcher_.Start(id, std::move(request), sink, now_ms_));
    ASSERT_TRUE(Send(worker, protocol::Accepted{id, {1}}));
    ASSERT_TRUE(Send(worker, protocol::Event{id, 1, 1, {5}, "x"}));
    ASSERT_TRUE(Send(worker, protocol::Event{id, 0, 1, {5}, "y"}));
    for (const int choice : {1, 0}) {
      protocol::End end = EndOf(id, 2);
      end.choice = choice;
      end.usage.completion_tokens = 1;
      EXPECT_FALSE(sink->ended);
      ASSERT_TRUE(Send(worker, end));
    }
    EXPECT_TRUE(sink->ended);
    EXPECT_THAT(sink->bytes, HasSubstr("\"completion_tokens\":2"));
  }
  const auto at = [&](const std::string& part) {
    EXPECT_THAT(stream.bytes, HasSubstr(part));
    return stream.bytes.find(part);
  };
  const std::string end = R"("delta":{},"logprobs":null,"finish_reason":"stop")";
  EXPECT_LT(at(R"("index":0,"delta":{"role")"), at(R"("index":1,"delta":{"role")"));
  EXPECT_LT(at(R"("index":1,"delta":{"role")"), at(R"("index":1,"delta":{"content":"x"})"));
  EXPECT_LT(at(R"("index":1,"delta":{"content":"x"})"), at(R"("index":0,"delta":{"content":"y"})"));
  EXPECT_LT(at(R"("index":1,)" + end), at(R"("index":0,)" + end));
  EXPECT_LT(at(R"("index":0,)" + end), at(R"("choices":[],"usage")"));
  EXPECT_EQ(port.All<protocol::Release>().size(), 2u);
  EXPECT_LT(whole.bytes.find("\"y\""), whole.bytes.find("\"x\""));
}

TEST_F(DispatcherTest, BoundsTheLogprobsItHolds) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  RecordingSink sink;
  ASSERT_TRUE(dispatcher_.Start(1, WithLogprobs(false), &sink, now_ms_));
  ASSERT_TRUE(Send(worker, protocol::Accepted{1, {1}}));
  protocol::Event event = LogprobEvent(1, 0, 0, "", 0);
  event.logprobs[0].token.bytes.assign(1 << 20, 'x');
  for (; !sink.ended && event.seq < 1000;) {
    ++event.seq;
    ASSERT_TRUE(Send(worker, event));
  }
  EXPECT_LT(event.seq, 70u);
  EXPECT_EQ(sink.status, 400);
  EXPECT_THAT(sink.bytes, HasSubstr("Ask for a stream"));
}

TEST_F(DispatcherTest, BoundsWhatItHolds) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  port.outbox = limits::kChannelOutboxBytesMax + 1;
  RecordingSink sink;
  auto refused = Start(1, &sink);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::overloaded);
  port.outbox = 0;

  ParsedRequest huge;
  huge.generation.prompt.assign(limits::kFrameBytesMax, 'x');
  refused = dispatcher_.Start(2, std::move(huge), &sink, now_ms_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::payload_too_large);

  // An answer without end.
  ASSERT_TRUE(Start(3, &sink, false));
  ASSERT_TRUE(Send(worker, protocol::Accepted{3, {1}}));
  const std::string part(16 << 20, 'x');
  for (uint64_t seq = 1; !sink.ended && seq < 100; ++seq)
    ASSERT_TRUE(Send(worker, protocol::Event{3, 0, seq, {5}, part}));
  EXPECT_EQ(sink.status, 500);
  EXPECT_EQ(port.All<protocol::Cancel>().size(), 1u);
  EXPECT_EQ(dispatcher_.active(), 0u);
}

// --- Queues and deadlines ------------------------------------------------------------------------

TEST_F(DispatcherTest, AFullQueueRefusesButKeepsNobodyOut) {
  settings_.queue_max = 2;
  RecordingPort port;
  AddWorker(&port);
  RecordingSink sinks[4];
  ASSERT_TRUE(Start(1, &sinks[0], true, 1));
  ASSERT_TRUE(Start(2, &sinks[1], true, 1));
  const auto refused = Start(3, &sinks[2], true, 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::queue_full);
  EXPECT_THAT(refused.error().message, HasSubstr("server.queue_max"));
  EXPECT_TRUE(Start(4, &sinks[3], true, 2)) << "another client's";
  dispatcher_.OnClientGone(1);
  dispatcher_.OnClientGone(4);
  EXPECT_TRUE(Start(5, &sinks[2], true, 1));
}

TEST_F(DispatcherTest, WhatWaitedForAModelIsHandedOutInTurns) {
  SetState(ModelState::kLoading);
  std::vector<RecordingSink> sinks(7);
  const std::vector<uint64_t> clients = {1, 1, 1, 1, 2, 3, 2};
  // Their numbers are random, not those of their order.
  const std::vector<protocol::RequestId> rids = {70, 30, 50, 20, 90, 10, 40};
  for (size_t i = 0; i < rids.size(); ++i) ASSERT_TRUE(Start(rids[i], &sinks[i], true, clients[i]));
  RecordingPort port;
  AddWorker(&port);
  SetState(ModelState::kReady);
  std::vector<protocol::RequestId> handed;
  for (const auto& submit : port.All<protocol::Submit>()) handed.push_back(submit.rid);
  EXPECT_EQ(handed, (std::vector<protocol::RequestId>{70, 90, 10, 30, 40, 50, 20}));
}

TEST_F(DispatcherTest, ADeadlineEndsARequestWhereverItIs) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  RecordingSink queued, prompt, whole, stream, free;
  ASSERT_TRUE(Start(1, &queued, true, 0, 1'000));
  ASSERT_TRUE(Start(2, &prompt, true, 0, 1'001));
  ASSERT_TRUE(Start(3, &whole, false, 0, 1'002));
  ASSERT_TRUE(Start(4, &stream, true, 0, 1'003));
  ASSERT_TRUE(Start(5, &free));
  for (const protocol::RequestId rid : {2u, 3u, 4u}) {
    ASSERT_TRUE(Send(worker, protocol::Accepted{rid, {1, 2}}));
    ASSERT_TRUE(Send(worker, protocol::Begun{rid, 0, 0, 0}));
  }
  for (const protocol::RequestId rid : {3u, 4u})
    for (uint64_t seq = 1; seq <= 3; ++seq)
      ASSERT_TRUE(Send(worker, protocol::Event{rid, 0, seq, {5}, "x"}));
  EXPECT_EQ(dispatcher_.deadline_ms(), now_ms_ + 1'000);
  now_ms_ += 999;
  dispatcher_.OnDeadline(now_ms_);
  EXPECT_FALSE(queued.ended);
  now_ms_ += 4;
  dispatcher_.OnDeadline(now_ms_);
  EXPECT_EQ(queued.status, 504);
  EXPECT_THAT(queued.bytes, HasSubstr("deadline_exceeded"));
  EXPECT_THAT(queued.bytes, HasSubstr("had 1 s (X-Request-Timeout)"));
  EXPECT_THAT(queued.bytes, HasSubstr("while it waited for its turn"));
  EXPECT_EQ(prompt.status, 200) << "its stream had begun";
  EXPECT_THAT(prompt.bytes, HasSubstr("while its prompt was computed"));
  EXPECT_EQ(whole.status, 504);
  EXPECT_THAT(whole.bytes, HasSubstr("when 3 tokens of the answer had been generated, which"));
  EXPECT_EQ(stream.status, 200);
  EXPECT_TRUE(stream.ended);
  EXPECT_THAT(stream.bytes, HasSubstr("when 3 tokens of the answer had been generated."));
  EXPECT_THAT(stream.bytes, Not(HasSubstr("[DONE]")));
  std::vector<protocol::RequestId> cancelled;
  for (const auto& cancel : port.All<protocol::Cancel>()) cancelled.push_back(cancel.rid);
  EXPECT_EQ(cancelled, (std::vector<protocol::RequestId>{1, 2, 3, 4}));
  EXPECT_FALSE(dispatcher_.deadline_ms());
  EXPECT_EQ(dispatcher_.active(), 1u);
  // What comes of them still is nobody's.
  EXPECT_TRUE(Send(worker, protocol::Event{4, 0, 4, {5}, "x"}));
}

TEST_F(DispatcherTest, ADeadlineGoesOnWhileAModelIsWaitedForAndAfterADeath) {
  settings_.request_timeout_s = 5;
  SetState(ModelState::kLoading);
  RecordingSink waits, begun, ended;
  ASSERT_TRUE(Start(1, &waits, false));
  now_ms_ += 1'000;
  ASSERT_TRUE(Start(2, &begun));
  ASSERT_TRUE(Start(3, &ended, true, 0, 1'500));
  dispatcher_.OnClientGone(3);
  EXPECT_EQ(dispatcher_.deadline_ms(), now_ms_ + 4'000);
  now_ms_ += 4'000;
  dispatcher_.OnDeadline(now_ms_);
  EXPECT_EQ(waits.status, 504);
  EXPECT_THAT(waits.bytes, HasSubstr("server.request_timeout_s"));
  EXPECT_THAT(waits.bytes, HasSubstr("waited for m to be loaded"));
  RecordingPort port;
  SetState(ModelState::kReady);
  const WorkerId worker = AddWorker(&port);
  ASSERT_TRUE(Send(worker, protocol::Accepted{2, {1}}));
  ASSERT_TRUE(Send(worker, protocol::Event{2, 0, 1, {5}, "x"}));
  dispatcher_.OnWorkerGone(worker, now_ms_);
  EXPECT_EQ(dispatcher_.deadline_ms(), now_ms_ + 1'000) << "a new worker gives no new time";
  now_ms_ += 1'000;
  dispatcher_.OnDeadline(now_ms_);
  EXPECT_THAT(begun.bytes, HasSubstr("when 1 token of the answer"));
  EXPECT_EQ(dispatcher_.active(), 0u);
}

TEST_F(DispatcherTest, AServiceThatEndsSoonTakesRequests) {
  protocol::Roster roster;
  roster.models.emplace_back();
  roster.models[0].name = "m";
  roster.models[0].state = ModelState::kReady;
  roster.ends_soon = true;
  models_.Apply(roster);
  RecordingPort port;
  AddWorker(&port);
  RecordingSink sink;
  EXPECT_TRUE(Start(1, &sink));
  EXPECT_EQ(port.All<protocol::Submit>().size(), 1u);
  EXPECT_TRUE(models_.ends());
  EXPECT_FALSE(models_.draining());
}

TEST_F(DispatcherTest, TheRostersDrainRefusesNewWork) {
  protocol::Roster roster;
  roster.draining = true;
  models_.Apply(roster);
  RecordingSink sink;
  const auto refused = Start(1, &sink);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::shutting_down);
}

TEST_F(DispatcherTest, ALateWorkerInADrainLosesWhatItHadNotAccepted) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  RecordingSink sink;
  ASSERT_TRUE(Start(1, &sink, false));
  dispatcher_.BeginDrain();
  EXPECT_FALSE(sink.ended);  // submitted: may still be answered
  dispatcher_.OnWorkerGone(worker, now_ms_);
  EXPECT_EQ(sink.status, 503);
}

// --- Conversations that are deleted meanwhile, and how long they are kept
// --------------------------

TEST_F(DispatcherTest, ARequestWhoseConversationWasDeletedIsKeptByNoLaterWorker) {
  RecordingPort first, second;
  const WorkerId dying = AddWorker(&first, 1);
  RecordingSink streams[3];
  for (protocol::RequestId rid = 1; rid <= 3; ++rid) {
    ASSERT_TRUE(Start(rid, &streams[rid - 1]));
    if (rid == 3) continue;  // not accepted yet
    protocol::ConversationTicket ticket;
    ticket.conversation_id = "doomed";
    ASSERT_TRUE(Send(dying, protocol::Accepted{rid, {1, 2}, ticket}));
    ASSERT_TRUE(Send(dying, protocol::Event{rid, 0, 1, {5}, "x"}));
  }
  // The second one is of another conversation with the same name: another tenant's, say.
  ASSERT_TRUE(Send(dying, protocol::Forgotten{{1, 3, 77}}));
  dispatcher_.OnWorkerGone(dying, now_ms_);
  AddWorker(&second, 2);
  const auto resumes = second.All<protocol::Resume>();
  ASSERT_EQ(resumes.size(), 2u);
  for (const protocol::Resume& resume : resumes) {
    const bool is_forgotten = resume.rid == 1;
    EXPECT_EQ(resume.request.remembers, !is_forgotten) << resume.rid;
    EXPECT_EQ(resume.ticket.conversation_id, is_forgotten ? "" : "doomed");
    EXPECT_EQ(resume.choices[0].token_ids, std::vector<TokenId>{5}) << "the stream goes on";
  }
  const auto submits = second.All<protocol::Submit>();
  ASSERT_EQ(submits.size(), 1u);
  EXPECT_FALSE(submits[0].request.remembers);
}

TEST_F(DispatcherTest, OfARequestThatIsAnotherWorkersNothingIsForgotten) {
  RecordingPort first, second, third;
  const WorkerId old_worker = AddWorker(&first, 1);
  RecordingSink sink;
  const WorkerId new_worker = AddWorker(&second, 2);
  ASSERT_TRUE(Start(1, &sink));
  ASSERT_TRUE(Send(new_worker, protocol::Accepted{1, {1}}));
  ASSERT_TRUE(Send(old_worker, protocol::Forgotten{{1}}));
  dispatcher_.OnWorkerGone(new_worker, now_ms_);
  dispatcher_.OnWorkerGone(old_worker, now_ms_);
  AddWorker(&third, 3);
  ASSERT_EQ(third.All<protocol::Resume>().size(), 1u);
  EXPECT_TRUE(third.All<protocol::Resume>()[0].request.remembers);
}

TEST_F(DispatcherTest, WhatIsForgottenIsNotToldToTheClient) {
  RecordingPort port;
  const WorkerId worker = AddWorker(&port);
  RecordingSink whole;
  ASSERT_TRUE(Start(1, &whole, false));
  protocol::ConversationTicket ticket;
  ticket.conversation_id = "doomed";
  ASSERT_TRUE(Send(worker, protocol::Accepted{1, {1}, ticket}));
  ASSERT_TRUE(Send(worker, protocol::Forgotten{{1}}));
  ASSERT_TRUE(Send(worker, EndOf(1, 1)));
  EXPECT_EQ(whole.status, 200);
  EXPECT_THAT(whole.bytes, Not(HasSubstr("doomed")));
}

TEST_F(DispatcherTest, WorkersAreToldHowLongTenantsConversationsAreKept) {
  settings_.api_keys = {"a", "b"};
  settings_.key_settings = {{"a", 7, true}};
  RecordingPort port, silent;
  dispatcher_.AddWorker({"m", 1, {}, {}}, &silent);
  AddWorker(&port, 2);
  ASSERT_EQ(port.All<protocol::TenantSettings>().size(), 1u);
  EXPECT_EQ(port.All<protocol::TenantSettings>()[0].retentions[0].retention_days, 7);
  settings_.key_settings.clear();
  dispatcher_.OnSettings();
  ASSERT_EQ(port.All<protocol::TenantSettings>().size(), 2u);
  EXPECT_TRUE(port.All<protocol::TenantSettings>()[1].retentions.empty());
  EXPECT_TRUE(silent.frames.empty()) << "it has not said Hello";
}

}  // namespace
}  // namespace perdure::frontend
