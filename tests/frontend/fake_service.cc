#include "fake_service.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>

#include "base/clock.h"
#include "frontend/frontend.h"
#include "protocol/heritage.h"

namespace perdure::frontend {
namespace {

bool PollFor(int fd, short events, int timeout_ms) {
  pollfd p{fd, events, 0};
  return poll(&p, 1, timeout_ms) > 0;
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return tolower(c); });
  return text;
}

}  // namespace

// --- FakePeer -----------------------------------------------------------------------------------

bool FakePeer::Pump(int timeout_ms) {
  if (closed_ || !PollFor(channel_.fd(), POLLIN, timeout_ms)) return false;
  auto outcome = channel_.OnReadable();
  for (auto& received : outcome.frames) {
    frames_.push_back(std::move(received.frame));
    fds_.push_back(std::move(received.fd));
  }
  closed_ = outcome.closed;
  return true;
}

std::string FakePeer::WaitFor(protocol::MessageType type) {
  const int64_t deadline_ms = MonotonicMs() + kTestDeadlineMs;
  while (true) {
    const auto it = std::find_if(frames_.begin(), frames_.end(),
                                 [type](const auto& frame) { return frame.type == type; });
    if (it != frames_.end()) {
      std::string payload = std::move(it->payload);
      const auto fd = fds_.begin() + (it - frames_.begin());
      last_fd_ = std::move(*fd);
      fds_.erase(fd);
      frames_.erase(it);
      return payload;
    }
    if (closed_ || MonotonicMs() > deadline_ms) {
      ADD_FAILURE() << "no frame of type " << static_cast<int>(type) << " came"
                    << (closed_ ? ": closed" : "");
      return {};
    }
    Pump(100);
  }
}

bool FakePeer::WaitClosed() {
  const int64_t deadline_ms = MonotonicMs() + kTestDeadlineMs;
  while (!closed_ && MonotonicMs() < deadline_ms) Pump(100);
  return closed_;
}

void FakePeer::FlushAll() {
  while (channel_.wants_write()) {
    if (!PollFor(channel_.fd(), POLLOUT, kTestDeadlineMs)) {
      ADD_FAILURE() << "the frontend does not read its channel";
      return;
    }
    channel_.OnWritable();
  }
}

// --- FakeClient ---------------------------------------------------------------------------------

FakeClient::FakeClient(int port, int receive_buffer_bytes)
    : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (receive_buffer_bytes > 0)
    setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes,
               sizeof receive_buffer_bytes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0)
      << strerror(errno);
}

void FakeClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) {
      ADD_FAILURE() << "send: " << strerror(errno);
      return;
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
}

