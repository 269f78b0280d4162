#include "frontend/http_parser.h"

#include <fmt/format.h>

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace perdure::frontend {
namespace {

namespace http = boost::beast::http;
using BeastView = boost::beast::string_view;
using BeastError = boost::beast::error_code;

std::string_view View(BeastView text) { return {text.data(), text.size()}; }

Error FromBeast(const BeastError& ec, uint64_t body_bytes_max) {
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow)
    return {ErrorCode::header_too_large,
            fmt::format("The request's header exceeds {} bytes.", limits::kHttpHeaderBytesMax),
            {},
            0};
  if (ec == http::error::body_limit)
    return {ErrorCode::payload_too_large,
            fmt::format("The request's body exceeds {} bytes.", body_bytes_max),
            {},
            0};
  return {ErrorCode::invalid_request,
          fmt::format("The request is not valid HTTP/1.1: {}.", ec.message()),
          {},
          0};
}

}  // namespace

class HttpParser::Impl final : public http::basic_parser<true> {
 public:
  explicit Impl(BodyLimit limit) : limit_(std::move(limit)) {
    header_limit(static_cast<uint32_t>(limits::kHttpHeaderBytesMax));
  }

  Result<size_t> Feed(std::string_view bytes) {
    size_t taken = 0;
    while (!is_done()) {
      const std::string_view rest = bytes.substr(taken);
      if (rest.empty() && got_some()) break;
      const bool in_header = !is_header_done();
      BeastError ec;
      const size_t n = put(boost::asio::const_buffer(rest.data(), rest.size()), ec);
      taken += n;
      if (problem_) return Err(*problem_);
      if (ec && ec != http::error::need_more) return Err(FromBeast(ec, body_bytes_max_));
      if (in_header) {
        header_bytes_ += n;
        if (header_bytes_ > limits::kHttpHeaderBytesMax)
          return Err(FromBeast(make_error_code(http::error::header_limit), body_bytes_max_));
        if (is_header_done()) {
          RETURN_IF_ERROR(CheckHeader());
          break;
        }
      }
      if (ec == http::error::need_more) {
        // A header, a chunk's header or a trailer that does not end.
        if (bytes.size() - taken + (in_header ? header_bytes_ : 0) >= limits::kHttpHeaderBytesMax)
          return Err(FromBeast(make_error_code(http::error::header_limit), body_bytes_max_));
        break;
      }
      if (n == 0) break;
    }
    return taken;
  }

  bool expects_continue() const { return expects_continue_; }

  HttpRequest request_;

 private:
  void Refuse(ErrorCode code, std::string message, BeastError& ec) {
    problem_ = Error{code, std::move(message), {}, 0};
    ec = make_error_code(http::error::bad_value);
  }

  Status CheckHeader() {
    request_.keep_alive = keep_alive();
    if (request_.Count("host") > 1)
      return Err(ErrorCode::invalid_request, "The request names its Host more than once.");
    if (const std::string* coding = request_.Find("transfer-encoding")) {
      // Anything else would leave open where the body ends.
      if (request_.Count("transfer-encoding") > 1 || AsciiLower(TrimBlanks(*coding)) != "chunked")
        return Err(ErrorCode::invalid_request,
                   "The only transfer coding that is understood is a single \"chunked\".");
      if (request_.Find("content-length"))
        return Err(ErrorCode::invalid_request,
                   "The request has both a Content-Length and a Transfer-Encoding.");
      if (request_.version_minor == 0)
        return Err(ErrorCode::invalid_request, "HTTP/1.0 has no transfer codings.");
    }
    if (const std::string* expect = request_.Find("expect")) {
      if (AsciiLower(TrimBlanks(*expect)) != "100-continue")
        return Err(ErrorCode::invalid_request,
                   "The only expectation that is understood is 100-continue.");
      expects_continue_ = request_.version_minor >= 1 && !is_done();
    }
    return {};
  }

  void on_request_impl(http::verb, BeastView method, BeastView target, int version,
                       BeastError& ec) override {
    if (method.size() > limits::kHttpMethodBytesMax)
      return Refuse(ErrorCode::invalid_request, "The request's method is too long.", ec);
    if (target.size() > limits::kHttpTargetBytesMax)
      return Refuse(
          ErrorCode::header_too_large,
          fmt::format("The request's target exceeds {} bytes.", limits::kHttpTargetBytesMax), ec);
    request_.method = View(method);
    request_.target = View(target);
    request_.version_minor = version - 10;
    body_bytes_max_ = limit_(request_.method, request_.target);
    body_limit(body_bytes_max_);
  }
  void on_response_impl(int, BeastView, int, BeastError&) override {}
  void on_field_impl(http::field, BeastView name, BeastView value, BeastError& ec) override {
    // Trailers are counted and dropped: what was checked in the header must not change after it.
    if (++header_count_ > limits::kHttpHeadersMax)
      return Refuse(ErrorCode::header_too_large,
                    fmt::format("The request has more than {} headers.", limits::kHttpHeadersMax),
                    ec);
    if (in_body_) return;
    request_.headers.push_back({AsciiLower(View(name)), std::string(View(value))});
  }
  void on_header_impl(BeastError&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, BeastError&) override {
    in_body_ = true;
  }
  size_t on_body_impl(BeastView body, BeastError&) override {
    request_.body.append(body.data(), body.size());
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t, BeastView extensions, BeastError& ec) override {
    extension_bytes_ += extensions.size();
    if (extension_bytes_ > limits::kHttpChunkExtensionBytesMax)
      Refuse(ErrorCode::header_too_large,
             fmt::format("The request's chunk extensions exceed {} bytes.",
                         limits::kHttpChunkExtensionBytesMax),
             ec);
  }
  size_t on_chunk_body_impl(std::uint64_t, BeastView body, BeastError& ec) override {
    return on_body_impl(body, ec);
  }
  void on_finish_impl(BeastError&) override {}

  const BodyLimit limit_;
  uint64_t body_bytes_max_ = 0;
  size_t header_bytes_ = 0;
  size_t header_count_ = 0;
  size_t extension_bytes_ = 0;
  bool in_body_ = false;
  bool expects_continue_ = false;
  std::optional<Error> problem_;
};

HttpParser::HttpParser(uint64_t body_bytes_max)
    : HttpParser([body_bytes_max](std::string_view, std::string_view) { return body_bytes_max; }) {}
HttpParser::HttpParser(BodyLimit body_limit)
    : impl_(std::make_unique<Impl>(std::move(body_limit))) {}
HttpParser::HttpParser(HttpParser&&) noexcept = default;
HttpParser& HttpParser::operator=(HttpParser&&) noexcept = default;
HttpParser::~HttpParser() = default;

Result<size_t> HttpParser::Feed(std::string_view bytes) { return impl_->Feed(bytes); }
bool HttpParser::started() const { return impl_->got_some(); }
bool HttpParser::header_done() const { return impl_->is_header_done(); }
bool HttpParser::done() const { return impl_->is_done(); }
bool HttpParser::expects_continue() const { return impl_->expects_continue(); }
std::optional<uint64_t> HttpParser::content_length() const {
  CHECK(header_done());
  const auto length = impl_->content_length();
  return length ? std::optional<uint64_t>(*length) : std::nullopt;
}
HttpRequest& HttpParser::request() { return impl_->request_; }
const HttpRequest& HttpParser::request() const { return impl_->request_; }

}  // namespace perdure::frontend
