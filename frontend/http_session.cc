#include "frontend/http_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <utility>

#include "base/check.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/random.h"
#include "frontend/access.h"
#include "frontend/conversation_file_api.h"
#include "frontend/http_response.h"
#include "frontend/query.h"
#include "frontend/response_writer.h"

namespace perdure::frontend {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCodeAsio = boost::system::error_code;

namespace {

// Empty where the client is gone already.
std::string PeerOf(const tcp::socket& socket) {
  ErrorCodeAsio ec;
  const tcp::endpoint endpoint = socket.remote_endpoint(ec);
  return ec ? std::string() : PeerName(endpoint.address().to_string());
}

}  // namespace

HttpSession::HttpSession(tcp::socket socket, SessionHost* host)
    : socket_(std::move(socket)), host_(host), peer_(PeerOf(socket_)) {}

HttpSession::~HttpSession() { CHECK(!generating_); }

void HttpSession::Start() {
  idle_since_ms_ = MonotonicMs();
  // A fresh connection is expected to ask soon.
  deadline_ms_ = idle_since_ms_ + int64_t{host_->settings().header_timeout_s} * 1000;
  WaitRead();
}

void HttpSession::Refuse(HttpResponse response) {
  refused_ = true;
  keep_alive_ = false;
  state_ = State::kResponding;
  rid_ = RandomU64();
  Respond(std::move(response));
  WaitRead();
}

std::optional<int64_t> HttpSession::idle_ms(int64_t now_ms) const {
  if (state_ != State::kIdle || !outbox_.empty()) return std::nullopt;
  return now_ms - idle_since_ms_;
}

void HttpSession::OnTick(int64_t now_ms) {
  if (state_ == State::kClosed) return;
  const int64_t slow_ms = int64_t{host_->settings().slow_client_timeout_s} * 1000;
  if (!outbox_.empty() && now_ms - write_progress_ms_ >= slow_ms) {
    if (generating_)
      LogInfo("{}: the client has taken nothing for {} s", RequestIdText(rid_), slow_ms / 1000);
    return Close();
  }
  if (state_ == State::kResponding || now_ms < deadline_ms_) return;
  if (state_ != State::kReading) return Close();
  keep_alive_ = false;
  Respond(ErrorResponse(
      {ErrorCode::request_timeout,
       fmt::format("The request was not complete after {} s.", host_->settings().header_timeout_s),
       {},
       0}));
}

void HttpSession::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  ErrorCodeAsio ignored;
  socket_.close(ignored);
  outbox_.clear();
  input_.clear();
  parser_.reset();
  DropUpload();
  DropDownload();
  host_->ReleaseBody(std::exchange(body_reserved_, 0));
  if (std::exchange(generating_, false)) host_->OnClientGone(rid_);
  host_->OnSessionClosed(this);
}

void HttpSession::CloseLater() {
  // The caller may be the dispatcher or the host in the middle of its own loop.
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->Close(); });
}

// --- Reading ------------------------------------------------------------------------------------

void HttpSession::WaitRead() {
  if (waits_read_ || input_ended_ || state_ == State::kClosed) return;
  if (upload_ && upload_->is_busy) return;  // what comes faster than the disk waits
  waits_read_ = true;
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const ErrorCodeAsio& ec) {
    self->waits_read_ = false;
    if (!ec && self->state_ != State::kClosed) self->OnReadable();
  });
}

void HttpSession::OnReadable() {
  std::span<char> scratch = host_->scratch();
  if (state_ == State::kResponding) {
    // Following requests wait in the kernel beyond this; FinishExchange goes on reading.
    if (input_.size() >= limits::kHttpPipelineBytesMax) return;
    scratch =
        scratch.first(std::min(scratch.size(), limits::kHttpPipelineBytesMax - input_.size()));
  }
  ErrorCodeAsio ec;
  const size_t n = socket_.read_some(asio::buffer(scratch.data(), scratch.size()), ec);
  if (ec == asio::error::would_block || ec == asio::error::interrupted) return WaitRead();
  if (ec) return OnInputEnd(ec != asio::error::eof);
  if (state_ != State::kLingering) {
    input_.append(scratch.data(), n);
    Advance();
  }
  WaitRead();
}

