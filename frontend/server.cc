#include "frontend/server.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <variant>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/random.h"
#include "frontend/access.h"
#include "frontend/api.h"
#include "frontend/http_response.h"
#include "protocol/frame.h"

namespace perdure::frontend {

namespace asio = boost::asio;
using asio::ip::tcp;
using protocol::MessageType;
using ErrorCodeAsio = boost::system::error_code;

Server::Server(protocol::FrontendSettings settings, shm::StatusBlock status)
    : settings_(std::move(settings)),
      status_(std::move(status)),
      io_(1),
      files_(io_),
      acceptor_(io_),
      tick_(io_),
      deadline_(io_),
      scratch_(limits::kHttpReadBytes),
      dispatcher_(&settings_, &models_) {
  models_.SetAliases(settings_.aliases);
}

Server::~Server() {
  files_.Stop();
  while (!sessions_.empty()) sessions_.begin()->second->Close();
  for (auto& [id, channel] : workers_) channel->Close();
  if (control_) control_->Close();
}

Status Server::Open(UniqueFd listener, UniqueFd control) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return ErrFromErrno("the listening socket");
  if (address.ss_family != AF_INET && address.ss_family != AF_INET6)
    return Err(ErrorCode::io_error, "the listening socket is not one of TCP");
  ErrorCodeAsio ec;
  acceptor_.assign(address.ss_family == AF_INET ? tcp::v4() : tcp::v6(), listener.get(), ec);
  if (ec) return Err(ErrorCode::io_error, "the listening socket: " + ec.message());
  (void)listener.release();
  acceptor_.non_blocking(true, ec);
  if (ec) return Err(ErrorCode::io_error, "the listening socket: " + ec.message());

  ASSIGN_OR_RETURN(control_, FramedChannel::Open(io_, std::move(control)));
  control_->Start([this](protocol::ReceivedFrame frame) { return OnControl(std::move(frame)); },
                  [this](std::optional<Error> error) {
                    if (error) LogError("the supervisor's channel: {}", error->message);
                    LogInfo("the supervisor is gone; exiting");
                    io_.stop();
                  });
  WaitTick();
  control_->Send(protocol::MakeFrame(protocol::FrontendReady{}));
  LogInfo("serving on {}:{}", settings_.host, settings_.port);
  return {};
}

void Server::Run() { io_.run(); }

// --- Clients ------------------------------------------------------------------------------------

void Server::WaitAccept() {
  if (!knows_models_ || waits_accept_) return;
  waits_accept_ = true;
  acceptor_.async_wait(tcp::acceptor::wait_read, [this](const ErrorCodeAsio& ec) {
    waits_accept_ = false;
    if (!ec) AcceptSome();
  });
}

void Server::AcceptSome() {
  for (int i = 0; i < limits::kHttpAcceptsPerTurn; ++i) {
    ErrorCodeAsio ec;
    tcp::socket socket(io_);
    acceptor_.accept(socket, ec);
    if (ec == asio::error::would_block) break;
    // Out of descriptors or memory: the next tick tries again, when something may have ended.
    if (ec == asio::error::no_descriptors || ec == asio::error::no_memory ||
        ec == asio::error::no_buffer_space || ec.value() == ENFILE)
      return;
    if (ec) continue;  // that client is gone already
    AddSession(std::move(socket));
  }
  WaitAccept();
}

void Server::AddSession(tcp::socket socket) {
  ErrorCodeAsio ec;
  socket.non_blocking(true, ec);
  if (ec) return;
  socket.set_option(tcp::no_delay(true), ec);
  // A host that vanished during a long unstreamed answer sends no FIN.
  socket.set_option(asio::socket_base::keep_alive(true), ec);
  socket.set_option(asio::socket_base::send_buffer_size(limits::kHttpSendBufferBytes), ec);
  const size_t admitted = sessions_.size() - refused_sessions_;
  const bool full = admitted >= static_cast<size_t>(std::max(1, settings_.connections_max)) &&
                    !MakeRoom(MonotonicMs());
  if (full && refused_sessions_ >= limits::kHttpRefusedConnectionsMax) return;
  auto session = std::make_shared<HttpSession>(std::move(socket), this);
  HttpSession& added = *session;
  sessions_.emplace(&added, std::move(session));
  if (!full) return added.Start();
  ++refused_sessions_;
  HttpResponse response =
      ErrorResponse({ErrorCode::overloaded,
                     fmt::format("All {} connections are in use.", settings_.connections_max),
                     {},
                     1});
  response.status = 503;  // the service's state, not this client's doing
  added.Refuse(std::move(response));
}

bool Server::MakeRoom(int64_t now_ms) {
  HttpSession* idlest = nullptr;
  int64_t longest_ms = limits::kHttpEvictIdleMs;
  for (const auto& [session, kept] : sessions_) {
    const std::optional<int64_t> idle_ms = session->idle_ms(now_ms);
    if (idle_ms && *idle_ms >= longest_ms) {
      idlest = session;
      longest_ms = *idle_ms;
    }
  }
  if (idlest) idlest->Close();
  return idlest != nullptr;
}

