// The frontend process as a whole: clients on raw sockets, scripted workers, a scripted supervisor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/limits.h"
#include "fake_service.h"

namespace perdure::frontend {
namespace {

using nlohmann::json;
using protocol::ModelState;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHi[] = R"({"model":"nano","messages":[{"role":"user","content":"hi"}]})";
constexpr char kHiStream[] =
    R"({"model":"nano","messages":[{"role":"user","content":"hi"}],"stream":true})";
constexpr char kHiStreamUsage[] =
    R"({"messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}})";

// The JSON of each "data:" line; [DONE] as a string.
std::vector<json> Events(const std::string& body) {
  std::vector<json> events;
  for (size_t at = 0; (at = body.find("data: ", at)) != std::string::npos;) {
    const size_t end = body.find("\n\n", at);
    const std::string text = body.substr(at + 6, end - at - 6);
    events.push_back(text == "[DONE]" ? json("[DONE]") : json::parse(text));
    at = end;
  }
  return events;
}

std::string ContentOf(const std::vector<json>& events) {
  std::string text;
  for (const json& event : events) {
    if (!event.is_object() || !event.contains("choices") || event["choices"].empty()) continue;
    text += event["choices"][0]["delta"].value("content", "");
  }
  return text;
}

TEST(Server, AnswersAChatInOnePiece) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHi));
  const auto submit = worker.Expect<protocol::Submit>();
  EXPECT_EQ(submit.request.chat_json, R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(submit.credit_bytes, limits::kCreditBytes);
  Answer(worker, submit.rid, {"Hel", "", "lo ✓"});
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 200);
  const json body = json::parse(reply.body);
  EXPECT_EQ(body["choices"][0]["message"]["content"], "Hello ✓");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
  EXPECT_EQ(body["timings"]["cache"]["computed"], 3);
  EXPECT_EQ("req_" + body["id"].get<std::string>().substr(9), reply.headers.at("x-request-id"));
  EXPECT_EQ(worker.Expect<protocol::Release>().rid, submit.rid);
}

TEST(Server, StreamsAChat) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHiStreamUsage));
  const auto submit = worker.Expect<protocol::Submit>();
  worker.Send(protocol::Accepted{submit.rid, {1}});
  EXPECT_THAT(client.ReadUntil("\"role\":\"assistant\""), HasSubstr("text/event-stream"));
  worker.Send(protocol::Event{submit.rid, 0, 1, {7}, "one"});
  client.ReadUntil("\"content\":\"one\"");  // goes out at once
  worker.Send(protocol::Event{submit.rid, 0, 2, {8}, " two"});
  worker.Send(protocol::Event{submit.rid, 0, 2, {8}, " two"});  // known already: no effect
  worker.Send(PlainEnd(submit.rid, 3, 2));
  const HttpReply reply = client.ReadReply();
  ASSERT_TRUE(reply.complete);
  const auto events = Events(reply.body);
  EXPECT_EQ(ContentOf(events), "one two");
  ASSERT_EQ(events.size(), 6u);
  EXPECT_EQ(events[3]["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(events[3]["usage"].is_null());
  EXPECT_TRUE(events[4]["choices"].empty());
  EXPECT_EQ(events[4]["usage"]["total_tokens"], 7);
  EXPECT_EQ(events[5], "[DONE]");
  // The connection goes on.
  client.Send(GetText("/v1/models"));
  EXPECT_EQ(client.ReadReply().status, 200);
}

TEST(Server, StreamsPlainCompletionsToHttp10) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  const std::string body = R"({"prompt":"a","stream":true})";
  client.Send("POST /v1/completions HTTP/1.0\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n" + body);
  const auto submit = worker.Expect<protocol::Submit>();
  EXPECT_EQ(submit.request.prompt, "a");
  Answer(worker, submit.rid, {"b", "c"});
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.headers.at("connection"), "close");
  const auto events = Events(reply.body);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0]["choices"][0]["text"], "b");
  EXPECT_EQ(events[0]["object"], "text_completion");
  EXPECT_EQ(events[3], "[DONE]");
}

TEST(Server, DecidesTheStatusBeforeTheFirstByte) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHiStream));
  const auto submit = worker.Expect<protocol::Submit>();
  worker.Send(protocol::Failed{submit.rid,
                               static_cast<uint16_t>(ErrorCode::context_length_exceeded),
                               "too long", "messages"});
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 400);
  const json error = json::parse(reply.body)["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_EQ(error["param"], "messages");
}

