// One model and its worker process.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "hub/memory_claims.h"
#include "hub/model_source.h"
#include "shm/arena_segment.h"
#include "supervisor/managed_child.h"
#include "supervisor/suspects.h"

namespace perdure::supervisor {

// What a worker is started with; equal settings mean that a reload leaves it alone.
struct WorkerSettings {
  ModelConfig model;
  protocol::WorkerHeritage heritage;  // without folder, epoch, descriptors and the others' claims
};
WorkerSettings WorkerSettingsOf(const Config& config, const ModelConfig& model);

class ModelWorker : public ManagedChild {
 public:
  struct Context {
    std::filesystem::path program;
    hub::ModelPlaces places;
    std::string instance;
    std::string log_level;
    std::function<hub::MemoryClaims(const ModelConfig& model)> claims;
    // The frontend's end of the channel to a worker that was just started.
    std::function<void(protocol::ChannelOffer offer, UniqueFd fd)> offer;
    // It closed its channel to the frontend, which broke the protocol.
    std::function<void(const std::string& model)> wants_channel;
    std::function<void()> changed;
  };

  // `context` outlives the worker.
  ModelWorker(EventLoop& loop, const Context& context, WorkerSettings settings,
              const Timings& timings);

  const std::string& name() const { return settings_.model.name; }
  uint32_t epoch() const { return epoch_; }
  bool is_default() const { return settings_.model.is_default; }
  const std::optional<protocol::WorkerReady>& facts() const { return facts_; }
  protocol::RosterEntry Entry(int64_t now_ms) const;
  // Of a channel to this worker, as of now.
  protocol::ChannelOffer Offer() const;

  // A config that was read again: restarts the worker if that is needed. Returns what was done, for
  // the log; empty for nothing.
  std::string Reload(WorkerSettings settings, const Timings& timings);

  // A new process takes over: what runs goes on with it, what comes waits for it.
  void Replace();

  // The frontend closed the channel to the worker `epoch`, which broke the protocol. Without effect
  // when that worker is gone already.
  void OnChannelBroken(uint32_t epoch, const std::string& reason);

  // Its KV is in shared memory.
  bool has_arena() const { return arena_.has_value(); }
  // The service ends in order: what is cached is not kept.
  void DropArena();

  // What it has stored goes to this stream socket. The error says why it does not.
  Status BackUp(UniqueFd to, bool kv);

  // The frontend was replaced: the worker's end of a channel to the new one.
  void QueueNewChannel(UniqueFd fd);

 private:
  Result<std::unique_ptr<ChildProcess>> StartProcess(ChildProcess::Callbacks callbacks) override;
  void OnFrame(protocol::ReceivedFrame frame) override;
  void FlushToChild() override;
  void QueueDrain(int timeout_s) override;
  void OnDeath(const Obituary& obituary) override;
  void OnGone() override;
  void OnChanged() override { context_.changed(); }
  bool HadProgress() const override;
  std::string LastMessage() const override;
  void OpenArena();

  const Context& context_;
  WorkerSettings settings_;
  int64_t created_unix_;
  uint32_t epoch_ = 0;
  Suspects suspects_;
  std::optional<shm::ArenaSegment> arena_;  // from the first start on
  std::optional<protocol::WorkerReady> facts_;
  std::optional<protocol::LoadFailed> load_failed_;
  // Waits until the worker reads: the newest is enough of each.
  UniqueFd new_channel_;
  std::optional<int> drain_timeout_s_;
  bool hands_over_ = false;
};

}  // namespace perdure::supervisor
