#include "supervisor/control_server.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"

namespace perdure::supervisor {
namespace {

// As recv, with a descriptor that came along; of several the last one.
ssize_t Receive(int socket, char* to, size_t bytes, UniqueFd* passed) {
  union {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control{};
  iovec part{to, bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof control;
  const ssize_t n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (n < 0) return n;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      passed->reset(fd);
    }
  }
  return n;
}

}  // namespace

ControlServer::ControlServer(EventLoop& loop, UniqueFd listener, Handler handler)
    : loop_(loop), listener_(std::move(listener)), handler_(std::move(handler)) {}

Result<std::unique_ptr<ControlServer>> ControlServer::Create(EventLoop& loop, UniqueFd listener,
                                                             Handler handler) {
  std::unique_ptr<ControlServer> server(
      new ControlServer(loop, std::move(listener), std::move(handler)));
  ControlServer* self = server.get();
  ASSIGN_OR_RETURN(self->listen_watch_, loop.Add(self->listener_.get(), EPOLLIN,
                                                 [self](uint32_t) { self->OnConnect(); }));
  return server;
}

ControlServer::~ControlServer() {
  loop_.Remove(listen_watch_);
  for (Connection& connection : connections_) loop_.Remove(connection.watch);
}

void ControlServer::OnConnect() {
  UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  ucred peer{};
  socklen_t size = sizeof peer;
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
      (peer.uid != geteuid() && peer.uid != 0)) {
    LogWarning("user {} was turned away from the control socket", peer.uid);
    return;
  }
  if (connections_.size() >= limits::kControlConnectionsMax) Close(connections_.begin());
  Connection& connection = connections_.emplace_back();
  const Iterator it = std::prev(connections_.end());
  connection.fd = std::move(fd);
  connection.deadline_ms = MonotonicMs() + limits::kControlTimeoutMs;
  auto watch = loop_.Add(connection.fd.get(), EPOLLIN,
                         [this, it](uint32_t events) { OnEvents(it, events); });
  if (!watch) {
    connections_.erase(it);
    return;
  }
  connection.watch = *watch;
}

void ControlServer::OnEvents(Iterator connection, uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !Write(connection)) return;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !Read(connection)) return;
  // One line at a time: the next is read once this answer is gone.
  loop_.Modify(connection->watch, connection->out.empty() ? EPOLLIN : EPOLLOUT);
}

bool ControlServer::Read(Iterator connection) {
  char buffer[4096];
  const ssize_t n = Receive(connection->fd.get(), buffer, sizeof buffer, &connection->passed);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return true;
  if (n <= 0) {
    Close(connection);
    return false;
  }
  connection->in.append(buffer, static_cast<size_t>(n));
  AnswerLines(connection);
  return Write(connection);
}

void ControlServer::AnswerLines(Iterator connection) {
  if (!connection->out.empty()) return;
  const size_t newline = connection->in.find('\n');
  if (newline == std::string::npos) {
    // Its end is not waited for; what follows is taken for the next line.
    if (connection->in.size() > limits::kControlLineBytesMax) {
      connection->in.clear();
      connection->out = "{\"error\":\"the line is too long\"}\n";
    }
    return;
  }
  UniqueFd passed = std::move(connection->passed);
  Answer answer = handler_(std::string_view(connection->in).substr(0, newline), &passed);
  connection->in.erase(0, newline + 1);
  connection->out = std::move(answer.line) + "\n";
  connection->keep_open = connection->keep_open || answer.keep_open;
  connection->deadline_ms = MonotonicMs() + limits::kControlTimeoutMs;
}

bool ControlServer::Write(Iterator connection) {
  while (!connection->out.empty()) {
    const ssize_t n = send(connection->fd.get(), connection->out.data(), connection->out.size(),
                           MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (n < 0) {
      Close(connection);
      return false;
    }
    connection->out.erase(0, static_cast<size_t>(n));
    // Lines that came together with the one answered.
    if (connection->out.empty()) AnswerLines(connection);
  }
  return true;
}

void ControlServer::Close(Iterator connection) {
  loop_.Remove(connection->watch);
  connections_.erase(connection);
}

std::optional<int64_t> ControlServer::deadline_ms() const {
  std::optional<int64_t> first;
  for (const Connection& c : connections_) {
    if (!c.keep_open && (!first || c.deadline_ms < *first)) first = c.deadline_ms;
  }
  return first;
}

void ControlServer::OnTime(int64_t now_ms) {
  for (Iterator it = connections_.begin(); it != connections_.end();) {
    const Iterator connection = it++;
    if (!connection->keep_open && connection->deadline_ms <= now_ms) Close(connection);
  }
}

}  // namespace perdure::supervisor