TEST(Server, TellsAnErrorInTheMiddleOfAStream) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHiStream));
  const auto submit = worker.Expect<protocol::Submit>();
  worker.Send(protocol::Accepted{submit.rid, {1}});
  worker.Send(protocol::Event{submit.rid, 0, 1, {7}, "x"});
  worker.Send(
      protocol::Failed{submit.rid, static_cast<uint16_t>(ErrorCode::out_of_memory), "no room", ""});
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 200);
  ASSERT_TRUE(reply.complete);
  EXPECT_THAT(reply.body, Not(HasSubstr("[DONE]")));
  EXPECT_EQ(Events(reply.body).back()["error"]["code"], "out_of_memory");
}

TEST(Server, StreamsGoOnWithTheNextWorkerAndOthersDoNotNotice) {
  FakeService service;
  FakePeer other = service.AddWorker("other");
  auto worker = std::make_optional(service.AddWorker("nano"));
  FakeClient streaming(service.port()), whole(service.port()), kept(service.port());
  streaming.Send(PostText("/v1/chat/completions", kHiStream));
  const auto submit1 = worker->Expect<protocol::Submit>();
  whole.Send(PostText("/v1/chat/completions", kHi));
  const auto submit2 = worker->Expect<protocol::Submit>();
  kept.Send(PostText("/v1/completions", R"({"model":"other","prompt":"p"})"));
  const auto submit3 = other.Expect<protocol::Submit>();
  other.Send(protocol::Accepted{submit3.rid, {1}});
  worker->Send(protocol::Accepted{submit1.rid, {1}});
  worker->Send(protocol::Accepted{submit2.rid, {1}});
  worker->Send(protocol::Event{submit1.rid, 0, 1, {7}, "last words"});
  // Half a frame is discarded.
  worker->SendRaw(
      protocol::MakeFrame(protocol::Event{submit1.rid, 0, 2, {7}, "torn"}).substr(0, 20));
  worker.reset();
  service.SetModel("nano", ModelState::kStarting, 2);
  other.Send(protocol::Event{submit3.rid, 0, 1, {7}, "fine"});
  other.Send(PlainEnd(submit3.rid, 2, 1));
  EXPECT_EQ(json::parse(kept.ReadReply().body)["choices"][0]["text"], "fine");

  FakePeer next = service.OfferChannel("nano", 2);
  next.Send(protocol::Hello{"nano", 2, 4096, 8});
  service.SetModel("nano", ModelState::kReady, 2);
  for (int i = 0; i < 2; ++i) {
    const auto resume = next.Expect<protocol::Resume>();
    const bool streamed = resume.rid == submit1.rid;
    EXPECT_EQ(resume.choices[0].last_seq, streamed ? 1u : 0u);
    const uint64_t seq = resume.choices[0].last_seq + 1;
    next.Send(protocol::Event{resume.rid, 0, seq, {8}, " and more"});
    next.Send(PlainEnd(resume.rid, seq + 1, streamed ? 2 : 1));
  }
  const HttpReply stream = streaming.ReadReply();
  EXPECT_EQ(stream.status, 200);
  EXPECT_THAT(stream.body, HasSubstr("last words"));
  EXPECT_THAT(stream.body, Not(HasSubstr("torn")));
  EXPECT_THAT(stream.body, HasSubstr(" and more"));
  EXPECT_THAT(stream.body, HasSubstr("[DONE]"));
  EXPECT_EQ(json::parse(whole.ReadReply().body)["choices"][0]["message"]["content"], " and more");
}

TEST(Server, ConnectionsQueueUntilTheModelsAreKnown) {
  FakeService service(FakeService::DefaultSettings(), false);
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHi));
  service.Settle();  // long enough to have answered that no model is known
  FakePeer worker = service.OfferChannel("nano", 1);
  worker.Send(protocol::Hello{"nano", 1, 4096, 8});
  service.SetModel("nano", ModelState::kReady);
  Answer(worker, worker.Expect<protocol::Submit>().rid, {"ok"});
  EXPECT_EQ(client.ReadReply().status, 200);
}

TEST(Server, RequestsNotYetAcceptedGoToTheNextWorkerUntilTheyAreGivenUp) {
  FakeService service;
  auto worker = std::make_optional(service.AddWorker("nano"));
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHi));
  const auto submit = worker->Expect<protocol::Submit>();
  for (uint32_t epoch = 2; epoch <= 4; ++epoch) {
    worker.reset();
    service.SetModel("nano", ModelState::kStarting, epoch);
    worker.emplace(service.OfferChannel("nano", epoch, {submit.rid}));
    worker->Send(protocol::Hello{"nano", epoch, 4096, 8});
    service.SetModel("nano", ModelState::kReady, epoch);
    const auto again = worker->Expect<protocol::Submit>();
    EXPECT_EQ(again.rid, submit.rid);
    EXPECT_EQ(again.request.seed, submit.request.seed);
    EXPECT_TRUE(again.suspect);
  }
  worker.reset();
  service.SetModel("nano", ModelState::kStarting, 5);
  FakePeer last = service.OfferChannel("nano", 5, {}, {submit.rid});
  last.Send(protocol::Hello{"nano", 5, 4096, 8});
  service.SetModel("nano", ModelState::kReady, 5);
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 500);
  EXPECT_EQ(json::parse(reply.body)["error"]["code"], "worker_crashed");
}