bool Server::ReserveBody(size_t bytes) {
  if (bodies_bytes_ + bytes > limits::kHttpBodiesBytesMax) return false;
  bodies_bytes_ += bytes;
  return true;
}

std::optional<HttpResponse> Server::CheckHead(const HttpRequest& request,
                                              std::optional<uint64_t> content_length) {
  return frontend::CheckHead(request, content_length, {settings_, models_, draining()});
}

std::vector<std::pair<std::string, std::string>> Server::CorsHeaders(const HttpRequest& request) {
  return frontend::CorsHeaders(request, settings_);
}

std::optional<HttpResponse> Server::Handle(const HttpRequest& request, protocol::RequestId rid,
                                           AnswerSink* sink) {
  auto handled = HandleRequest(request, {settings_, models_, draining()},
                               {.seed = RandomU64(),
                                .unix_time = UnixSeconds(),
                                .tenant = TenantOf(request, settings_),
                                .client = ClientOf(request, settings_),
                                .store = StoresByDefault(request, settings_),
                                .aliases = settings_.aliases});
  if (auto* response = std::get_if<HttpResponse>(&handled)) return std::move(*response);
  Status started;
  if (const auto* cache = std::get_if<CacheCall>(&handled))
    started = dispatcher_.StartCacheCall(rid, *cache, sink, MonotonicMs());
  else if (std::holds_alternative<MemoryCall>(handled))
    started = memory_calls_.Start(rid, sink, MonotonicMs());
  else if (auto* file = std::get_if<ConversationFileCall>(&handled))
    started = dispatcher_.StartConversationFileCall(rid, std::move(*file), sink, MonotonicMs());
  else if (auto* conversation = std::get_if<ConversationCall>(&handled))
    started = dispatcher_.StartConversationCall(rid, std::move(*conversation), sink, MonotonicMs());
  else
    started =
        dispatcher_.Start(rid, std::move(std::get<ParsedRequest>(handled)), sink, MonotonicMs());
  TellDemand();
  if (!started) return ErrorResponse(started.error());
  WaitDeadline();
  return std::nullopt;
}

void Server::OnTaken(protocol::RequestId rid, size_t payload_bytes) {
  dispatcher_.OnTaken(rid, payload_bytes);
}

void Server::OnClientGone(protocol::RequestId rid) {
  dispatcher_.OnClientGone(rid);
  memory_calls_.OnClientGone(rid);
  TellDemand();
}

void Server::OnSessionClosed(HttpSession* session) {
  if (session->refused()) --refused_sessions_;
  sessions_.erase(session);
}

// --- Supervisor and workers ---------------------------------------------------------------------

Status Server::OnControl(protocol::ReceivedFrame received) {
  const protocol::Frame& frame = received.frame;
  switch (frame.type) {
    case MessageType::kRoster: {
      ASSIGN_OR_RETURN(auto roster, protocol::Decode<protocol::Roster>(frame.payload));
      models_.Apply(std::move(roster));
      knows_models_ = true;
      WaitAccept();
      dispatcher_.OnRoster(MonotonicMs());
      TellDemand();
      return {};
    }
    case MessageType::kChannelOffer: {
      ASSIGN_OR_RETURN(const auto offer, protocol::Decode<protocol::ChannelOffer>(frame.payload));
      return AddWorker(offer, std::move(received.fd));
    }
    case MessageType::kFrontendSettings: {
      ASSIGN_OR_RETURN(auto settings, protocol::Decode<protocol::FrontendSettings>(frame.payload));
      ApplySettings(std::move(settings));
      return {};
    }
    case MessageType::kMemoryReport: {
      ASSIGN_OR_RETURN(auto report, protocol::Decode<protocol::MemoryReport>(frame.payload));
      memory_calls_.OnReport(std::move(report));
      return {};
    }
    case MessageType::kDrain: {
      ASSIGN_OR_RETURN(const auto drain, protocol::Decode<protocol::Drain>(frame.payload));
      BeginDrain(drain.timeout_s);
      return {};
    }
    default:
      return Err(ErrorCode::protocol_error,
                 fmt::format("a frame of type {}, which supervisors do not send",
                             static_cast<int>(frame.type)));
  }
}

