// The frontend process: what it is told is kept here as newest state and sent when it reads.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "supervisor/managed_child.h"

namespace perdure::supervisor {

class FrontendChild : public ManagedChild {
 public:
  struct Context {
    std::filesystem::path program;
    std::string instance;
    std::string log_level;
    int listen_fd = -1;
    std::function<protocol::Roster()> roster;  // as of now
    // A new frontend was started: it needs channels to the workers that live.
    std::function<void()> wants_channels;
    // It closed its channel to this worker, which broke the protocol.
    std::function<void(const protocol::ChannelBroken&)> worker_misused;
    // What is asked of the models; nothing once it is gone.
    std::function<void(const protocol::Demand&)> demand;
    std::function<std::string()> memory;  // who has what of it, as JSON
    std::function<void()> changed;
  };

  // `context` outlives the frontend.
  FrontendChild(EventLoop& loop, const Context& context, protocol::FrontendSettings settings,
                const Timings& timings);

  // The newest offer of a model replaces one that was not sent yet.
  void QueueOffer(protocol::ChannelOffer offer, UniqueFd fd);
  void QueueRoster();
  // Whether an offer of this worker's channel waits already.
  bool HasOffer(const std::string& model, uint32_t epoch) const;
  void Reload(protocol::FrontendSettings settings, const Timings& timings);

  // It has told that all running answers have ended.
  bool drained() const { return drained_; }

 private:
  struct Offer {
    protocol::ChannelOffer message;
    UniqueFd fd;
  };

  Result<std::unique_ptr<ChildProcess>> StartProcess(ChildProcess::Callbacks callbacks) override;
  void OnFrame(protocol::ReceivedFrame frame) override;
  void FlushToChild() override;
  void QueueDrain(int timeout_s) override { drain_timeout_s_ = timeout_s; }
  void OnGone() override;
  void OnChanged() override { context_.changed(); }
  bool HadProgress() const override;
  bool HealthIsWatched() const override;

  const Context& context_;
  protocol::FrontendSettings settings_;
  std::map<std::string, Offer> offers_;
  bool roster_waits_ = false;
  bool settings_wait_ = false;
  std::optional<int> drain_timeout_s_;
  std::vector<uint64_t> memory_asked_;  // ids of queries
  std::optional<int64_t> ready_ms_;
  bool drained_ = false;
};

protocol::FrontendSettings FrontendSettingsOf(const Config& config, const std::string& host,
                                              int port);

}  // namespace perdure::supervisor
