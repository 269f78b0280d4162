// A protocol::Channel on the event loop: reads always, writes when the kernel takes it.
//
// Not thread-safe. Kept alive by its pending operations; Close ends them.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"
#include "frontend/dispatcher.h"
#include "protocol/channel.h"

namespace perdure::frontend {

class FramedChannel final : public WorkerPort, public std::enable_shared_from_this<FramedChannel> {
 public:
  // Frames in order. An error closes the channel, and on_closed tells it.
  using OnFrame = std::function<Status(protocol::ReceivedFrame frame)>;
  // Once: at EOF, at an error, never after Close.
  using OnClosed = std::function<void(std::optional<Error> error)>;

  static Result<std::shared_ptr<FramedChannel>> Open(boost::asio::io_context& io, UniqueFd socket);

  void Start(OnFrame on_frame, OnClosed on_closed);
  void Send(std::string frame) override { SendWithFd(std::move(frame), UniqueFd()); }
  void SendWithFd(std::string frame, UniqueFd fd) override;
  size_t outbox_bytes() const override { return channel_.outbox_bytes(); }
  void Close();

 private:
  FramedChannel(boost::asio::io_context& io, UniqueFd socket, UniqueFd duplicate);
  void WaitRead();
  void WaitWrite();
  void Read();
  void End(std::optional<Error> error);

  protocol::Channel channel_;
  boost::asio::posix::stream_descriptor descriptor_;  // a duplicate of the channel's socket
  OnFrame on_frame_;
  OnClosed on_closed_;
  bool waits_write_ = false;
  bool closed_ = false;
};

}  // namespace perdure::frontend
