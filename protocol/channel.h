// A framed, non-blocking Unix socket: never blocks the caller, buffers what the kernel does not
// take.
//
// Not thread-safe. The owner polls fd() for reading always and for writing while wants_write(), and
// calls OnReadable/OnWritable. Frames of the types that CarriesFd names carry exactly one file
// descriptor (SCM_RIGHTS), with their first byte; all others none.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "protocol/frame.h"

namespace perdure::protocol {

// kChannelOffer, kNewChannel, kConversationUpload and kConversationFile. A frame that lacks its
// descriptor, or a descriptor without such a frame, is a protocol_error at the receiver.
bool CarriesFd(MessageType type);

struct ReceivedFrame {
  Frame frame;
  UniqueFd fd;  // set iff CarriesFd(frame.type)
};

class Channel {
 public:
  explicit Channel(UniqueFd socket);  // a connected AF_UNIX SOCK_STREAM socket; made non-blocking

  int fd() const { return socket_.get(); }
  bool wants_write() const { return !outbox_.empty(); }
  size_t outbox_bytes() const { return outbox_bytes_; }

  // Queues a frame and sends what the kernel takes at once. A peer that is gone is no error here:
  // it is noticed by OnReadable.
  template <HasFields T>
  void Send(const T& message, UniqueFd fd = UniqueFd()) {
    SendFrame(MakeFrame(message), std::move(fd));
  }
  void SendFrame(std::string frame, UniqueFd fd);
  void OnWritable();

  struct ReadOutcome {
    std::vector<ReceivedFrame> frames;
    bool closed = false;  // EOF or error after these frames; an unfinished frame was discarded
    std::optional<Error> error;
  };
  // Reads what is there, up to about 1 MiB a call.
  ReadOutcome OnReadable();

 private:
  struct Outgoing {
    std::string bytes;
    size_t sent = 0;
    UniqueFd fd;  // goes with the first byte
  };

  // Cuts what was read into frames; calls `fail` once at the first that is wrong.
  void TakeFrames(ReadOutcome* outcome, const std::function<void(Error)>& fail);

  UniqueFd socket_;
  std::deque<Outgoing> outbox_;
  size_t outbox_bytes_ = 0;
  FrameReader reader_;
  std::deque<UniqueFd> received_fds_;
  bool peer_gone_ = false;       // nothing can be sent any more
  bool receive_failed_ = false;  // the end was told; nothing more is read
};

struct ChannelPair {
  UniqueFd a, b;
};
// A connected pair, close-on-exec.
Result<ChannelPair> MakeChannelPair();

}  // namespace perdure::protocol
