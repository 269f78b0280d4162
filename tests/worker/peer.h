// The other end of a worker's channels, as its frontend or its supervisor: sends, reads and
// records.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "protocol/channel.h"
#include "protocol/messages.h"
#include "tests/worker/recording_sink.h"

namespace perdure::worker {

// For conditions that come true at once or never.
inline constexpr int kGenerousMs = 60'000;

// One end of a channel, read by the test.
class Peer {
 public:
  explicit Peer(UniqueFd socket) : channel_(std::move(socket)) {}

  template <class T>
  void Send(const T& message, UniqueFd fd = UniqueFd()) {
    channel_.Send(message, std::move(fd));
  }
  void SendRaw(std::string bytes) { channel_.SendFrame(std::move(bytes), UniqueFd()); }

  // Reads until `done` or EOF; true when done.
  bool ReadUntil(const std::function<bool()>& done) {
    const int64_t deadline_ms = MonotonicMs() + kGenerousMs;
    while (!done()) {
      if (closed || MonotonicMs() > deadline_ms) return false;
      pollfd fd{channel_.fd(), static_cast<short>(POLLIN | (channel_.wants_write() ? POLLOUT : 0)),
                0};
      if (poll(&fd, 1, 1000) <= 0) continue;
      if ((fd.revents & POLLOUT) != 0) channel_.OnWritable();
      if ((fd.revents & (POLLIN | POLLHUP)) == 0) continue;
      auto outcome = channel_.OnReadable();
      closed = outcome.closed;
      for (auto& frame : outcome.frames) Take(frame.frame);
    }
    return true;
  }

  bool Ended(protocol::RequestId rid) {
    return ReadUntil([&] { return received[rid].choices[0].end.has_value(); });
  }

  std::vector<protocol::Hello> hellos;
  std::vector<protocol::MessageType> types;
  RecordingSink received;
  std::optional<protocol::WorkerReady> ready;
  std::optional<protocol::LoadFailed> load_failed;
  std::vector<protocol::KvState> kv_states;
  bool drained = false;
  bool closed = false;

 private:
  void Take(const protocol::Frame& frame) {
    using protocol::MessageType;
    types.push_back(frame.type);
    switch (frame.type) {
      case MessageType::kHello:
        hellos.push_back(protocol::Decode<protocol::Hello>(frame.payload).value());
        break;
      case MessageType::kAccepted:
        received.Send(protocol::Decode<protocol::Accepted>(frame.payload).value());
        break;
      case MessageType::kBegun:
        received.Send(*protocol::Decode<protocol::Begun>(frame.payload));
        break;
      case MessageType::kEvent:
        received.Send(protocol::Decode<protocol::Event>(frame.payload).value());
        break;
      case MessageType::kEnd:
        received.Send(protocol::Decode<protocol::End>(frame.payload).value());
        break;
      case MessageType::kFailed:
        received.Send(protocol::Decode<protocol::Failed>(frame.payload).value());
        break;
      case MessageType::kWorkerReady:
        ready = protocol::Decode<protocol::WorkerReady>(frame.payload).value();
        break;
      case MessageType::kLoadFailed:
        load_failed = protocol::Decode<protocol::LoadFailed>(frame.payload).value();
        break;
      case MessageType::kKvState:
        kv_states.push_back(protocol::Decode<protocol::KvState>(frame.payload).value());
        break;
      case MessageType::kDrained:
        drained = true;
        break;
      default:
        ADD_FAILURE() << "an unexpected frame";
    }
  }

  protocol::Channel channel_;
};

}  // namespace perdure::worker
