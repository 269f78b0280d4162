// Bytes of one HTTP/1.x request → HttpRequest, incrementally and bounded (RFC 9112).
//
// Beast's parser does the grammar; this class adds what it leaves open: the sum of all header bytes
// (its own limit is per call), the number of headers, chunk extensions, transfer codings other than
// a single "chunked", and repeated Host fields. One parser reads one request. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include "base/result.h"
#include "frontend/http_types.h"

namespace perdure::frontend {

class HttpParser {
 public:
  explicit HttpParser(uint64_t body_bytes_max);
  // Where it depends on what is asked for.
  using BodyLimit = std::function<uint64_t(std::string_view method, std::string_view target)>;
  explicit HttpParser(BodyLimit body_limit);
  HttpParser(HttpParser&&) noexcept;
  HttpParser& operator=(HttpParser&&) noexcept;
  ~HttpParser();

  // Reads from the front of `bytes` and says how many it took; the rest is to be shown again with
  // more behind it, or belongs to the next request. Stops once after the header, so that the caller
  // can refuse before the body arrives. After an error the connection cannot be read further.
  Result<size_t> Feed(std::string_view bytes);

  bool started() const;  // has seen a byte
  bool header_done() const;
  bool done() const;
  bool expects_continue() const;  // header_done: the client waits for "100 Continue"
  std::optional<uint64_t> content_length() const;
  // Valid from header_done on; the body is whole once done.
  HttpRequest& request();
  const HttpRequest& request() const;

 private:
  class Impl;  // Beast stays out of this header
  std::unique_ptr<Impl> impl_;
};

}  // namespace perdure::frontend
