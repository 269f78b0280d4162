// Files of conversations through a real frontend: what a worker hands out, what clients send, and
// clients that do neither.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"
#include "base/private_file.h"
#include "fake_service.h"
#include "tests/base/temp_folder.h"

namespace perdure::frontend {
namespace {

using nlohmann::json;
using testing::HasSubstr;

std::string Pattern(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 31 + i / 251);
  return text;
}

std::string UploadText(const std::string& body, const std::string& more = "",
                       const std::string& type = "application/octet-stream") {
  return "POST /v1/conversations/import?id=new HTTP/1.1\r\nHost: localhost\r\nContent-Type: " +
         type + "\r\n" + more + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

class ServerFilesTest : public testing::Test {
 protected:
  explicit ServerFilesTest(protocol::FrontendSettings settings = FakeService::DefaultSettings())
      : service_([&] {
          settings.upload_dir = folder_.path().string();
          return settings;
        }()) {}

  UniqueFd FileOf(const std::string& bytes) const {
    UniqueFd fd = OpenUnlinkedFile(folder_.path()).value();
    EXPECT_TRUE(WriteAll(fd.get(), bytes, "the file"));
    return fd;
  }
  static std::string BytesIn(const UniqueFd& fd) {
    std::string bytes(BytesOfFile(fd.get(), "it").value_or(0), '\0');
    EXPECT_TRUE(ReadAt(fd.get(), 0, std::as_writable_bytes(std::span(bytes)), "it"));
    return bytes;
  }
  // What a worker answers to an export.
  void HandOut(FakePeer& worker, const std::string& bytes) const {
    const auto command = worker.Expect<protocol::ConversationFileCommand>();
    worker.Send(protocol::ConversationFile{command.rid, command.id, bytes.size()}, FileOf(bytes));
  }

  TempFolder folder_;
  FakeService service_;
};

// --- Sent --------------------------------------------------------------------------------------

TEST_F(ServerFilesTest, AnExportIsADownload) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  for (const size_t bytes :
       {size_t{0}, size_t{1}, limits::kFilePieceBytes, 5 * limits::kFilePieceBytes + 77}) {
    client.Send(GetText("/v1/conversations/a%22%2F%C3%B6/export?kv=false"));
    const auto command = worker.Expect<protocol::ConversationFileCommand>();
    EXPECT_EQ(command.operation, protocol::ConversationFileOperation::kExport);
    EXPECT_EQ(command.id, "a\"/\xC3\xB6");
    EXPECT_FALSE(command.kv);
    const std::string text = Pattern(bytes);
    worker.Send(protocol::ConversationFile{command.rid, command.id, bytes}, FileOf(text));
    HttpReply reply = client.ReadReply();
    EXPECT_EQ(reply.status, 200);
    EXPECT_TRUE(reply.complete);
    EXPECT_TRUE(reply.body == text) << reply.body.size();
    EXPECT_EQ(reply.headers["content-type"], "application/octet-stream");
    EXPECT_EQ(reply.headers["content-length"], std::to_string(bytes));
    EXPECT_EQ(reply.headers["content-disposition"],
              "attachment; filename=\"a%22%2F%C3%B6.perdure\"; "
              "filename*=UTF-8''a%22%2F%C3%B6.perdure");
    EXPECT_EQ(reply.headers["connection"], "keep-alive");
  }
}

TEST_F(ServerFilesTest, AnErrorIsOneOfJson) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  client.Send(GetText("/v1/conversations/a/export"));
  const auto command = worker.Expect<protocol::ConversationFileCommand>();
  worker.Send(protocol::ConversationAnswer{
      command.rid, static_cast<uint16_t>(ErrorCode::insufficient_storage), "no room", ""});
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 507);
  EXPECT_EQ(json::parse(reply.body)["error"]["code"], "insufficient_storage");
}

