// One client's connection: reads requests one after the other, writes their responses, notices a
// client that is gone, too slow, or slow on purpose.
//
// Not thread-safe. Kept alive by its host until OnSessionClosed and by its pending operations.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "frontend/dispatcher.h"
#include "frontend/file_thread.h"
#include "frontend/http_parser.h"
#include "frontend/http_types.h"
#include "protocol/messages.h"

namespace perdure::frontend {

class HttpSession;

// What a session needs of the server.
class SessionHost {
 public:
  virtual ~SessionHost() = default;
  virtual const protocol::FrontendSettings& settings() const = 0;
  virtual bool draining() const = 0;
  // A buffer for one read; its contents are not kept from call to call.
  virtual std::span<char> scratch() = 0;
  // False: the bodies being received, together, have no room for so many bytes more.
  virtual bool ReserveBody(size_t bytes) = 0;
  virtual void ReleaseBody(size_t bytes) = 0;
  // The refusal that the header alone asks for.
  virtual std::optional<HttpResponse> CheckHead(const HttpRequest& request,
                                                std::optional<uint64_t> content_length) = 0;
  virtual std::vector<std::pair<std::string, std::string>> CorsHeaders(
      const HttpRequest& request) = 0;
  // The response, or nothing where a generation was started that answers through `sink`.
  virtual std::optional<HttpResponse> Handle(const HttpRequest& request, protocol::RequestId rid,
                                             AnswerSink* sink) = 0;
  virtual FileThread& files() = 0;
  virtual void OnTaken(protocol::RequestId rid, size_t payload_bytes) = 0;
  virtual void OnClientGone(protocol::RequestId rid) = 0;
  virtual void OnSessionClosed(HttpSession* session) = 0;
};

class HttpSession final : public AnswerSink, public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(boost::asio::ip::tcp::socket socket, SessionHost* host);
  ~HttpSession() override;

  void Start();
  // Instead of Start: one response, then the end.
  void Refuse(HttpResponse response);
  // Looks at deadlines.
  void OnTick(int64_t now_ms);
  void Close();

  // Between requests since so many milliseconds; empty while there is one.
  std::optional<int64_t> idle_ms(int64_t now_ms) const;
  // A request is being answered.
  bool busy() const { return state_ == State::kResponding; }
  // The host's own mark: beyond connections_max, being told so.
  bool refused() const { return refused_; }

  void Respond(HttpResponse response) override;
  void RespondWithFile(HttpResponse head, UniqueFd file) override;
  void BeginStream(HttpResponse head) override;
  void Stream(std::string bytes, size_t payload_bytes) override;
  void EndStream() override;
  bool caught_up() const override { return outbox_.empty(); }

 private:
  enum class State {
    kIdle,        // between requests
    kReading,     // a request's bytes have begun to come
    kResponding,  // a generation runs, or a response is being written
    kLingering,   // all is written and the write side closed; reads until the client closes, too
    kClosed,
  };
  struct Outgoing {
    std::string bytes;
    size_t sent = 0;
    size_t payload_bytes = 0;
  };
  // A body that is received into a file. While some of it is written nothing more is read.
  struct Upload {
    std::shared_ptr<UploadedFile> file;
    std::string pending;
    bool is_busy = false;
    uint64_t bytes_at_deadline = 0;
  };
  // A file that is sent: a piece is read when the client has taken the one before the last.
  struct Download {
    UniqueFd fd;
    uint64_t offset = 0, bytes = 0;
    bool is_busy = false;
  };

  void WaitRead();
  void WaitWrite();
  void OnReadable();
  void OnInputEnd(bool reset);
  void Advance();
  void BeginRequest();
  bool CountBody();
  void Dispatch();
  HttpResponse Completed(HttpResponse response) const;
  void Enqueue(std::string bytes, size_t payload_bytes);
  void Flush();
  void FinishExchange();
  void ResumeReading();
  void CloseLater();
  // http_session_files.cc
  std::optional<Error> BeginUpload();
  void TakeUploaded();
  void OnUploadWritten(const Status& written);
  void DropUpload();
  void SendMoreOfFile();
  void OnPieceRead(std::string piece, const Status& read);
  void DropDownload();

  boost::asio::ip::tcp::socket socket_;
  SessionHost* host_;
  const std::string peer_;
  State state_ = State::kIdle;
  bool waits_read_ = false;
  bool waits_write_ = false;
  bool input_ended_ = false;  // the client has closed its write side
  bool refused_ = false;
  int64_t idle_since_ms_ = 0;
  int64_t deadline_ms_ = 0;  // of kIdle, kReading and kLingering

  std::string input_;
  std::optional<HttpParser> parser_;
  bool head_checked_ = false;
  size_t body_reserved_ = 0;

  protocol::RequestId rid_ = 0;
  bool generating_ = false;  // the dispatcher knows rid_ and this sink
  bool answered_ = false;    // the whole response is in the outbox
  bool head_only_ = false;   // HEAD
  bool keep_alive_ = true;
  bool chunked_ = false;
  bool http10_ = false;
  std::vector<std::pair<std::string, std::string>> cors_headers_;

  std::shared_ptr<Upload> upload_;
  std::shared_ptr<Download> download_;

  std::deque<Outgoing> outbox_;
  int64_t write_progress_ms_ = 0;
};

}  // namespace perdure::frontend