Status Server::AddWorker(const protocol::ChannelOffer& offer, UniqueFd socket) {
  if (!socket) return Err(ErrorCode::protocol_error, "a channel offer without a descriptor");
  ASSIGN_OR_RETURN(auto channel, FramedChannel::Open(io_, std::move(socket)));
  const WorkerId id = dispatcher_.AddWorker(offer, channel.get());
  workers_.emplace(id, channel);
  channel->Start(
      [this, id](protocol::ReceivedFrame received) {
        Status status =
            dispatcher_.OnFrame(id, received.frame, MonotonicMs(), std::move(received.fd));
        TellDemand();
        return status;
      },
      [this, id, offer](std::optional<Error> error) {
        if (error) {
          LogError("the channel of {} is closed: {}", offer.model, error->message);
          if (control_)
            control_->Send(protocol::MakeFrame(
                protocol::ChannelBroken{offer.model, offer.epoch, error->message}));
        }
        dispatcher_.OnWorkerGone(id, MonotonicMs());
        TellDemand();
        workers_.erase(id);
      });
  return {};
}

void Server::ApplySettings(protocol::FrontendSettings settings) {
  settings_ = std::move(settings);
  models_.SetAliases(settings_.aliases);
  LogLevel level;
  if (ParseLogLevel(settings_.log_level, &level)) SetLogLevel(level);
  dispatcher_.OnSettings();
  LogInfo("new settings");
}

void Server::BeginDrain(int32_t timeout_s) {
  if (draining()) return;
  const int32_t seconds = timeout_s > 0 ? timeout_s : std::max(0, settings_.drain_timeout_s);
  LogInfo("draining: {} answers under way, up to {} s", dispatcher_.active(), seconds);
  const int64_t now_ms = MonotonicMs();
  drain_deadline_ms_ = now_ms + int64_t{seconds} * 1000;
  dispatcher_.BeginDrain();
  status_->phase.store(static_cast<uint32_t>(shm::Phase::kDraining), std::memory_order_relaxed);
  CheckDrained(now_ms);
}

// After everything that may have changed it, so that a model is loaded as soon as it is asked for.
void Server::TellDemand() {
  if (const auto demand = dispatcher_.TakeDemand(MonotonicMs()))
    control_->Send(protocol::MakeFrame(*demand));
}

void Server::CheckDrained(int64_t now_ms) {
  if (drained_sent_ && control_->outbox_bytes() == 0) io_.stop();
  if (!draining() || drained_sent_) return;
  if (!drain_ended_ && now_ms >= drain_deadline_ms_) {
    drain_ended_ = true;
    drain_deadline_ms_ = now_ms + limits::kDrainFlushMs;
    LogWarning("draining took too long: {} answers are ended", dispatcher_.active());
    dispatcher_.EndDrain();
  }
  const bool late = drain_ended_ && now_ms >= drain_deadline_ms_;
  const bool busy = dispatcher_.active() > 0 ||
                    std::any_of(sessions_.begin(), sessions_.end(),
                                [](const auto& entry) { return entry.second->busy(); });
  if (busy && !late) return;
  drained_sent_ = true;
  LogInfo("drained");
  control_->Send(protocol::MakeFrame(protocol::Drained{}));
  if (control_->outbox_bytes() == 0) io_.stop();
}

// --- Clock --------------------------------------------------------------------------------------

void Server::WaitTick() {
  const bool idle = sessions_.empty() && dispatcher_.active() == 0;
  tick_.expires_after(
      std::chrono::milliseconds(idle ? limits::kFrontendIdleTickMs : limits::kFrontendTickMs));
  tick_.async_wait([this](const ErrorCodeAsio& ec) {
    if (ec) return;
    OnTick();
    WaitTick();
  });
}

// Deadlines are met to the millisecond, not to the tick.
void Server::WaitDeadline() {
  const std::optional<int64_t> next_ms = dispatcher_.deadline_ms();
  if (next_ms == waited_deadline_ms_) return;
  waited_deadline_ms_ = next_ms;
  deadline_.cancel();
  if (!next_ms) return;
  deadline_.expires_after(
      std::chrono::milliseconds(std::max<int64_t>(0, *next_ms - MonotonicMs())));
  deadline_.async_wait([this](const ErrorCodeAsio& ec) {
    if (ec) return;
    waited_deadline_ms_.reset();
    dispatcher_.OnDeadline(MonotonicMs());
    TellDemand();
    WaitDeadline();
  });
}

void Server::OnTick() {
  const int64_t now_ms = MonotonicMs();
  status_->progress.fetch_add(1, std::memory_order_relaxed);
  const size_t running = dispatcher_.running();
  status_->sequences_running.store(static_cast<uint32_t>(running), std::memory_order_relaxed);
  status_->sequences_waiting.store(static_cast<uint32_t>(dispatcher_.active() - running),
                                   std::memory_order_relaxed);
  std::vector<std::shared_ptr<HttpSession>> sessions;
  sessions.reserve(sessions_.size());
  for (const auto& [raw, session] : sessions_) sessions.push_back(session);
  for (const auto& session : sessions) session->OnTick(now_ms);
  dispatcher_.OnTick(now_ms);
  memory_calls_.OnTick(now_ms);
  TellDemand();
  WaitAccept();
  CheckDrained(now_ms);
}

}  // namespace perdure::frontend
