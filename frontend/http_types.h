// Requests and responses as plain values, so that everything but the parser and the session is free
// of sockets and of Beast.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace perdure::frontend {

struct HttpHeader {
  std::string name;  // lower case
  std::string value;
};

// A body that was received into a file, which has no name.
struct UploadedFile {
  UniqueFd fd;
  uint64_t bytes = 0;
};

struct HttpRequest {
  std::string method;  // as sent; methods are case-sensitive
  std::string target;
  int version_minor = 1;
  std::vector<HttpHeader> headers;
  std::string body;
  std::shared_ptr<UploadedFile> upload;  // instead of a body, of requests that bring a file
  bool keep_alive = true;
  std::string peer;  // the client's machine: an address, or an IPv6 network

  // The first header of that (lower-case) name; null where there is none.
  const std::string* Find(std::string_view name) const {
    for (const HttpHeader& header : headers)
      if (header.name == name) return &header.value;
    return nullptr;
  }
  int Count(std::string_view name) const {
    int count = 0;
    for (const HttpHeader& header : headers) count += header.name == name;
    return count;
  }
};

// Length, connection, date and request id are added by whoever sends it.
struct HttpResponse {
  int status = 200;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::optional<uint64_t> content_length;  // where the body follows from elsewhere
  bool close = false;                      // the connection ends with this response
};

// ASCII only, as header names, tokens and host names are.
inline char AsciiLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }
inline std::string AsciiLower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = AsciiLower(c);
  return out;
}
inline std::string_view TrimBlanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace perdure::frontend
