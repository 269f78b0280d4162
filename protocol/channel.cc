#include "protocol/channel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace perdure::protocol {
namespace {

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr size_t kReadBytesPerCall = size_t{1} << 20;

// Room for one descriptor. The kernel drops what does not fit and says so (MSG_CTRUNC); the
// alignment may leave room for a second one, so all that arrive are taken.
union ControlBuffer {
  cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int))];
};

void TakeDescriptors(msghdr& message, std::deque<UniqueFd>* fds) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      fds->emplace_back(fd);
    }
  }
}

ssize_t SendBytes(int socket, const char* data, size_t size, int fd) {
  iovec part{const_cast<char*>(data), size};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  ControlBuffer control{};
  if (fd >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  ssize_t n;
  do {
    n = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  return n;
}

}  // namespace

bool CarriesFd(MessageType type) {
  return type == MessageType::kChannelOffer || type == MessageType::kNewChannel ||
         type == MessageType::kConversationUpload || type == MessageType::kConversationFile ||
         type == MessageType::kBackUp;
}

Channel::Channel(UniqueFd socket) : socket_(std::move(socket)) {
  const int flags = fcntl(socket_.get(), F_GETFL);
  CHECK_MSG(flags >= 0 && fcntl(socket_.get(), F_SETFL, flags | O_NONBLOCK) == 0,
            "a channel needs an open socket");
}

void Channel::SendFrame(std::string frame, UniqueFd fd) {
  CHECK(!frame.empty());
  if (peer_gone_) return;
  outbox_bytes_ += frame.size();
  outbox_.push_back({std::move(frame), 0, std::move(fd)});
  // With others waiting the socket was full a moment ago: OnWritable will go on.
  if (outbox_.size() == 1) OnWritable();
}

void Channel::OnWritable() {
  while (!outbox_.empty()) {
    Outgoing& out = outbox_.front();
    const ssize_t n = SendBytes(socket_.get(), out.bytes.data() + out.sent,
                                out.bytes.size() - out.sent, out.fd.get());
    if (n < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) return;
      // The peer is gone: nothing will be read any more, and OnReadable tells.
      peer_gone_ = true;
      outbox_.clear();
      outbox_bytes_ = 0;
      return;
    }
    if (n > 0) out.fd.reset();
    out.sent += static_cast<size_t>(n);
    outbox_bytes_ -= static_cast<size_t>(n);
    if (out.sent < out.bytes.size()) return;
    outbox_.pop_front();
  }
}

Channel::ReadOutcome Channel::OnReadable() {
  ReadOutcome outcome;
  const auto fail = [&](Error error) {
    outcome.closed = true;
    outcome.error = std::move(error);
    peer_gone_ = true;
  };
  if (receive_failed_) {
    outcome.closed = true;
    return outcome;
  }
  std::string buffer(kReadBytes, '\0');
  for (size_t total = 0; total < kReadBytesPerCall && !outcome.closed;) {
    iovec part{buffer.data(), buffer.size()};
    ControlBuffer control;
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    const ssize_t n = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) break;
      if (errno == ECONNRESET) {  // gone with bytes of ours unread: an end like EOF
        outcome.closed = true;
        break;
      }
      fail(Error{ErrorCode::io_error,
                 fmt::format("cannot read from a channel: {}", std::strerror(errno)),
                 {},
                 0});
      break;
    }
    TakeDescriptors(message, &received_fds_);
    if ((message.msg_flags & MSG_CTRUNC) != 0) {
      fail(Error{ErrorCode::protocol_error, "a frame came with too many descriptors", {}, 0});
      break;
    }
    if (n == 0) {
      outcome.closed = true;
      break;
    }
    total += static_cast<size_t>(n);
    reader_.Append({buffer.data(), static_cast<size_t>(n)});
    TakeFrames(&outcome, fail);
  }
  if (outcome.closed) {
    receive_failed_ = true;
    received_fds_.clear();
  }
  return outcome;
}

void Channel::TakeFrames(ReadOutcome* outcome, const std::function<void(Error)>& fail) {
  for (;;) {
    auto next = reader_.Next();
    if (!next) return fail(std::move(next).error());
    if (!*next) break;
    ReceivedFrame received{std::move(**next), UniqueFd()};
    if (CarriesFd(received.frame.type)) {
      if (received_fds_.empty())
        return fail(Error{ErrorCode::protocol_error, "a frame lacks its descriptor", {}, 0});
      received.fd = std::move(received_fds_.front());
      received_fds_.pop_front();
    }
    outcome->frames.push_back(std::move(received));
  }
  // A descriptor comes with its frame's first byte, and at most one frame is unfinished.
  if (received_fds_.size() > 1 || (!received_fds_.empty() && reader_.pending_bytes() == 0))
    fail(Error{ErrorCode::protocol_error, "a descriptor came without its frame", {}, 0});
}

Result<ChannelPair> MakeChannelPair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
    return ErrFromErrno("cannot make a pair of sockets");
  return ChannelPair{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

}  // namespace perdure::protocol