TEST(Server, AMalformedFrameClosesThatChannelOnly) {
  FakeService service;
  FakePeer other = service.AddWorker("other");
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port()), fine(service.port());
  client.Send(PostText("/v1/chat/completions", kHi));
  const auto submit = worker.Expect<protocol::Submit>();
  worker.Send(protocol::Accepted{submit.rid, {1}});
  std::string frame = protocol::MakeFrame(protocol::Event{submit.rid, 0, 1, {7}, "x"});
  frame[8 + 12] = 9;  // the event's number
  worker.SendRaw(frame);
  // The next worker could do the same: the request is given up.
  EXPECT_EQ(client.ReadReply().status, 500);
  EXPECT_TRUE(worker.WaitClosed());
  // The supervisor is told, so that the worker is replaced.
  EXPECT_EQ(service.supervisor().Expect<protocol::ChannelBroken>().model, "nano");
  fine.Send(PostText("/v1/completions", R"({"model":"other","prompt":"p"})"));
  Answer(other, other.Expect<protocol::Submit>().rid, {"ok"});
  EXPECT_EQ(fine.ReadReply().status, 200);
}

TEST(Server, ARequestWaitsForItsModel) {
  FakeService service;
  service.SetModel("nano", ModelState::kLoading);
  FakePeer worker = service.OfferChannel("nano", 1);
  service.Settle();
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHi));
  service.Settle();
  EXPECT_TRUE(worker.Received<protocol::Submit>().empty());
  worker.Send(protocol::Hello{"nano", 1, 4096, 8});
  service.SetModel("nano", ModelState::kReady);
  Answer(worker, worker.Expect<protocol::Submit>().rid, {"late"});
  EXPECT_EQ(client.ReadReply().status, 200);
}

TEST(Server, AFailedModelSaysWhy) {
  FakeService service;
  service.SetModel("nano", ModelState::kFailed, 5, "Five crashes in a row: signal 11.");
  service.Settle();
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHi));
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.headers.at("retry-after"), "7");
  EXPECT_THAT(reply.body, HasSubstr("signal 11"));
  EXPECT_THAT(reply.body, HasSubstr("model_failed"));
}

TEST(Server, TheQueueIsBounded) {
  auto settings = FakeService::DefaultSettings();
  settings.queue_max = 2;
  FakeService service(settings);
  FakePeer worker = service.AddWorker("nano");
  FakeClient one(service.port()), two(service.port()), three(service.port());
  one.Send(PostText("/v1/chat/completions", kHi));
  const auto submit = worker.Expect<protocol::Submit>();
  two.Send(PostText("/v1/chat/completions", kHi));
  worker.Expect<protocol::Submit>();
  three.Send(PostText("/v1/chat/completions", kHi));
  const HttpReply reply = three.ReadReply();
  EXPECT_EQ(reply.status, 503);
  EXPECT_TRUE(reply.headers.contains("retry-after"));
  EXPECT_THAT(reply.body, HasSubstr("The queue of nano is full"));
  EXPECT_THAT(reply.body, HasSubstr("server.queue_max"));
  Answer(worker, submit.rid, {"x"});
  EXPECT_EQ(one.ReadReply().status, 200);
  three.Send(PostText("/v1/chat/completions", kHi));
  worker.Expect<protocol::Submit>();
}

TEST(Server, AnotherKeyGetsIntoAFullQueue) {
  auto settings = FakeService::DefaultSettings();
  settings.api_keys = {"a", "b"};
  settings.model_limits = {{"nano", 2, std::nullopt}};
  FakeService service(settings);
  FakePeer worker = service.OfferChannel("nano", 1);
  worker.Send(protocol::Hello{"nano", 1, 4096, 8});
  service.SetModel("nano", protocol::ModelState::kReady);
  const auto post = [](const char* key) {
    return PostText("/v1/chat/completions", kHi,
                    std::string("Authorization: Bearer ") + key + "\r\n");
  };
  FakeClient one(service.port()), two(service.port()), three(service.port()), four(service.port());
  one.Send(post("a"));
  const auto first = worker.Expect<protocol::Submit>();
  two.Send(post("a"));
  EXPECT_EQ(worker.Expect<protocol::Submit>().request.client, first.request.client);
  three.Send(post("a"));
  const HttpReply full = three.ReadReply();
  EXPECT_EQ(full.status, 503);
  EXPECT_THAT(full.body, HasSubstr("queue_full"));
  EXPECT_THAT(full.body, HasSubstr("models.nano.queue_max is 2"));
  four.Send(post("b"));
  EXPECT_NE(worker.Expect<protocol::Submit>().request.client, first.request.client);
}

