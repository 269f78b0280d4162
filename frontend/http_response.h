// Responses → bytes. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "frontend/http_types.h"

namespace perdure::frontend {

std::string_view ReasonPhrase(int status);

// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 §5.6.7).
std::string HttpDate(int64_t unix_s);

enum class BodyFraming {
  kLength,   // content-length of response.body
  kChunked,  // HTTP/1.1 stream
  kClose,    // HTTP/1.0 stream: ends with the connection
};

// Status line and headers up to the empty line; never the body. Values must hold no line breaks;
// those that do are a bug.
std::string SerializeHead(const HttpResponse& response, BodyFraming framing, int64_t unix_s);

// One chunk of a chunked body; an empty `bytes` gives nothing, since that would end the body.
std::string Chunk(std::string_view bytes);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

HttpResponse JsonResponse(int status, std::string body);
// The error object with the status of errors.inc, retry-after where it helps, and `allow` or
// `www-authenticate` where the status demands them.
HttpResponse ErrorResponse(const Error& error);

}  // namespace perdure::frontend
