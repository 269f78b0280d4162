// One model and its worker process.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "hub/model_size.h"
#include "hub/model_source.h"
#include "shm/arena_segment.h"
#include "shm/kv_least.h"
#include "supervisor/managed_child.h"
#include "supervisor/residency.h"
#include "supervisor/suspects.h"

namespace perdure::supervisor {

// What a worker is started with; an equal heritage means that a reload leaves it alone.
struct WorkerSettings {
  ModelConfig model;
  protocol::WorkerHeritage heritage;  // without folder, epoch, descriptors and memory
  int idle_timeout_s = 0;             // 0: never
  int arena_timeout_s = 0;
};
WorkerSettings WorkerSettingsOf(const Config& config, const ModelConfig& model);

class ModelWorker : public ManagedChild {
 public:
  struct Context {
    std::filesystem::path program;
    hub::ModelPlaces places;
    std::string instance;
    std::string log_level;
    uint64_t memory_capacity = 0, memory_budget = 0;  // of all models
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

  // --- Residency --------------------------------------------------------------------------------

  // As of now, for PlanResidency.
  ModelUse Use(int64_t now_ms) const;
  // What is asked of it; nothing where that is nothing.
  void SetDemand(const protocol::ModelDemand* demand, int64_t now_ms);
  // It is loaded when there is room, though nobody asks for it.
  void SetWantsPreload(bool wants) { wants_preload_ = wants; }
  void Load();
  // What still comes waits for the next process.
  void Unload();
  // Not a process more; then it may be forgotten.
  void Retire(int64_t drain_ms, int64_t grace_ms);
  bool is_retired() const { return is_retired_; }
  // It gets no more requests.
  void SetYielding(bool yields);
  void SetMissing(uint64_t bytes);
  // Grants, or asks for it back.
  void LimitKv(uint64_t bytes);
  void RefuseKv();
  // How many threads compute: as many as it may have, if there are so many processors.
  void LimitThreads(int processors);
  bool is_computing() const { return state() == ModelState::kReady && running_ > 0; }
  // Looks at what its process takes.
  void SampleMemory();
  // As the ledger has it: what its process may take without KV, and what it took when it was looked
  // at last; what KV may take, and what it takes.
  uint64_t process_bytes() const;
  uint64_t process_used_bytes() const;
  uint64_t kv_bytes() const;
  uint64_t kv_used_bytes() const;
  uint64_t weight_bytes() const;
  uint32_t waiting() const { return waiting_; }  // requests that no process of it has
  uint64_t arena_bytes() const;                  // as the kernel has it

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
  void OnChanged() override;
  bool HadProgress() const override;
  std::string LastMessage() const override;
  void OpenArena();
  void Reckon();
  void TakeFacts();
  uint64_t KvLeast() const;
  uint64_t KvFixed() const;
  uint64_t InSlabs(uint64_t bytes) const;
  void OnKvState(const protocol::KvState& kv);

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

  bool is_retired_ = false;
  bool wants_preload_ = false;
  bool has_failed_ = false;  // and will be tried again once that is over
  bool unloads_ = false;
  bool yields_ = false;
  uint64_t missing_bytes_ = 0;
  hub::ModelSize size_;
  uint64_t reckoned_bytes_ = 0;  // of its process, with what it may still take
  uint64_t promised_bytes_ = 0;  // what was reckoned when it was last loaded
  uint64_t measured_bytes_ = 0;  // what it has, by the kernel's figures
  uint64_t used_bytes_ = 0;      // the same without what others have, too
  shm::KvSize kv_size_;
  // Of KV in slabs, beside what an arena has besides: granted, wanted in all, and what it could not
  // give back when it was asked.
  uint64_t kv_limit_ = 0, kv_wanted_ = 0, kv_floor_ = 0;
  int64_t kv_wanted_since_ms_ = 0, kv_floor_until_ms_ = 0;
  int threads_ = 0;  // that it was told last; 0: none
  bool threads_wait_ = false;
  uint32_t kv_serial_ = 0;  // of the newest KvLimit
  bool kv_asked_ = false;   // its KvState is due
  std::optional<uint64_t> kv_to_send_;
  uint64_t kv_asked_bytes_ = 0;
  uint32_t waiting_ = 0, running_ = 0;
  int64_t waiting_since_ms_ = 0, present_since_ms_ = 0, used_ms_ = 0, absent_since_ms_ = 0;
  std::optional<int32_t> keep_alive_s_;
};

}  // namespace perdure::supervisor