TEST_F(ServerFilesTest, AClientThatReadsNothingDisturbsNobody) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient stuck(service_.port(), 4096);
  stuck.Send(GetText("/v1/conversations/a/export"));
  HandOut(worker, Pattern(size_t{32} << 20));
  FakeClient other(service_.port());
  const std::string text = Pattern(size_t{4} << 20);
  for (int i = 0; i < 3; ++i) {
    other.Send(GetText("/v1/conversations/b/export"));
    HandOut(worker, text);
    EXPECT_TRUE(other.ReadReply().body == text);
  }
  other.Send(GetText("/health"));
  EXPECT_EQ(other.ReadReply().status, 200);
  // And the other way round: it has all, later.
  const HttpReply reply = stuck.ReadReply();
  EXPECT_TRUE(reply.complete);
  EXPECT_TRUE(reply.body == Pattern(size_t{32} << 20));
}

class ServerSlowFilesTest : public ServerFilesTest {
 protected:
  ServerSlowFilesTest()
      : ServerFilesTest([] {
          auto settings = FakeService::DefaultSettings();
          settings.slow_client_timeout_s = 1;
          return settings;
        }()) {}
};

TEST_F(ServerSlowFilesTest, AClientThatReadsNothingIsDisconnected) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient stuck(service_.port(), 4096);
  stuck.Send(GetText("/v1/conversations/a/export"));
  HandOut(worker, Pattern(size_t{16} << 20));
  stuck.ReadUntil("\r\n\r\n");
  // Nothing is read of it: that its connection is closed shows at the other end alone.
  const auto descriptors = [&] {
    const std::filesystem::path folder = "/proc/" + std::to_string(service_.pid()) + "/fd";
    return std::distance(std::filesystem::directory_iterator(folder),
                         std::filesystem::directory_iterator());
  };
  const auto before = descriptors();
  const int64_t end_ms = MonotonicMs() + kTestDeadlineMs;
  while (descriptors() > before - 2 && MonotonicMs() < end_ms) service_.Settle();
  EXPECT_EQ(descriptors(), before - 2) << "its socket and its file";
  EXPECT_LT(stuck.ReadAll().size(), size_t{16} << 20);
}

TEST_F(ServerFilesTest, AClientThatLeavesIsToldToTheWorker) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  client.Send(GetText("/v1/conversations/a/export"));
  const auto command = worker.Expect<protocol::ConversationFileCommand>();
  client.Reset();
  EXPECT_EQ(worker.Expect<protocol::Cancel>().rid, command.rid);
  // What comes all the same is dropped.
  worker.Send(protocol::ConversationFile{command.rid, "a", 5}, FileOf("12345"));
  service_.Settle();
}

TEST_F(ServerFilesTest, OneThatLeavesInTheMiddleLeavesNothing) {
  FakePeer worker = service_.AddWorker("nano");
  for (size_t i = 0; i <= limits::kFileTransfersMax; ++i) {
    FakeClient client(service_.port(), 4096);
    client.Send(GetText("/v1/conversations/a/export"));
    HandOut(worker, Pattern(size_t{1} << 20));
    client.ReadUntil("\r\n\r\n");
    client.Reset();
    service_.Settle();
  }
  FakeClient client(service_.port());
  client.Send(GetText("/v1/conversations/a/export"));
  HandOut(worker, "hello");
  EXPECT_EQ(client.ReadReply().body, "hello") << "each has given its place back";
}

TEST_F(ServerFilesTest, ThereAreOnlySoManyAtATime) {
  FakePeer worker = service_.AddWorker("nano");
  std::vector<std::unique_ptr<FakeClient>> clients;
  for (size_t i = 0; i < limits::kFileTransfersMax; ++i) {
    clients.push_back(std::make_unique<FakeClient>(service_.port(), 4096));
    clients.back()->Send(GetText("/v1/conversations/a/export"));
    HandOut(worker, Pattern(size_t{8} << 20));
    clients.back()->ReadUntil("\r\n\r\n");
  }
  FakeClient late(service_.port());
  late.Send(GetText("/v1/conversations/a/export"));
  HandOut(worker, "hello");
  EXPECT_EQ(late.ReadReply().status, 429);
  late.Send(UploadText("body"));
  EXPECT_EQ(late.ReadReply().status, 429);
}