TEST(Server, ARequestsOwnDeadlineIsMet) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHi, "X-Request-Timeout: 0.05\r\n"));
  const auto submit = worker.Expect<protocol::Submit>();
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 504);
  EXPECT_THAT(reply.body, HasSubstr("deadline_exceeded"));
  EXPECT_THAT(reply.body, HasSubstr("0.05 s"));
  EXPECT_EQ(reply.headers.at("x-should-retry"), "false");
  EXPECT_FALSE(reply.headers.contains("retry-after"));
  EXPECT_EQ(worker.Expect<protocol::Cancel>().rid, submit.rid);
  // The connection is as good as before; a later deadline that is sooner counts.
  FakeClient other(service.port());
  client.Send(PostText("/v1/chat/completions", kHi, "X-Request-Timeout: 600\r\n"));
  const auto slow = worker.Expect<protocol::Submit>();
  other.Send(PostText("/v1/chat/completions", kHi, "X-Request-Timeout: 0.05\r\n"));
  worker.Expect<protocol::Submit>();
  EXPECT_EQ(other.ReadReply().status, 504);
  Answer(worker, slow.rid, {"x"});
  EXPECT_EQ(client.ReadReply().status, 200);
  client.Send(PostText("/v1/chat/completions", kHi, "X-Request-Timeout: soon\r\n"));
  const HttpReply wrong = client.ReadReply();
  EXPECT_EQ(wrong.status, 400);
  EXPECT_THAT(wrong.body, HasSubstr("X-Request-Timeout"));
}

TEST(Server, AServiceThatEndsSoonSaysSoAndServes) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  protocol::Roster roster;
  roster.models.emplace_back();
  roster.models[0].name = "nano";
  roster.models[0].state = protocol::ModelState::kReady;
  roster.ends_soon = true;
  service.supervisor().Send(roster);
  service.Settle();
  FakeClient client(service.port());
  client.Send(GetText("/ready"));
  const HttpReply ready = client.ReadReply();
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(json::parse(ready.body)["status"], "draining");
  client.Send(GetText("/ready?model=nano"));
  EXPECT_EQ(client.ReadReply().status, 503);
  client.Send(GetText("/health"));
  EXPECT_EQ(client.ReadReply().status, 200);
  client.Send(PostText("/v1/chat/completions", kHi));
  Answer(worker, worker.Expect<protocol::Submit>().rid, {"x"});
  EXPECT_EQ(client.ReadReply().status, 200);
}

TEST(Server, AClientThatLeavesCancels) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  for (bool stream : {true, false}) {
    FakeClient client(service.port());
    client.Send(PostText("/v1/chat/completions", stream ? kHiStream : kHi));
    const auto submit = worker.Expect<protocol::Submit>();
    worker.Send(protocol::Accepted{submit.rid, {1}});
    if (stream) client.ReadUntil("assistant");
    stream ? client.Reset() : client.Close();
    EXPECT_EQ(worker.Expect<protocol::Cancel>().rid, submit.rid);
    // What was on its way is ignored.
    worker.Send(protocol::Event{submit.rid, 0, 1, {7}, "x"});
  }
  FakeClient next(service.port());
  next.Send(PostText("/v1/chat/completions", kHi));
  Answer(worker, worker.Expect<protocol::Submit>().rid, {"x"});
  EXPECT_EQ(next.ReadReply().status, 200);
}