bool FakeClient::TrySend(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void FakeClient::ShutdownWrite() { shutdown(socket_.get(), SHUT_WR); }

void FakeClient::Reset() {
  const linger now{1, 0};
  setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  socket_.reset();
}

bool FakeClient::ReadMore(int timeout_ms) {
  if (ended_) return false;
  if (!PollFor(socket_.get(), POLLIN, timeout_ms)) {
    ADD_FAILURE() << "nothing came; so far: " << input_.substr(0, 2000);
    ended_ = true;
    return false;
  }
  char buffer[65536];
  const ssize_t n = recv(socket_.get(), buffer, sizeof buffer, 0);
  if (n <= 0) {
    ended_ = true;
    return false;
  }
  input_.append(buffer, static_cast<size_t>(n));
  return true;
}

HttpReply FakeClient::ReadReply(bool head_only) {
  HttpReply reply;
  while (true) {
    size_t end;
    while ((end = input_.find("\r\n\r\n")) == std::string::npos)
      if (!ReadMore()) return reply;
    const std::string head = input_.substr(0, end + 2);
    input_.erase(0, end + 4);
    reply.status = head.size() > 12 ? atoi(head.c_str() + 9) : 0;
    if (reply.status == 100) continue;
    for (size_t line = head.find("\r\n") + 2; line < head.size();) {
      const size_t line_end = head.find("\r\n", line);
      const size_t colon = head.find(": ", line);
      reply.headers[Lower(head.substr(line, colon - line))] =
          head.substr(colon + 2, line_end - colon - 2);
      line = line_end + 2;
    }
    break;
  }
  if (head_only || reply.status == 204) {
    reply.complete = true;
  } else if (reply.headers.contains("content-length")) {
    const size_t length = std::stoul(reply.headers["content-length"]);
    while (input_.size() < length)
      if (!ReadMore()) return reply;
    reply.body = input_.substr(0, length);
    input_.erase(0, length);
    reply.complete = true;
  } else if (reply.headers["transfer-encoding"] == "chunked") {
    while (true) {
      size_t eol;
      while ((eol = input_.find("\r\n")) == std::string::npos)
        if (!ReadMore()) return reply;
      const size_t size = std::stoul(input_.substr(0, eol), nullptr, 16);
      while (input_.size() < eol + 2 + size + 2)
        if (!ReadMore()) return reply;
      reply.body += input_.substr(eol + 2, size);
      input_.erase(0, eol + 2 + size + 2);
      if (size == 0) break;
    }
    reply.complete = true;
  } else {
    while (ReadMore()) {
    }
    reply.body = std::move(input_);
    input_.clear();
    reply.complete = true;
  }
  return reply;
}

std::string FakeClient::ReadUntil(std::string_view text) {
  while (input_.find(text) == std::string::npos) {
    if (!ReadMore()) {
      ADD_FAILURE() << "closed without \"" << text << "\": " << input_.substr(0, 2000);
      break;
    }
  }
  return input_;
}

std::string FakeClient::ReadAll() {
  while (ReadMore()) {
  }
  return std::exchange(input_, {});
}

bool FakeClient::WaitClosed() {
  const int64_t deadline_ms = MonotonicMs() + kTestDeadlineMs;
  while (!ended_ && MonotonicMs() < deadline_ms) ReadMore();
  return ended_;
}

std::string PostText(std::string_view path, std::string_view json, std::string_view more_headers) {
  return "POST " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\n" +
         "Content-Type: application/json\r\n" + std::string(more_headers) +
         "Content-Length: " + std::to_string(json.size()) + "\r\n\r\n" + std::string(json);
}

std::string GetText(std::string_view path, std::string_view more_headers) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: localhost\r\n" +
         std::string(more_headers) + "\r\n";
}

// --- FakeService --------------------------------------------------------------------------------

protocol::FrontendSettings FakeService::DefaultSettings() {
  protocol::FrontendSettings settings;
  settings.host = "127.0.0.1";
  settings.body_bytes_max = 1 << 20;
  settings.upload_bytes_max = 8 << 20;
  settings.upload_dir = std::filesystem::temp_directory_path().string();
  settings.connections_max = 256;
  settings.queue_max = 64;
  settings.header_timeout_s = 60;
  settings.idle_timeout_s = 120;
  settings.sse_comment_s = 60;
  settings.slow_client_timeout_s = 60;
  settings.drain_timeout_s = 60;
  settings.log_level = "warning";
  return settings;
}

FakeService::FakeService(protocol::FrontendSettings settings, bool tell_roster) {
  UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  EXPECT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(listen(listener.get(), 4096), 0);
  EXPECT_EQ(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  port_ = ntohs(address.sin_port);
  settings.port = port_;

  auto pair = protocol::MakeChannelPair();
  EXPECT_TRUE(pair);
  auto status = shm::StatusBlock::Create();
  EXPECT_TRUE(status);
  status_.emplace(std::move(*status));

  protocol::Heritage heritage;
  heritage.instance = "test";
  heritage.log_level = settings.log_level;
  heritage.supervisor_pid = getpid();
  heritage.control_fd = pair->b.get();
  heritage.status_fd = status_->fd();
  heritage.frontend = protocol::FrontendHeritage{listener.get(), settings};

  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    // As after an exec: the test's other descriptors would keep channels open.
    for (int fd = 3; fd < 1024; ++fd) {
      if (fd != listener.get() && fd != heritage.control_fd && fd != heritage.status_fd) close(fd);
    }
    (void)listener.release();
    (void)pair->b.release();
    _exit(RunFrontend(heritage));
  }
  pair->b.reset();
  supervisor_.emplace(std::move(pair->a));
  supervisor_->Expect<protocol::FrontendReady>();
  if (tell_roster) supervisor_->Send(roster_);
}