void HttpSession::OnInputEnd(bool reset) {
  input_ended_ = true;
  // A response that is whole still goes to a client that has only closed its write side.
  if (state_ == State::kResponding && !generating_ && !reset) return;
  Close();
}

void HttpSession::BeginRequest() {
  state_ = State::kReading;
  const protocol::FrontendSettings& settings = host_->settings();
  parser_.emplace([upload = settings.upload_bytes_max, body = settings.body_bytes_max](
                      std::string_view method, std::string_view target) {
    return IsUpload(method, PathOf(target)) ? upload : body;
  });
  head_checked_ = false;
  rid_ = RandomU64();
  answered_ = head_only_ = chunked_ = http10_ = false;
  keep_alive_ = true;
  cors_headers_.clear();
  deadline_ms_ = MonotonicMs() + int64_t{host_->settings().header_timeout_s} * 1000;
}

bool HttpSession::CountBody() {
  const size_t size = parser_->request().body.size();
  if (size <= body_reserved_) return true;
  if (!host_->ReserveBody(size - body_reserved_)) return false;
  body_reserved_ = size;
  return true;
}

void HttpSession::Advance() {
  while (state_ == State::kIdle || state_ == State::kReading) {
    if (state_ == State::kIdle) {
      // RFC 9112 §2.2: empty lines before a request line are skipped.
      input_.erase(0, std::min(input_.find_first_not_of("\r\n"), input_.size()));
      if (input_.empty()) return;
      BeginRequest();
    }
    const auto taken = parser_->Feed(input_);
    if (!taken) {
      keep_alive_ = false;
      return Respond(ErrorResponse(taken.error()));
    }
    input_.erase(0, *taken);
    if (upload_) {
      TakeUploaded();
    } else if (!CountBody()) {
      keep_alive_ = false;
      return Respond(ErrorResponse(
          {ErrorCode::overloaded, "Too many large requests are being received.", {}, 1}));
    }
    if (parser_->header_done() && !head_checked_) {
      head_checked_ = true;
      const HttpRequest& request = parser_->request();
      head_only_ = request.method == "HEAD";
      http10_ = request.version_minor == 0;
      keep_alive_ = request.keep_alive && !host_->draining();
      cors_headers_ = host_->CorsHeaders(request);
      if (auto refusal = host_->CheckHead(request, parser_->content_length())) {
        if (!parser_->done()) keep_alive_ = false;  // its body is not read
        return Respond(std::move(*refusal));
      }
      if (IsUpload(request.method, PathOf(request.target))) {
        if (const auto refusal = BeginUpload()) {
          keep_alive_ = false;
          return Respond(ErrorResponse(*refusal));
        }
      }
      if (parser_->expects_continue() && input_.empty())
        Enqueue("HTTP/1.1 100 Continue\r\n\r\n", 0);
    }
    if (upload_ && upload_->is_busy) return;
    if (parser_->done()) return Dispatch();
    if (*taken == 0) return;
  }
}

void HttpSession::Dispatch() {
  HttpRequest request = std::move(parser_->request());
  parser_.reset();
  if (upload_) request.upload = upload_->file;
  request.peer = peer_;
  DropUpload();
  state_ = State::kResponding;
  auto response = host_->Handle(request, rid_, this);
  host_->ReleaseBody(std::exchange(body_reserved_, 0));
  if (response) return Respond(std::move(*response));
  generating_ = true;
}

// --- Answering ----------------------------------------------------------------------------------