TEST_F(ServerFilesTest, AFileThatIsShorterThanToldIsCutShort) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  client.Send(GetText("/v1/conversations/a/export"));
  const auto command = worker.Expect<protocol::ConversationFileCommand>();
  worker.Send(protocol::ConversationFile{command.rid, "a", 100}, FileOf("short"));
  EXPECT_FALSE(client.ReadReply().complete);
  EXPECT_TRUE(client.WaitClosed());
}

// --- Received ----------------------------------------------------------------------------------

TEST_F(ServerFilesTest, AnUploadReachesTheWorkerAsAFile) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  for (const size_t bytes : {size_t{1}, size_t{70'000}, size_t{8} << 20}) {
    const std::string text = Pattern(bytes);
    client.Send(UploadText(text));
    const auto [upload, fd] = worker.ExpectWithFd<protocol::ConversationUpload>();
    EXPECT_EQ(upload.id, "new");
    ASSERT_TRUE(fd);
    EXPECT_TRUE(BytesIn(fd) == text);
    worker.Send(protocol::ConversationAnswer{upload.rid, 0, R"({"id":"new"})", ""});
    const HttpReply reply = client.ReadReply();
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, R"({"id":"new"})");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path())) << "it never has a name";
}

TEST_F(ServerFilesTest, AnUploadMayComeInChunks) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  client.Send(
      "POST /v1/conversations/import HTTP/1.1\r\nHost: localhost\r\n"
      "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
  client.ReadUntil("100 Continue");
  std::string all;
  for (int i = 0; i < 40; ++i) {
    const std::string piece = Pattern(static_cast<size_t>(1000 + i * 777));
    char size[16];
    snprintf(size, sizeof size, "%zx\r\n", piece.size());
    client.Send(size + piece + "\r\n");
    all += piece;
  }
  client.Send("0\r\n\r\n");
  const auto [upload, fd] = worker.ExpectWithFd<protocol::ConversationUpload>();
  EXPECT_TRUE(BytesIn(fd) == all);
}

