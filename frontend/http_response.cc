#include "frontend/http_response.h"

#include <fmt/format.h>

#include <ctime>

#include "base/check.h"
#include "frontend/response_writer.h"

namespace perdure::frontend {

std::string_view ReasonPhrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 507:
      return "Insufficient Storage";
    default:
      return "Unknown";
  }
}

std::string HttpDate(int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm parts{};
  gmtime_r(&time, &parts);
  // Names by hand: strftime's depend on the locale.
  static constexpr std::string_view kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr std::string_view kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT", kDays[parts.tm_wday],
                     parts.tm_mday, kMonths[parts.tm_mon], parts.tm_year + 1900, parts.tm_hour,
                     parts.tm_min, parts.tm_sec);
}

std::string SerializeHead(const HttpResponse& response, BodyFraming framing, int64_t unix_s) {
  std::string out =
      fmt::format("HTTP/1.1 {} {}\r\n", response.status, ReasonPhrase(response.status));
  for (const auto& [name, value] : response.headers) {
    CHECK(value.find_first_of("\r\n") == std::string::npos);
    out += fmt::format("{}: {}\r\n", name, value);
  }
  switch (framing) {
    case BodyFraming::kLength:
      // RFC 9110 §8.6: none in a 204.
      if (response.status != 204)
        out += fmt::format("content-length: {}\r\n",
                           response.content_length.value_or(response.body.size()));
      break;
    case BodyFraming::kChunked:
      out += "transfer-encoding: chunked\r\n";
      break;
    case BodyFraming::kClose:
      break;
  }
  out += fmt::format("connection: {}\r\n", response.close ? "close" : "keep-alive");
  out += fmt::format("date: {}\r\nserver: perdure\r\n\r\n", HttpDate(unix_s));
  return out;
}

std::string Chunk(std::string_view bytes) {
  if (bytes.empty()) return {};
  return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

HttpResponse JsonResponse(int status, std::string body) {
  HttpResponse response;
  response.status = status;
  response.headers = {{"content-type", "application/json"},
                      {"cache-control", "no-store"},
                      {"x-content-type-options", "nosniff"}};
  response.body = std::move(body);
  return response;
}

HttpResponse ErrorResponse(const Error& error) {
  const ErrorInfo& info = InfoOf(error.code);
  HttpResponse response = JsonResponse(info.http_status, ErrorBody(error));
  if (info.retryable)
    response.headers.emplace_back(
        "retry-after", std::to_string(error.retry_after_s > 0 ? error.retry_after_s : 1));
  // OpenAI's SDKs would try again by themselves, with the same deadline.
  if (error.code == ErrorCode::deadline_exceeded)
    response.headers.emplace_back("x-should-retry", "false");
  if (info.http_status == 401) response.headers.emplace_back("www-authenticate", "Bearer");
  return response;
}

}  // namespace perdure::frontend
