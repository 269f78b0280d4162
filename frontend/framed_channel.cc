#include "frontend/framed_channel.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <utility>

namespace perdure::frontend {

using boost::asio::posix::stream_descriptor;
using ErrorCodeAsio = boost::system::error_code;

FramedChannel::FramedChannel(boost::asio::io_context& io, UniqueFd socket, UniqueFd duplicate)
    : channel_(std::move(socket)), descriptor_(io, duplicate.release()) {}

Result<std::shared_ptr<FramedChannel>> FramedChannel::Open(boost::asio::io_context& io,
                                                           UniqueFd socket) {
  UniqueFd duplicate(fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
  if (!duplicate) return ErrFromErrno("cannot duplicate a channel's descriptor");
  return std::shared_ptr<FramedChannel>(
      new FramedChannel(io, std::move(socket), std::move(duplicate)));
}

void FramedChannel::Start(OnFrame on_frame, OnClosed on_closed) {
  on_frame_ = std::move(on_frame);
  on_closed_ = std::move(on_closed);
  WaitRead();
  WaitWrite();
}

void FramedChannel::SendWithFd(std::string frame, UniqueFd fd) {
  if (closed_) return;
  channel_.SendFrame(std::move(frame), std::move(fd));
  WaitWrite();
}

void FramedChannel::WaitRead() {
  descriptor_.async_wait(stream_descriptor::wait_read,
                         [self = shared_from_this()](const ErrorCodeAsio& ec) {
                           if (!ec && !self->closed_) self->Read();
                         });
}

void FramedChannel::WaitWrite() {
  if (waits_write_ || closed_ || !channel_.wants_write()) return;
  waits_write_ = true;
  descriptor_.async_wait(stream_descriptor::wait_write,
                         [self = shared_from_this()](const ErrorCodeAsio& ec) {
                           self->waits_write_ = false;
                           if (ec || self->closed_) return;
                           self->channel_.OnWritable();
                           self->WaitWrite();
                         });
}

void FramedChannel::Read() {
  protocol::Channel::ReadOutcome outcome = channel_.OnReadable();
  for (protocol::ReceivedFrame& frame : outcome.frames) {
    auto status = on_frame_(std::move(frame));
    if (closed_) return;
    if (!status) return End(status.error());
  }
  if (outcome.closed) return End(std::move(outcome.error));
  WaitRead();
}

void FramedChannel::End(std::optional<Error> error) {
  const OnClosed on_closed = std::move(on_closed_);
  Close();
  if (on_closed) on_closed(std::move(error));
}

void FramedChannel::Close() {
  if (closed_) return;
  closed_ = true;
  ErrorCodeAsio ignored;
  descriptor_.close(ignored);
  // The descriptor above is a duplicate: only a shutdown tells the peer at once.
  shutdown(channel_.fd(), SHUT_RDWR);
}

}  // namespace perdure::frontend
