// Clients that are broken, slow, many, or up to no good.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/limits.h"
#include "fake_service.h"

namespace perdure::frontend {
namespace {

using nlohmann::json;
using protocol::ModelState;
using ::testing::HasSubstr;

TEST(HostileClients, MalformedHttpGetsAClearErrorAndTheConnectionEnds) {
  struct Row {
    std::string bytes;
    int status;
  };
  const std::string json_post =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  std::string many_headers;
  for (size_t i = 0; i <= limits::kHttpHeadersMax; ++i) many_headers += "a: b\r\n";
  const std::vector<Row> rows = {
      {"NONSENSE\r\n\r\n", 400},
      {"GET / HTTP/3.0\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400},
      {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15), 400},
      {json_post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {json_post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
      {json_post + "Content-Length: -1\r\n\r\n", 400},
      {json_post + "Transfer-Encoding: gzip\r\n\r\n", 400},
      {json_post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
      {json_post + "Content-Length: 99999999\r\n\r\n", 413},
      {json_post + "Transfer-Encoding: chunked\r\n\r\nfffffff\r\n", 413},
      {json_post + "a: " + std::string(20'000, 'x') + "\r\n\r\n", 431},
      {std::string(70'000, 'x'), 431},
      {json_post + many_headers + "\r\n", 431},
      {"GET /" + std::string(5000, 'x') + " HTTP/1.1\r\nHost: localhost\r\n\r\n", 431},
      {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
       "text/plain\r\nContent-Length: 5\r\n\r\n",
       415},
      {"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
       "application/x-www-form-urlencoded\r\nContent-Length: 5\r\n\r\n",
       415},
      {json_post + "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n", 415},
      {json_post + "Expect: the unexpected\r\nContent-Length: 5\r\n\r\n", 400},
  };
  FakeService service;
  for (const Row& row : rows) {
    FakeClient client(service.port());
    client.Send(row.bytes);
    const HttpReply reply = client.ReadReply();
    const std::string shown = row.bytes.substr(0, 200);
    EXPECT_EQ(reply.status, row.status) << shown;
    ASSERT_TRUE(reply.complete) << shown;
    const json error = json::parse(reply.body)["error"];
    for (const char* field : {"message", "type", "param", "code"})
      EXPECT_TRUE(error.contains(field)) << shown;
    EXPECT_THAT(reply.headers.at("x-request-id"), testing::StartsWith("req_"));
    EXPECT_EQ(reply.headers.at("connection"), "close") << shown;
    EXPECT_TRUE(client.WaitClosed()) << shown;
  }
}

TEST(HostileClients, RefusalsThatLeaveTheConnectionUsable) {
  struct Row {
    std::string bytes;
    int status;
  };
  FakeService service;
  service.SetModel("nano", ModelState::kReady);
  service.Settle();
  const std::vector<Row> rows = {
      {GetText("/nowhere"), 404},
      {GetText("/"), 404},
      {GetText("/v1/models/"), 404},
      {GetText("/v1/models/x"), 404},
      {GetText("/v1/models/%zz"), 400},
      {GetText("/v1/chat/completions"), 405},
      {"DELETE /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
      {"PRINT /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
      {GetText("http://localhost/v1/models"), 400},
      {"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\n\r\n", 400},
      {"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403},
      {GetText("/health", "Origin: http://evil.example\r\n"), 403},
      {PostText("/v1/completions", ""), 400},
      {PostText("/v1/completions", "{\"prompt\":1}"), 400},
      {PostText("/v1/completions", R"({"prompt":"x","model":"../../x"})"), 404},
      {PostText("/v1/chat/completions", std::string(100'000, '[')), 400},
      {GetText("/v1/models?x=y"), 200},
  };
  FakeClient client(service.port());
  for (const Row& row : rows) {
    client.Send(row.bytes);
    const HttpReply reply = client.ReadReply();
    ASSERT_EQ(reply.status, row.status) << row.bytes.substr(0, 200);
    EXPECT_EQ(reply.headers.at("connection"), "keep-alive") << row.bytes.substr(0, 200);
    EXPECT_TRUE(json::accept(reply.body)) << reply.body;
  }
  // Bodies of requests that the header condemns are not read.
  for (const Row& row : std::vector<Row>{
           {PostText("/v1/models", "{}"), 405},
           {PostText("/v1/nowhere", "{}"), 404},
           {PostText("/v1/completions", "{}", "Origin: null\r\n"), 403},
       }) {
    FakeClient other(service.port());
    other.Send(row.bytes);
    const HttpReply reply = other.ReadReply();
    EXPECT_EQ(reply.status, row.status);
    EXPECT_EQ(reply.headers.at("connection"), "close");
    EXPECT_TRUE(other.WaitClosed());
  }
  client.Send(PostText("/v1/completions", R"({"prompt":"x","model":"y"})"));
  const json error = json::parse(client.ReadReply().body)["error"];
  EXPECT_EQ(error["code"], "model_not_found");
  EXPECT_THAT(error["message"].get<std::string>(), HasSubstr("nano"));
}

TEST(HostileClients, ATooLargeBodyIsAnsweredWhileItStillComes) {
  FakeService service;
  FakeClient client(service.port());
  const std::string body(4 << 20, ' ');
  client.Send(PostText("/v1/completions", body));
  EXPECT_EQ(client.ReadReply().status, 413);
}

TEST(HostileClients, ExpectContinue) {
  FakeService service;
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  const std::string head =
      "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
      "Content-Length: 14\r\n\r\n";
  client.Send(head);
  EXPECT_THAT(client.ReadUntil("\r\n\r\n"), HasSubstr("100 Continue"));
  client.Send(R"({"prompt":"x"})");
  Answer(worker, worker.Expect<protocol::Submit>().rid, {"y"});
  EXPECT_EQ(client.ReadReply().status, 200);
  // A refusal comes instead of the 100.
  client.Send(
      "POST /v1/nowhere HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
      "Content-Length: 14\r\n\r\n");
  EXPECT_EQ(client.ReadReply().status, 404);
  EXPECT_TRUE(client.WaitClosed());
}

TEST(HostileClients, SlowOnesAreTimedOut) {
  auto settings = FakeService::DefaultSettings();
  settings.header_timeout_s = 1;
  settings.idle_timeout_s = 1;
  FakeService service(settings);
  FakeClient silent(service.port()), header(service.port()), body(service.port()),
      idle(service.port());
  header.Send("POST /v1/completions HTTP/1.1\r\nHo");
  body.Send("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
  idle.Send(GetText("/health"));
  EXPECT_EQ(header.ReadReply().status, 408);
  EXPECT_EQ(body.ReadReply().status, 408);
  EXPECT_EQ(idle.ReadReply().status, 200);
  EXPECT_TRUE(header.WaitClosed());
  EXPECT_TRUE(body.WaitClosed());
  EXPECT_TRUE(silent.WaitClosed());
  EXPECT_TRUE(idle.WaitClosed());
}

TEST(HostileClients, AByteAtATimeDoesNotExtendTheTime) {
  auto settings = FakeService::DefaultSettings();
  settings.header_timeout_s = 1;
  FakeService service(settings);
  FakeClient client(service.port());
  const std::string header = "GET /health HTTP/1.1\r\nHost: localhost\r\n";
  const int64_t deadline_ms = MonotonicMs() + kTestDeadlineMs;

  client.Send(header);
  bool alive = true;
  for (size_t i = 0; alive && MonotonicMs() < deadline_ms; ++i) {
    alive = client.TrySend("a");
    usleep(20'000);
  }
  EXPECT_FALSE(alive) << "the connection was kept open";
}

size_t OpenDescriptors(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/fd";
  DIR* dir = opendir(path.c_str());
  if (!dir) return 0;
  size_t count = 0;
  while (readdir(dir)) ++count;
  closedir(dir);
  return count;
}

TEST(HostileClients, TenThousandIdleConnectionsAreBounded) {
  constexpr size_t kConnections = 10'000;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  // Where the system allows fewer, fewer are open at a time; as many are made.
  const size_t at_a_time = std::min<size_t>(kConnections, limit.rlim_cur - 200);

  auto settings = FakeService::DefaultSettings();
  settings.connections_max = 100;
  FakeService service(settings);
  std::deque<FakeClient> clients;
  size_t most = 0;
  for (size_t i = 0; i < kConnections; ++i) {
    if (clients.size() == at_a_time) clients.pop_front();
    clients.emplace_back(service.port());
    if (i % 1000 == 999) most = std::max(most, OpenDescriptors(service.pid()));
  }
  EXPECT_LE(most, 100 + limits::kHttpRefusedConnectionsMax + 40);
  // The first ones are served.
  if (at_a_time == kConnections) {
    clients[5].Send(GetText("/health"));
    EXPECT_EQ(clients[5].ReadReply().status, 200);
  }
  clients.clear();
  const int64_t deadline_ms = MonotonicMs() + kTestDeadlineMs;
  int status = 0;
  while (status != 200 && MonotonicMs() < deadline_ms) {
    service.Settle();
    FakeClient next(service.port());
    if (next.TrySend(GetText("/health"))) status = next.ReadReply().status;
  }
  EXPECT_EQ(status, 200);
}

TEST(HostileClients, OneConnectionTooManyIsToldSo) {
  auto settings = FakeService::DefaultSettings();
  settings.connections_max = 1;
  FakeService service(settings);
  FakeClient first(service.port());
  first.Send(GetText("/health"));
  EXPECT_EQ(first.ReadReply().status, 200);
  FakeClient second(service.port());
  const HttpReply reply = second.ReadReply();
  EXPECT_EQ(reply.status, 503);
  EXPECT_TRUE(reply.headers.contains("retry-after"));
  EXPECT_TRUE(second.WaitClosed());
  first.Send(GetText("/health"));
  EXPECT_EQ(first.ReadReply().status, 200);
}

TEST(HostileClients, ConnectionsThatOnlyIdleMakeRoom) {
  auto settings = FakeService::DefaultSettings();
  settings.connections_max = 1;
  FakeService service(settings);
  FakeClient idle(service.port());
  idle.Send(GetText("/health"));
  EXPECT_EQ(idle.ReadReply().status, 200);
  const int64_t deadline_ms = MonotonicMs() + kTestDeadlineMs;
  int status = 503;
  while (status == 503 && MonotonicMs() < deadline_ms) {
    service.Settle();
    FakeClient next(service.port());
    if (next.TrySend(GetText("/health"))) status = next.ReadReply().status;
  }
  EXPECT_EQ(status, 200);
  EXPECT_TRUE(idle.WaitClosed());
}

TEST(HostileClients, PagesOfAllowedOriginsMayRead) {
  auto settings = FakeService::DefaultSettings();
  settings.allowed_hosts = {"ui.example"};
  settings.api_keys = {"k"};
  FakeService service(settings);
  FakeClient client(service.port());
  client.Send(
      "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
      "Origin: https://ui.example\r\nAccess-Control-Request-Method: POST\r\n"
      "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n\r\n");
  const HttpReply preflight = client.ReadReply();
  EXPECT_EQ(preflight.status, 204);
  EXPECT_EQ(preflight.headers.at("access-control-allow-origin"), "https://ui.example");
  EXPECT_EQ(preflight.headers.at("access-control-allow-headers"),
            "authorization,content-type,x-stainless-os");
  client.Send(GetText("/v1/models", "Origin: https://ui.example\r\n"));
  const HttpReply refused = client.ReadReply();
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.headers.at("access-control-allow-origin"), "https://ui.example");
  client.Send(GetText("/health", "Origin: https://evil.example\r\n"));
  const HttpReply foreign = client.ReadReply();
  EXPECT_EQ(foreign.status, 403);
  EXPECT_FALSE(foreign.headers.contains("access-control-allow-origin"));
}

TEST(HostileClients, AHalfClosedClientStillGetsAnImmediateResponse) {
  FakeService service;
  FakeClient client(service.port());
  client.Send(GetText("/health"));
  client.ShutdownWrite();
  EXPECT_EQ(client.ReadReply().status, 200);
  EXPECT_TRUE(client.WaitClosed());
}

}  // namespace
}  // namespace perdure::frontend