TEST(Server, AClientThatNeverReadsGetsNoMoreCredit) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port(), 4096);
  client.Send(PostText("/v1/chat/completions", kHiStream));
  const auto submit = worker.Expect<protocol::Submit>();
  worker.Send(protocol::Accepted{submit.rid, {1}});
  const std::string text(8000, 'x');
  uint64_t seq = 0, sent = 0, credit = submit.credit_bytes;
  const size_t event_bytes = protocol::Encode(protocol::Event{submit.rid, 0, 1, {7}, text}).size();
  // As a worker does: sends while there is credit. The kernel's buffers take some, then it ends.
  for (int idle_rounds = 0; idle_rounds < 3;) {
    while (sent + event_bytes <= credit) {
      worker.Send(protocol::Event{submit.rid, 0, ++seq, {7}, text});
      sent += event_bytes;
    }
    service.Settle();
    const uint64_t before = credit;
    credit = submit.credit_bytes;
    for (const auto& more : worker.Received<protocol::Credit>()) credit += more.bytes;
    idle_rounds = credit == before ? idle_rounds + 1 : 0;
    ASSERT_LT(sent, uint64_t{64} << 20) << "credit without end";
  }
  EXPECT_GE(sent, uint64_t{limits::kCreditBytes} - event_bytes);
  // Others are served meanwhile.
  FakeClient other(service.port());
  other.Send(PostText("/v1/completions", R"({"prompt":"p"})"));
  Answer(worker, worker.Expect<protocol::Submit>().rid, {"x"});
  EXPECT_EQ(other.ReadReply().status, 200);
  // It begins to read: credit comes, and nothing is lost.
  worker.Send(PlainEnd(submit.rid, seq + 1, static_cast<int32_t>(seq)));
  const HttpReply reply = client.ReadReply();
  ASSERT_TRUE(reply.complete);
  EXPECT_EQ(ContentOf(Events(reply.body)).size(), seq * text.size());
}

TEST(Server, AClientThatNeverReadsIsGivenUp) {
  auto settings = FakeService::DefaultSettings();
  settings.slow_client_timeout_s = 1;
  FakeService service(settings);
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port(), 4096);
  client.Send(PostText("/v1/chat/completions", kHiStream));
  const auto submit = worker.Expect<protocol::Submit>();
  worker.Send(protocol::Accepted{submit.rid, {1}});
  for (uint64_t seq = 1; seq <= 30; ++seq)
    worker.Send(protocol::Event{submit.rid, 0, seq, {7}, std::string(8000, 'x')});
  EXPECT_EQ(worker.Expect<protocol::Cancel>().rid, submit.rid);
}

TEST(Server, SilenceIsFilledWithComments) {
  auto settings = FakeService::DefaultSettings();
  settings.sse_comment_s = 1;
  FakeService service(settings);
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHiStream));
  const auto submit = worker.Expect<protocol::Submit>();
  EXPECT_THAT(client.ReadUntil(": waiting\n\n"), HasSubstr("200 OK"));
  // Too late for a status: the error goes into the stream.
  worker.Send(
      protocol::Failed{submit.rid, static_cast<uint16_t>(ErrorCode::invalid_request), "no", ""});
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(Events(reply.body).back()["error"]["code"], "invalid_request");
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHi) + GetText("/v1/models") +
              PostText("/v1/completions", R"({"prompt":"2"})") + GetText("/nowhere"));
  const auto submit = worker.Expect<protocol::Submit>();
  service.Settle();
  EXPECT_TRUE(worker.Received<protocol::Submit>().empty());
  Answer(worker, submit.rid, {"first"});
  EXPECT_THAT(client.ReadReply().body, HasSubstr("first"));
  EXPECT_THAT(client.ReadReply().body, HasSubstr("\"list\""));
  Answer(worker, worker.Expect<protocol::Submit>().rid, {"second"});
  EXPECT_THAT(client.ReadReply().body, HasSubstr("second"));
  EXPECT_EQ(client.ReadReply().status, 404);
}

TEST(Server, AFloodOfPipelinedBytesDuringAnAnswerIsHeldBack) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(PostText("/v1/chat/completions", kHi));
  const auto submit = worker.Expect<protocol::Submit>();
  std::string flood;
  for (int i = 0; i < 400; ++i) flood += GetText("/v1/models");
  client.Send(flood);
  service.Settle();
  Answer(worker, submit.rid, {"x"});
  EXPECT_EQ(client.ReadReply().status, 200);
  for (int i = 0; i < 400; ++i) ASSERT_EQ(client.ReadReply().status, 200) << i;
}

