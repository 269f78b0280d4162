// The frontend's shell: the listening socket, the sessions, the channels to the supervisor and to
// the workers, the clock. All logic is in the pure parts that it joins. Not thread-safe.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "frontend/dispatcher.h"
#include "frontend/file_thread.h"
#include "frontend/framed_channel.h"
#include "frontend/http_session.h"
#include "frontend/memory_calls.h"
#include "frontend/model_table.h"
#include "protocol/heritage.h"
#include "shm/status.h"

namespace perdure::frontend {

class Server final : public SessionHost {
 public:
  Server(protocol::FrontendSettings settings, shm::StatusBlock status);
  ~Server() override;

  // Takes both descriptors over.
  Status Open(UniqueFd listener, UniqueFd control);
  // Until the supervisor is gone, or a drain has ended.
  void Run();

  const protocol::FrontendSettings& settings() const override { return settings_; }
  bool draining() const override { return dispatcher_.draining(); }
  std::span<char> scratch() override { return scratch_; }
  bool ReserveBody(size_t bytes) override;
  void ReleaseBody(size_t bytes) override { bodies_bytes_ -= bytes; }
  std::optional<HttpResponse> CheckHead(const HttpRequest& request,
                                        std::optional<uint64_t> content_length) override;
  std::vector<std::pair<std::string, std::string>> CorsHeaders(const HttpRequest& request) override;
  std::optional<HttpResponse> Handle(const HttpRequest& request, protocol::RequestId rid,
                                     AnswerSink* sink) override;
  FileThread& files() override { return files_; }
  void OnTaken(protocol::RequestId rid, size_t payload_bytes) override;
  void OnClientGone(protocol::RequestId rid) override;
  void OnSessionClosed(HttpSession* session) override;

 private:
  void WaitAccept();
  void AcceptSome();
  void AddSession(boost::asio::ip::tcp::socket socket);
  bool MakeRoom(int64_t now_ms);
  Status OnControl(protocol::ReceivedFrame received);
  Status AddWorker(const protocol::ChannelOffer& offer, UniqueFd socket);
  void ApplySettings(protocol::FrontendSettings settings);
  void BeginDrain(int32_t timeout_s);
  void TellDemand();
  void WaitTick();
  void WaitDeadline();
  void OnTick();
  void CheckDrained(int64_t now_ms);

  protocol::FrontendSettings settings_;
  shm::StatusBlock status_;
  boost::asio::io_context io_;
  FileThread files_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer tick_;
  boost::asio::steady_timer deadline_;  // the first one of a request
  std::optional<int64_t> waited_deadline_ms_;
  std::vector<char> scratch_;
  ModelTable models_;
  Dispatcher dispatcher_;
  std::shared_ptr<FramedChannel> control_;
  MemoryCalls memory_calls_{
      [this](const protocol::MemoryQuery& query) { control_->Send(protocol::MakeFrame(query)); }};
  std::unordered_map<WorkerId, std::shared_ptr<FramedChannel>> workers_;
  std::unordered_map<HttpSession*, std::shared_ptr<HttpSession>> sessions_;
  size_t refused_sessions_ = 0;
  size_t bodies_bytes_ = 0;
  // Until the first roster connections queue in the kernel: nothing true could be answered yet.
  bool knows_models_ = false;
  bool waits_accept_ = false;
  int64_t drain_deadline_ms_ = 0;
  bool drain_ended_ = false;  // its time is over: what runs was ended
  bool drained_sent_ = false;
};

}  // namespace perdure::frontend
