#include "supervisor/frontend_child.h"

#include <fmt/format.h>
#include <unistd.h>

#include <utility>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "protocol/codec.h"

namespace perdure::supervisor {

protocol::FrontendSettings FrontendSettingsOf(const Config& config, const std::string& host,
                                              int port) {
  protocol::FrontendSettings s;
  s.host = host;
  s.port = port;
  s.api_keys = AllApiKeys(config);
  for (const KeyConfig& each : config.keys)
    s.key_settings.push_back({each.key, each.retention_days, each.store});
  s.admin_keys = config.admin_keys;
  s.allowed_hosts = config.allowed_hosts;
  s.body_bytes_max = config.body_bytes_max;
  s.upload_bytes_max = config.upload_bytes_max;
  s.upload_dir = config.state_dir.string();
  s.connections_max = config.connections_max;
  s.queue_max = config.queue_max;
  s.header_timeout_s = config.header_timeout_s;
  s.idle_timeout_s = config.idle_timeout_s;
  s.sse_comment_s = config.sse_comment_s;
  s.slow_client_timeout_s = config.slow_client_timeout_s;
  s.drain_timeout_s = config.drain_timeout_s;
  s.request_timeout_s = config.request_timeout_s;
  for (const ModelConfig& model : config.models)
    if (model.queue_max || model.request_timeout_s)
      s.model_limits.push_back({model.name, model.queue_max, model.request_timeout_s});
  s.log_level = std::string(LogLevelName(config.log_level));
  s.aliases = config.aliases;
  return s;
}

FrontendChild::FrontendChild(EventLoop& loop, const Context& context,
                             protocol::FrontendSettings settings, const Timings& timings)
    : ManagedChild(loop, "frontend", timings, timings.frontend_restart),
      context_(context),
      settings_(std::move(settings)) {}

Result<std::unique_ptr<ChildProcess>> FrontendChild::StartProcess(
    ChildProcess::Callbacks callbacks) {
  protocol::Heritage heritage;
  heritage.instance = context_.instance;
  heritage.log_level = settings_.log_level;
  heritage.supervisor_pid = getpid();
  heritage.frontend = protocol::FrontendHeritage{context_.listen_fd, settings_};
  auto process =
      ChildProcess::Start(loop_, context_.program, "perdure-frontend", std::move(heritage),
                          {context_.listen_fd}, std::move(callbacks));
  if (!process) return process;
  roster_waits_ = true;
  settings_wait_ = false;
  context_.wants_channels();
  return process;
}

void FrontendChild::OnFrame(protocol::ReceivedFrame received) {
  switch (received.frame.type) {
    case protocol::MessageType::kFrontendReady:
      if (!protocol::Decode<protocol::FrontendReady>(received.frame.payload)) break;
      ready_ms_ = MonotonicMs();
      return Dispatch({.kind = ChildEventKind::kReady});
    case protocol::MessageType::kDrained:
      if (!protocol::Decode<protocol::Drained>(received.frame.payload)) break;
      drained_ = true;
      return OnChanged();
    case protocol::MessageType::kDemand: {
      const auto demand = protocol::Decode<protocol::Demand>(received.frame.payload);
      if (!demand) break;
      return context_.demand(*demand);
    }
    case protocol::MessageType::kMemoryQuery: {
      const auto query = protocol::Decode<protocol::MemoryQuery>(received.frame.payload);
      if (!query || memory_asked_.size() >= limits::kMemoryCallsMax) break;
      memory_asked_.push_back(query->id);
      return FlushToChild();
    }
    case protocol::MessageType::kChannelBroken: {
      const auto broken = protocol::Decode<protocol::ChannelBroken>(received.frame.payload);
      if (!broken) break;
      return context_.worker_misused(*broken);
    }
    default:
      break;
  }
  Misused(
      fmt::format("it sent a malformed message (type {})", static_cast<int>(received.frame.type)));
}

void FrontendChild::QueueOffer(protocol::ChannelOffer offer, UniqueFd fd) {
  std::string model = offer.model;
  offers_.insert_or_assign(std::move(model), Offer{std::move(offer), std::move(fd)});
  FlushToChild();
}

void FrontendChild::QueueRoster() {
  roster_waits_ = true;
  FlushToChild();
}

bool FrontendChild::HasOffer(const std::string& model, uint32_t epoch) const {
  const auto it = offers_.find(model);
  return it != offers_.end() && it->second.message.epoch == epoch;
}

void FrontendChild::Reload(protocol::FrontendSettings settings, const Timings& timings) {
  SetTimings(timings, timings.frontend_restart);
  if (protocol::Encode(settings) == protocol::Encode(settings_)) return;
  settings_ = std::move(settings);
  settings_wait_ = true;
  FlushToChild();
}

// Offers before the roster: a model that the roster calls ready has its channel.
void FrontendChild::FlushToChild() {
  if (!process_) return;
  if (settings_wait_ && process_->can_send()) {
    settings_wait_ = false;
    process_->Send(settings_);
  }
  while (!offers_.empty() && process_->can_send()) {
    auto offer = offers_.extract(offers_.begin());
    process_->Send(offer.mapped().message, std::move(offer.mapped().fd));
  }
  if (roster_waits_ && process_->can_send()) {
    roster_waits_ = false;
    process_->Send(context_.roster());
  }
  while (!memory_asked_.empty() && process_->can_send()) {
    process_->Send(protocol::MemoryReport{memory_asked_.back(), context_.memory()});
    memory_asked_.pop_back();
  }
  if (drain_timeout_s_ && process_->can_send()) {
    process_->Send(protocol::Drain{*drain_timeout_s_});
    drain_timeout_s_.reset();
  }
}

void FrontendChild::OnGone() {
  // Offers that were not sent are still good for its replacement.
  drain_timeout_s_.reset();
  memory_asked_.clear();
  ready_ms_.reset();
  context_.demand({});
}

bool FrontendChild::HadProgress() const {
  return ready_ms_ && MonotonicMs() - *ready_ms_ >= timings_.frontend_proven_ms;
}

bool FrontendChild::HealthIsWatched() const {
  // Its start has a limit; later its heartbeats, once it has shown that it sends them.
  return state() != ModelState::kReady || status()->progress.load(std::memory_order_relaxed) != 0;
}

}  // namespace perdure::supervisor
