// A real frontend process with everything around it played by the test: the supervisor, the workers
// and the clients. All waits have deadlines far beyond what any machine needs.
#pragma once

#include <sys/types.h>

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/channel.h"
#include "protocol/messages.h"
#include "shm/status.h"

namespace perdure::frontend {

inline constexpr int kTestDeadlineMs = 60'000;

// One end of a framed channel, read by waiting.
class FakePeer {
 public:
  explicit FakePeer(UniqueFd socket) : channel_(std::move(socket)) {}

  template <class T>
  void Send(const T& message, UniqueFd fd = UniqueFd()) {
    channel_.Send(message, std::move(fd));
    FlushAll();
  }
  void SendRaw(std::string bytes) {
    channel_.SendFrame(std::move(bytes), UniqueFd());
    FlushAll();
  }
  // The next frame of that type; those before it are kept for later calls.
  template <class T>
  T Expect() {
    const std::string payload = WaitFor(T::kType);
    auto message = protocol::Decode<T>(payload);
    return message ? *message : T{};
  }
  // The same of a type that carries a descriptor.
  template <class T>
  std::pair<T, UniqueFd> ExpectWithFd() {
    T message = Expect<T>();
    return {std::move(message), std::move(last_fd_)};
  }
  // Frames of that type that are here already.
  template <class T>
  std::vector<T> Received() {
    Pump(0);
    std::vector<T> messages;
    for (const auto& frame : frames_) {
      if (frame.type != T::kType) continue;
      if (auto message = protocol::Decode<T>(frame.payload)) messages.push_back(*message);
    }
    return messages;
  }
  // True once the other side has closed.
  bool WaitClosed();
  int fd() const { return channel_.fd(); }

 private:
  bool Pump(int timeout_ms);
  std::string WaitFor(protocol::MessageType type);
  void FlushAll();

  protocol::Channel channel_;
  std::deque<protocol::Frame> frames_;
  std::deque<UniqueFd> fds_;  // of frames_, in their order
  UniqueFd last_fd_;
  bool closed_ = false;
};

struct HttpReply {
  int status = 0;
  std::map<std::string, std::string> headers;  // lower-case names
  std::string body;                            // chunks joined
  bool complete = false;
};

// A client on a raw socket.
class FakeClient {
 public:
  // receive_buffer_bytes: 0 for the system's default.
  explicit FakeClient(int port, int receive_buffer_bytes = 0);

  void Send(std::string_view bytes);
  // Whatever can be sent without waiting for the server to read on; false once the server has
  // reset.
  bool TrySend(std::string_view bytes);
  void ShutdownWrite();
  void Close() { socket_.reset(); }
  void Reset();  // closes with a RST
  // The next whole response (interim ones are skipped).
  HttpReply ReadReply(bool head_only = false);
  // Reads until what has arrived contains `text`; all of it, from the connection's beginning.
  std::string ReadUntil(std::string_view text);
  // Reads to the end of the connection: what came since the last whole reply.
  std::string ReadAll();
  // True where the server has closed (or reset) the connection within the deadline.
  bool WaitClosed();

 private:
  bool ReadMore(int timeout_ms = kTestDeadlineMs);

  UniqueFd socket_;
  std::string input_;
  bool ended_ = false;
};

std::string PostText(std::string_view path, std::string_view json,
                     std::string_view more_headers = "");
std::string GetText(std::string_view path, std::string_view more_headers = "");

class FakeService {
 public:
  static protocol::FrontendSettings DefaultSettings();

  // With an empty roster, told at once, or none yet.
  explicit FakeService(protocol::FrontendSettings settings = DefaultSettings(),
                       bool tell_roster = true);
  ~FakeService();

  int port() const { return port_; }
  pid_t pid() const { return pid_; }
  FakePeer& supervisor() { return *supervisor_; }
  void CloseSupervisor() { supervisor_.reset(); }
  const shm::StatusShm& status() const { return **status_; }

  // Tells the roster as it is now.
  void SetModel(const std::string& name, protocol::ModelState state, uint32_t epoch = 1,
                std::string reason = "");
  // A channel to a new worker that has said Hello, and the roster that calls its model ready.
  FakePeer AddWorker(const std::string& model, uint32_t epoch = 1);
  // The same, without Hello and without the roster.
  FakePeer OfferChannel(const std::string& model, uint32_t epoch,
                        std::vector<protocol::RequestId> suspects = {},
                        std::vector<protocol::RequestId> quarantined = {});
  // Waits until the frontend has handled what was sent to it before.
  void Settle();
  // The exit code; 128 + signal for a death.
  int WaitExit();

 private:
  int port_ = 0;
  pid_t pid_ = -1;
  std::optional<FakePeer> supervisor_;
  std::optional<shm::StatusBlock> status_;
  protocol::Roster roster_;
};

// The frames of a plain answer: Accepted, an event for each text, End.
void Answer(FakePeer& worker, protocol::RequestId rid, const std::vector<std::string>& texts);
protocol::End PlainEnd(protocol::RequestId rid, uint64_t seq, int32_t tokens);

}  // namespace perdure::frontend
