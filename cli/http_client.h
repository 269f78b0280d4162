// A small HTTP client for talking to a Perdure server (libcurl behind it).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace perdure::cli {

struct HttpResponse {
  int status = 0;
  std::string body;  // empty when `on_data` took it
};

struct HttpRequest {
  std::string url;
  std::string body;     // POSTed as content_type when not empty
  std::string api_key;  // sent as a bearer token when not empty
  int timeout_s = 0;    // 0: none
  // Takes a 200's body piece by piece; returning false ends the transfer.
  std::function<bool(std::string_view)> on_data;
  std::string method{};  // empty: POST where there is a body, else GET
  // Instead of `body`: POSTed from here to the file's end; stays the caller's. -1: none.
  int body_fd = -1;
  std::string content_type = "application/json";
  std::vector<std::string> headers{};  // more of them: "name: value"
};

// io_error when no response came (refused, cut off, timed out).
Result<HttpResponse> Perform(const HttpRequest& request);

}  // namespace perdure::cli