TEST(Server, HealthAndReadiness) {
  auto settings = FakeService::DefaultSettings();
  settings.api_keys = {"secret"};
  FakeService service(settings);
  FakeClient client(service.port());
  client.Send(GetText("/health"));
  EXPECT_EQ(client.ReadReply().status, 200);
  client.Send(GetText("/ready"));
  EXPECT_EQ(client.ReadReply().status, 503);
  service.SetModel("a/b", ModelState::kReady);
  service.Settle();
  client.Send(GetText("/ready"));
  const HttpReply ready = client.ReadReply();
  EXPECT_EQ(ready.status, 200);
  EXPECT_EQ(json::parse(ready.body)["models"]["a/b"]["state"], "ready");
  client.Send(GetText("/v1/models"));
  const HttpReply refused = client.ReadReply();
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.headers.at("www-authenticate"), "Bearer");
  for (const char* path : {"/v1/models/a/b", "/v1/models/a%2Fb"}) {
    client.Send(GetText(path, "Authorization: bearer secret\r\n"));
    const HttpReply model = client.ReadReply();
    EXPECT_EQ(model.status, 200);
    EXPECT_EQ(json::parse(model.body)["id"], "a/b");
  }
  client.Send("HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const HttpReply head = client.ReadReply(true);
  EXPECT_EQ(head.status, 200);
  EXPECT_NE(head.headers.at("content-length"), "0");
  client.Send(GetText("/health"));  // no body of the HEAD in between
  EXPECT_EQ(client.ReadReply().status, 200);
}

TEST(Server, DrainLetsRunningAnswersEnd) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  service.SetModel("later", ModelState::kLoading);
  FakeClient running(service.port()), waiting(service.port()), probe(service.port());
  running.Send(PostText("/v1/chat/completions", kHiStream));
  const auto submit = worker.Expect<protocol::Submit>();
  worker.Send(protocol::Accepted{submit.rid, {1}});
  running.ReadUntil("assistant");
  waiting.Send(PostText("/v1/completions", R"({"model":"later","prompt":"p"})"));
  service.Settle();
  service.supervisor().Send(protocol::Drain{60});
  EXPECT_EQ(waiting.ReadReply().status, 503);
  probe.Send(GetText("/ready"));
  EXPECT_EQ(probe.ReadReply().status, 503);
  FakeClient late(service.port());
  late.Send(PostText("/v1/chat/completions", kHi));
  EXPECT_THAT(late.ReadReply().body, HasSubstr("shutting_down"));
  worker.Send(protocol::Event{submit.rid, 0, 1, {7}, "done"});
  worker.Send(PlainEnd(submit.rid, 2, 1));
  const HttpReply reply = running.ReadReply();
  EXPECT_TRUE(reply.complete);
  EXPECT_THAT(reply.body, HasSubstr("[DONE]"));
  service.supervisor().Expect<protocol::Drained>();
  EXPECT_EQ(service.WaitExit(), 0);
}

TEST(Server, DrainEndsAfterItsTime) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient running(service.port());
  running.Send(PostText("/v1/chat/completions", kHiStream));
  const auto submit = worker.Expect<protocol::Submit>();
  worker.Send(protocol::Accepted{submit.rid, {1}});
  running.ReadUntil("assistant");
  service.supervisor().Send(protocol::Drain{1});
  EXPECT_THAT(running.ReadReply().body, HasSubstr("shutting_down"));
  service.supervisor().Expect<protocol::Drained>();
  EXPECT_EQ(service.WaitExit(), 0);
}

TEST(Server, ExitsWithItsSupervisor) {
  FakeService service;
  service.CloseSupervisor();
  EXPECT_EQ(service.WaitExit(), 0);
}

TEST(Server, NewSettingsTakeEffect) {
  FakeService service;
  FakeClient client(service.port());
  client.Send(GetText("/v1/models"));
  EXPECT_EQ(client.ReadReply().status, 200);
  auto settings = FakeService::DefaultSettings();
  settings.api_keys = {"k"};
  service.supervisor().Send(settings);
  service.Settle();
  client.Send(GetText("/v1/models"));
  EXPECT_EQ(client.ReadReply().status, 401);
}

// --- /admin/cache
// ---------------------------------------------------------------------------------

TEST(Server, AsksTheWorkersOfTheirCaches) {
  FakeService service;
  FakePeer nano = service.AddWorker("nano");
  FakePeer other = service.AddWorker("other");
  FakeClient client(service.port());
  client.Send(GetText("/admin/cache/stats"));
  const auto of_nano = nano.Expect<protocol::CacheCommand>();
  const auto of_other = other.Expect<protocol::CacheCommand>();
  EXPECT_EQ(of_nano.operation, protocol::CacheOperation::kStats);
  EXPECT_EQ(of_nano.rid, of_other.rid);
  other.Send(protocol::CacheAnswer{of_other.rid, R"({"entries":2})"});
  nano.Send(protocol::CacheAnswer{of_nano.rid, R"({"entries":1})"});
  HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.headers.at("content-type"), "application/json");
  EXPECT_EQ(json::parse(reply.body),
            json::parse(R"({"models":{"nano":{"entries":1},"other":{"entries":2}}})"));
  // One alone, on the same connection.
  client.Send(PostText("/admin/cache/clear", R"({"model":"other","unused":true})"));
  const auto clear = other.Expect<protocol::CacheCommand>();
  EXPECT_EQ(clear.operation, protocol::CacheOperation::kClear);
  EXPECT_TRUE(clear.unused_only);
  other.Send(protocol::CacheAnswer{clear.rid, "{}"});
  reply = client.ReadReply();
  EXPECT_EQ(json::parse(reply.body), json::parse(R"({"models":{"other":{}}})"));
  EXPECT_TRUE(nano.Received<protocol::CacheCommand>().empty());
}

