// The worker's one thread: between two steps it reads its channels, and what they say it does.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/unique_fd.h"
#include "protocol/channel.h"
#include "protocol/messages.h"
#include "shm/layout.h"
#include "worker/generator.h"

namespace perdure::worker {

class WorkerLoop : private EventSink {
 public:
  // `hello` opens every channel to a frontend; `frontend` may be empty until a NewChannel comes.
  // `control` must outlive the loop. The rest as for Generator.
  WorkerLoop(const protocol::Hello& hello, const Model* model, const GeneratorOptions& options,
             shm::PageStore* store, shm::StatusShm* status, protocol::Channel* control,
             UniqueFd frontend);
  ~WorkerLoop() override;

  // Until the supervisor is gone or the worker has drained; returns the exit code.
  int Run();

 private:
  void Send(const protocol::Accepted& message) override;
  void Send(const protocol::Begun& message) override;
  void Send(const protocol::Event& message) override;
  void Send(const protocol::End& message) override;
  void Send(const protocol::Failed& message) override;
  void Send(const protocol::CacheAnswer& message) override;
  void Send(const protocol::ConversationAnswer& message) override;
  void Send(const protocol::Forgotten& message) override;
  void Send(const protocol::Cleared& message) override;

  void OpenFrontend(UniqueFd socket);
  void CloseFrontend();
  int PollTimeoutMs() const;
  void Poll();
  void ReadControl();
  void ReadFrontend();
  Status OnControlFrame(protocol::ReceivedFrame frame);
  Status OnFrontendFrame(const protocol::Frame& frame);
  // True when everything is done that a draining worker still does.
  bool FinishDraining();
  void SayDrained();

  const protocol::Hello hello_;
  shm::StatusShm* const status_;
  protocol::Channel* const control_;
  std::optional<protocol::Channel> frontend_;
  const int answers_fd_;  // of the disk; -1: there are none
  Generator generator_;
  std::optional<int64_t> drain_deadline_ms_;  // on the monotonic clock
  std::optional<int> exit_code_;
};

// Sends what is queued, for `timeout_ms` at most: for last words before an exit.
void FlushChannel(protocol::Channel* channel, int timeout_ms);

}  // namespace perdure::worker