TEST_F(ServerFilesTest, WhatFollowsAnUploadIsTheNextRequest) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  client.Send(UploadText(Pattern(100'000)) + GetText("/health"));
  const auto [upload, fd] = worker.ExpectWithFd<protocol::ConversationUpload>();
  EXPECT_EQ(BytesIn(fd).size(), 100'000u);
  worker.Send(protocol::ConversationAnswer{upload.rid, 0, "{}", ""});
  EXPECT_EQ(client.ReadReply().body, "{}");
  EXPECT_EQ(client.ReadReply().status, 200);
}

TEST_F(ServerFilesTest, AnUploadHasItsOwnBounds) {
  FakePeer worker = service_.AddWorker("nano");
  const auto status_of = [&](const std::string& text) {
    FakeClient client(service_.port());
    client.TrySend(text);
    return client.ReadReply().status;
  };
  const std::string head = "POST /v1/conversations/import HTTP/1.1\r\nHost: localhost\r\n";
  EXPECT_EQ(status_of(head + "Content-Length: 8388609\r\n\r\n"), 413);
  EXPECT_EQ(status_of(head + "Content-Length: 99999999999999\r\n\r\n"), 413);
  // Without a length it is noticed when it is there.
  FakeClient chunked(service_.port());
  chunked.Send(head + "Transfer-Encoding: chunked\r\n\r\n");
  bool is_open = true;
  for (int i = 0; i < 9 && is_open; ++i) {
    is_open = chunked.TrySend("100000\r\n");
    is_open = is_open && chunked.TrySend(std::string(1 << 20, 'x'));
    is_open = is_open && chunked.TrySend("\r\n");
    service_.Settle();
  }
  EXPECT_EQ(chunked.ReadReply().status, 413);
  // Others keep theirs.
  EXPECT_EQ(status_of("POST /v1/conversations HTTP/1.1\r\nHost: localhost\r\n"
                      "Content-Length: 1048577\r\n\r\n"),
            413);
  EXPECT_EQ(status_of(UploadText("x", "", "application/json")), 415);
  EXPECT_EQ(status_of(UploadText("")), 400);
}

TEST_F(ServerFilesTest, PathsOfConversationsStayTheirOwn) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  for (const char* id : {"import", "load"}) {
    client.Send(GetText(std::string("/v1/conversations/") + id));
    const auto command = worker.Expect<protocol::ConversationCommand>();
    EXPECT_EQ(command.id, id);
    worker.Send(protocol::ConversationAnswer{command.rid, 0, "{}", ""});
    EXPECT_EQ(client.ReadReply().status, 200);
  }
  client.Send("PUT /v1/conversations/load HTTP/1.1\r\nHost: localhost\r\n\r\n");
  HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 405);
  EXPECT_EQ(reply.headers["allow"], "GET, HEAD, POST, DELETE, OPTIONS");
  client.Send("HEAD /v1/conversations/a/export HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_EQ(client.ReadReply(true).status, 405);
}

TEST_F(ServerFilesTest, AnUploadThatEndsTooEarlyIsForgotten) {
  FakePeer worker = service_.AddWorker("nano");
  for (size_t i = 0; i <= limits::kFileTransfersMax; ++i) {
    FakeClient client(service_.port());
    client.Send(UploadText(Pattern(300'000)).substr(0, 200'000));
    client.Close();
  }
  service_.Settle();
  FakeClient client(service_.port());
  client.Send(UploadText("body"));
  const auto [upload, fd] = worker.ExpectWithFd<protocol::ConversationUpload>();
  EXPECT_EQ(BytesIn(fd), "body");
}

TEST_F(ServerFilesTest, ADiskWithoutRoomIsSaid) {
  FakePeer worker = service_.AddWorker("nano");
  struct rlimit limits {};
  ASSERT_EQ(prlimit(service_.pid(), RLIMIT_FSIZE, nullptr, &limits), 0);
  struct rlimit lower = limits;
  lower.rlim_cur = 100'000;
  ASSERT_EQ(prlimit(service_.pid(), RLIMIT_FSIZE, &lower, nullptr), 0);
  FakeClient client(service_.port());
  client.TrySend(UploadText(Pattern(1'000'000)));
  const HttpReply reply = client.ReadReply();
  EXPECT_EQ(reply.status, 507);
  EXPECT_THAT(reply.body, HasSubstr("The disk has no room"));
  ASSERT_EQ(prlimit(service_.pid(), RLIMIT_FSIZE, &limits, nullptr), 0);
  FakeClient again(service_.port());
  again.Send(UploadText(Pattern(1'000'000)));
  EXPECT_TRUE(worker.ExpectWithFd<protocol::ConversationUpload>().second);
}

class ServerNoFolderTest : public testing::Test {};

TEST_F(ServerNoFolderTest, AFolderThatIsNotThereIsAnErrorOfThatRequestAlone) {
  auto settings = FakeService::DefaultSettings();
  settings.upload_dir = "/nonexistent";
  FakeService service(settings);
  FakePeer worker = service.AddWorker("nano");
  FakeClient client(service.port());
  client.TrySend(UploadText("body"));
  EXPECT_EQ(client.ReadReply().status, 500);
  FakeClient other(service.port());
  other.Send(GetText("/health"));
  EXPECT_EQ(other.ReadReply().status, 200);
}

class ServerTrickleTest : public ServerFilesTest {
 protected:
  ServerTrickleTest()
      : ServerFilesTest([] {
          auto settings = FakeService::DefaultSettings();
          settings.header_timeout_s = 1;
          return settings;
        }()) {}
};

TEST_F(ServerTrickleTest, AnUploadThatStandsStillIsGivenUp) {
  FakePeer worker = service_.AddWorker("nano");
  FakeClient client(service_.port());
  client.Send(UploadText(Pattern(300'000)).substr(0, 200'000));
  EXPECT_EQ(client.ReadReply().status, 408);
}

}  // namespace
}  // namespace perdure::frontend