TEST(Server, AsksTheSupervisorOfTheMemory) {
  FakeService service;
  FakeClient client(service.port());
  client.Send(GetText("/admin/memory"));
  const auto query = service.supervisor().Expect<protocol::MemoryQuery>();
  service.supervisor().Send(protocol::MemoryReport{query.id + 1, "{}"});
  service.supervisor().Send(protocol::MemoryReport{query.id, R"({"budget_bytes":5})"});
  HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, R"({"budget_bytes":5})");
  client.Send(GetText("/admin/memory?model=nano"));
  EXPECT_EQ(client.ReadReply().status, 400) << "it takes no parameters";
  client.Send(PostText("/admin/memory", "{}"));
  EXPECT_EQ(client.ReadReply().status, 405);
}

TEST(Server, ACacheCallOutlivesAWorkerThatDoesNot) {
  FakeService service;
  auto worker = std::make_optional(service.AddWorker("nano"));
  FakeClient client(service.port());
  client.Send(GetText("/admin/cache/monitor?seconds=3600"));
  EXPECT_EQ(worker->Expect<protocol::CacheCommand>().seconds, 3600);
  worker.reset();
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(json::parse(reply.body)["models"]["nano"]["error"]["code"], "worker_lost");
}

TEST(Server, ACacheAnswerThatIsNoJsonIsABreach) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(GetText("/admin/cache/health"));
  worker.Send(protocol::CacheAnswer{worker.Expect<protocol::CacheCommand>().rid, "healthy"});
  EXPECT_EQ(json::parse(client.ReadReply().body)["models"]["nano"]["error"]["code"], "worker_lost");
  EXPECT_TRUE(worker.WaitClosed());
  EXPECT_EQ(service.supervisor().Expect<protocol::ChannelBroken>().model, "nano");
}

TEST(Server, RefusesCacheCallsThatAreNone) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  service.SetModel("later", ModelState::kLoading);
  service.Settle();
  struct Row {
    std::string request;
    int status;
    const char* code;
    const char* part;
  };
  for (const Row& row : std::vector<Row>{
           {PostText("/admin/cache/stats", "{}"), 405, "method_not_allowed",
            "takes GET, HEAD only"},
           {GetText("/admin/cache/clear"), 405, "method_not_allowed", "takes POST only"},
           {GetText("/admin/cache/erase"), 404, "not_found", "/admin/cache/erase"},
           {GetText("/admin/cache"), 404, "not_found", "/admin/cache"},
           {GetText("/admin/cache/stats?model=nobody"), 404, "model_not_found", "nobody"},
           {GetText("/admin/cache/stats?model=later"), 503, "model_loading", "later"},
           {GetText("/admin/cache/monitor?seconds=0"), 400, "invalid_request", "seconds"},
           {PostText("/admin/cache/clear", R"({"unused":1})"), 400, "invalid_request", "unused"}}) {
    FakeClient client(service.port());
    client.Send(row.request);
    const HttpReply reply = client.ReadReply();
    EXPECT_EQ(reply.status, row.status) << row.request;
    const json error = json::parse(reply.body)["error"];
    EXPECT_EQ(error["code"], row.code) << row.request;
    EXPECT_THAT(error["message"].get<std::string>(), HasSubstr(row.part)) << row.request;
    if (row.status == 405) {
      EXPECT_EQ(reply.headers.at("allow"),
                row.request.starts_with("GET") ? "POST, OPTIONS" : "GET, HEAD, OPTIONS");
    }
  }
  EXPECT_TRUE(worker.Received<protocol::CacheCommand>().empty());
}

