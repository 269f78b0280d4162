// The worker's one thread: between two steps it reads its channels, and what they say it does.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/unique_fd.h"
#include "protocol/channel.h"
#include "protocol/messages.h"
#include "shm/layout.h"
#include "worker/generator.h"

namespace perdure::worker {

class WorkerLoop : private EventSink {
 public:
  // `hello` opens every channel to a frontend; `frontend` may be empty until a NewChannel comes.
  // `control` must outlive the loop. `kv_granted_bytes` is what KV may take to begin with. The rest
  // as for Generator.
  WorkerLoop(const protocol::Hello& hello, const Model* model, const GeneratorOptions& options,
             shm::PageStore* store, shm::StatusShm* status, protocol::Channel* control,
             UniqueFd frontend, uint64_t kv_granted_bytes = UINT64_MAX);
  ~WorkerLoop() override;

  // Computes these prompts, so that later ones that begin with them find them cached.
  void WarmUp(const std::vector<std::vector<TokenId>>& prompts);

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
  void Send(const protocol::ConversationFile& message, UniqueFd file) override;
  void Send(const protocol::Forgotten& message) override;
  void Send(const protocol::Cleared& message) override;

  // Whether it is a warm-up, of which nobody hears.
  bool IsOwn(protocol::RequestId rid) const { return warm_ups_.contains(rid); }
  void OpenFrontend(UniqueFd socket);
  void CloseFrontend();
  int PollTimeoutMs() const;
  void Poll();
  void ReadControl();
  void ReadFrontend();
  Status OnControlFrame(protocol::ReceivedFrame frame);
  Status OnFrontendFrame(protocol::ReceivedFrame received);
  // Memory for KV: what it may take, and asking for more before it is short.
  void OnKvLimit(const protocol::KvLimit& message);
  void GiveBackKv();
  void KeepToKvGoal();
  void AskForKv();
  void AskForKvInTime();
  // Waits for it: for a request that is alone, and cannot go on without.
  bool GrowKv();
  // True when everything is done that a draining worker still does.
  bool FinishDraining();
  void SayDrained();

  const protocol::Hello hello_;
  shm::StatusShm* const status_;
  protocol::Channel* const control_;
  std::optional<protocol::Channel> frontend_;
  Persistence* const persistence_;  // null: nothing is stored
  const int answers_fd_;            // of the disk; -1: there are none
  engine::Engine* const engine_;
  shm::PageStore* const store_;
  Generator generator_;
  uint32_t kv_serial_ = 0;                      // of the newest KvLimit
  std::optional<uint64_t> kv_goal_;             // bytes to give back down to
  int64_t kv_goal_deadline_ms_ = 0;             // when it goes, stored or not
  bool kv_asked_ = false;                       // for more, without an answer yet
  int64_t kv_refused_ms_ = 0;                   // when it did not get what it asked for; 0: it did
  std::vector<protocol::ReceivedFrame> later_;  // came while GrowKv waited
  std::set<protocol::RequestId> warm_ups_;      // our own requests
  std::vector<protocol::RequestId> ended_;      // of those
  bool leaves_new_ = false;                     // to the next worker
  std::optional<int64_t> drain_deadline_ms_;    // on the monotonic clock
  std::optional<int> exit_code_;
};

// Sends what is queued, for `timeout_ms` at most: for last words before an exit.
void FlushChannel(protocol::Channel* channel, int timeout_ms);

}  // namespace perdure::worker