HttpResponse HttpSession::Completed(HttpResponse response) const {
  response.headers.emplace_back("x-request-id", RequestIdText(rid_));
  response.headers.insert(response.headers.end(), cors_headers_.begin(), cors_headers_.end());
  response.close = response.close || !keep_alive_ || host_->draining();
  return response;
}

void HttpSession::Respond(HttpResponse response) {
  state_ = State::kResponding;
  generating_ = false;
  answered_ = true;
  DropUpload();
  response = Completed(std::move(response));
  keep_alive_ = !response.close;
  std::string bytes = SerializeHead(response, BodyFraming::kLength, UnixSeconds());
  if (!head_only_) bytes += response.body;
  Enqueue(std::move(bytes), 0);
}

void HttpSession::BeginStream(HttpResponse head) {
  chunked_ = !http10_;
  if (!chunked_) keep_alive_ = false;
  head = Completed(std::move(head));
  keep_alive_ = !head.close;
  Enqueue(
      SerializeHead(head, chunked_ ? BodyFraming::kChunked : BodyFraming::kClose, UnixSeconds()),
      0);
}

void HttpSession::Stream(std::string bytes, size_t payload_bytes) {
  Enqueue(chunked_ ? Chunk(bytes) : std::move(bytes), payload_bytes);
}

void HttpSession::EndStream() {
  generating_ = false;
  answered_ = true;
  Enqueue(chunked_ ? std::string(kLastChunk) : std::string(), 0);
}

void HttpSession::Enqueue(std::string bytes, size_t payload_bytes) {
  if (state_ == State::kClosed) return;
  if (outbox_.empty()) write_progress_ms_ = MonotonicMs();
  outbox_.push_back({std::move(bytes), 0, payload_bytes});
  if (outbox_.size() == 1 && !waits_write_) Flush();
}

void HttpSession::WaitWrite() {
  if (waits_write_) return;
  waits_write_ = true;
  socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](const ErrorCodeAsio& ec) {
    self->waits_write_ = false;
    if (!ec && self->state_ != State::kClosed) self->Flush();
  });
}

void HttpSession::Flush() {
  while (!outbox_.empty()) {
    Outgoing& out = outbox_.front();
    if (out.sent < out.bytes.size()) {
      ErrorCodeAsio ec;
      const size_t n = socket_.write_some(
          asio::buffer(out.bytes.data() + out.sent, out.bytes.size() - out.sent), ec);
      if (ec == asio::error::would_block || ec == asio::error::interrupted) return WaitWrite();
      if (ec) return CloseLater();
      out.sent += n;
      write_progress_ms_ = MonotonicMs();
      if (out.sent < out.bytes.size()) return WaitWrite();
    }
    const size_t payload_bytes = out.payload_bytes;
    outbox_.pop_front();
    if (payload_bytes > 0) host_->OnTaken(rid_, payload_bytes);
  }
  SendMoreOfFile();
  if (answered_ && state_ == State::kResponding)
    asio::post(socket_.get_executor(), [self = shared_from_this()] { self->FinishExchange(); });
}

void HttpSession::FinishExchange() {
  if (state_ != State::kResponding || !answered_ || !outbox_.empty()) return;
  if (input_ended_) return Close();
  if (!keep_alive_) {
    ErrorCodeAsio ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    state_ = State::kLingering;
    deadline_ms_ = MonotonicMs() + limits::kHttpLingerMs;
    input_.clear();
    parser_.reset();
    host_->ReleaseBody(std::exchange(body_reserved_, 0));
    return WaitRead();
  }
  ResumeReading();
}

void HttpSession::ResumeReading() {
  state_ = State::kIdle;
  parser_.reset();
  host_->ReleaseBody(std::exchange(body_reserved_, 0));
  answered_ = false;
  idle_since_ms_ = MonotonicMs();
  deadline_ms_ = idle_since_ms_ + int64_t{host_->settings().idle_timeout_s} * 1000;
  Advance();
  WaitRead();
}

}  // namespace perdure::frontend