TEST(Server, CachesAreForAdmins) {
  auto settings = FakeService::DefaultSettings();
  settings.admin_keys = {"boss"};
  settings.admin_token = "admin_token";
  FakeService service(settings);
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  const auto ask = [&client](const std::string& key) {
    client.Send(
        GetText("/admin/cache/stats", key.empty() ? "" : "Authorization: Bearer " + key + "\r\n"));
  };
  ask("");
  HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 401);
  EXPECT_TRUE(reply.headers.contains("www-authenticate"));
  EXPECT_THAT(reply.body, HasSubstr("perdure cache"));
  ask("somebody");
  EXPECT_EQ(client.ReadReply().status, 403);
  FakeClient changing(service.port());
  changing.Send(PostText("/admin/cache/clear", "{}"));
  EXPECT_EQ(changing.ReadReply().status, 401);
  EXPECT_TRUE(worker.Received<protocol::CacheCommand>().empty());
  for (const char* key : {"boss", "admin_token"}) {
    ask(key);
    worker.Send(protocol::CacheAnswer{worker.Expect<protocol::CacheCommand>().rid, "{}"});
    EXPECT_EQ(client.ReadReply().status, 200) << key;
  }
}

TEST(Server, ConversationsOfAllTenantsAreForAdmins) {
  auto settings = FakeService::DefaultSettings();
  FakeService service(settings);
  FakePeer worker = service.AddWorker("nano");
  settings.api_keys = {"somebody"};
  settings.admin_keys = {"boss"};
  settings.admin_token = "admin_token";
  service.supervisor().Send(settings);
  service.Settle();
  FakeClient client(service.port());
  const auto header = [](const std::string& key) {
    return key.empty() ? "" : "Authorization: Bearer " + key + "\r\n";
  };
  const auto status = [&](const std::string& request) {
    FakeClient another(service.port());
    another.Send(request);
    return another.ReadReply().status;
  };
  for (const auto& [key, refusal] : {std::pair("", 401), std::pair("somebody", 403)}) {
    for (const char* path : {"/admin/conversations", "/admin/conversations/a", "/admin/tenants"})
      EXPECT_EQ(status(GetText(path, header(key))), refusal) << path;
    EXPECT_EQ(status(PostText("/admin/conversations", "{}", header(key))), refusal);
    EXPECT_EQ(status(PostText("/admin/conversations/a/fork", "{}", header(key))), refusal);
    EXPECT_EQ(status("DELETE /admin/conversations?all=true HTTP/1.1\r\nHost: localhost\r\n" +
                     header(key) + "\r\n"),
              refusal);
  }
  EXPECT_TRUE(worker.Received<protocol::ConversationCommand>().empty());
  for (const char* key : {"boss", "admin_token"}) {
    client.Send(GetText("/admin/conversations?tenant=00000000000000ff", header(key)));
    const auto command = worker.Expect<protocol::ConversationCommand>();
    EXPECT_TRUE(command.of_all_tenants);
    EXPECT_EQ(command.owner, 0xffu);
    EXPECT_EQ(command.tenant, "");
    worker.Send(protocol::ConversationAnswer{command.rid, 0, "{}", {}});
    EXPECT_EQ(client.ReadReply().status, 200) << key;
  }
  // Nor is an admin's key one for /v1.
  EXPECT_EQ(status(GetText("/v1/conversations", header("boss"))), 401);
  client.Send(GetText("/v1/conversations", header("somebody")));
  const auto own = worker.Expect<protocol::ConversationCommand>();
  EXPECT_FALSE(own.of_all_tenants);
  EXPECT_NE(own.tenant, "");
  EXPECT_EQ(status(PostText("/admin/tenants", "{}", header("boss"))), 405);
}

TEST(Server, AKeysTenantGoesToTheWorker) {
  auto settings = FakeService::DefaultSettings();
  FakeService service(settings);
  FakePeer worker = service.AddWorker("nano");
  settings.api_keys = {"one", "two"};
  service.supervisor().Send(settings);
  service.Settle();
  std::vector<std::string> tenants;
  for (const char* key : {"one", "two", "one"}) {
    FakeClient client(service.port());
    client.Send(PostText("/v1/chat/completions", kHi,
                         "Authorization: Bearer " + std::string(key) + "\r\n"));
    const auto submit = worker.Expect<protocol::Submit>();
    tenants.push_back(submit.request.tenant);
    Answer(worker, submit.rid, {"x"});
    EXPECT_EQ(client.ReadReply().status, 200);
  }
  EXPECT_NE(tenants[0], tenants[1]);
  EXPECT_EQ(tenants[0], tenants[2]);
}

TEST(Server, ADrainEndsCacheCalls) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.Send(GetText("/admin/cache/monitor"));
  worker.Expect<protocol::CacheCommand>();
  service.supervisor().Send(protocol::Drain{1});
  EXPECT_EQ(json::parse(client.ReadReply().body)["models"]["nano"]["error"]["code"],
            "shutting_down");
  service.supervisor().Expect<protocol::Drained>();
  EXPECT_EQ(service.WaitExit(), 0);
}

}  // namespace
}  // namespace perdure::frontend