FakeService::~FakeService() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void FakeService::SetModel(const std::string& name, protocol::ModelState state, uint32_t epoch,
                           std::string reason) {
  auto it = std::find_if(roster_.models.begin(), roster_.models.end(),
                         [&name](const auto& model) { return model.name == name; });
  if (it == roster_.models.end()) {
    roster_.models.emplace_back();
    it = roster_.models.end() - 1;
    it->name = name;
    it->is_default = roster_.models.size() == 1;
    it->created_unix = 1'700'000'000;
  }
  it->state = state;
  it->epoch = epoch;
  it->reason = std::move(reason);
  it->retry_after_s = 7;
  supervisor_->Send(roster_);
}

FakePeer FakeService::OfferChannel(const std::string& model, uint32_t epoch,
                                   std::vector<protocol::RequestId> suspects,
                                   std::vector<protocol::RequestId> quarantined) {
  auto pair = protocol::MakeChannelPair();
  EXPECT_TRUE(pair);
  supervisor_->Send(
      protocol::ChannelOffer{model, epoch, std::move(suspects), std::move(quarantined)},
      std::move(pair->b));
  return FakePeer(std::move(pair->a));
}

FakePeer FakeService::AddWorker(const std::string& model, uint32_t epoch) {
  FakePeer worker = OfferChannel(model, epoch);
  worker.Send(protocol::Hello{model, epoch, 4096, 8});
  SetModel(model, protocol::ModelState::kReady, epoch);
  // The worker's channel and the supervisor's are read in any order: one request through all of it.
  FakeClient probe(port_);
  probe.Send(PostText("/v1/completions",
                      R"({"prompt":"probe","model":")" + model + R"(","max_tokens":1})"));
  const auto submit = worker.Expect<protocol::Submit>();
  Answer(worker, submit.rid, {"x"});
  EXPECT_EQ(probe.ReadReply().status, 200);
  worker.Expect<protocol::Release>();
  return worker;
}

void FakeService::Settle() {
  // A tick reads everything that came before it.
  const uint64_t now = status().progress.load();
  const int64_t deadline_ms = MonotonicMs() + kTestDeadlineMs;
  while (status().progress.load() < now + 2 && MonotonicMs() < deadline_ms) usleep(10'000);
}

int FakeService::WaitExit() {
  const int64_t deadline_ms = MonotonicMs() + kTestDeadlineMs;
  int status = 0;
  while (MonotonicMs() < deadline_ms) {
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    usleep(10'000);
  }
  ADD_FAILURE() << "the frontend does not exit";
  return -1;
}

protocol::End PlainEnd(protocol::RequestId rid, uint64_t seq, int32_t tokens) {
  protocol::End end;
  end.rid = rid;
  end.seq = seq;
  end.usage.prompt_tokens = 5;
  end.usage.completion_tokens = tokens;
  end.usage.from_arena = 2;
  end.usage.computed = 3;
  return end;
}

void Answer(FakePeer& worker, protocol::RequestId rid, const std::vector<std::string>& texts) {
  worker.Send(protocol::Accepted{rid, {1, 2, 3, 4, 5}});
  uint64_t seq = 0;
  for (const std::string& text : texts) worker.Send(protocol::Event{rid, 0, ++seq, {7}, text});
  worker.Send(PlainEnd(rid, seq + 1, static_cast<int32_t>(texts.size())));
}

}  // namespace perdure::frontend
