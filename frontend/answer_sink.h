// Where one answer to an HTTP request goes.
#pragma once

#include <cstddef>
#include <string>

#include "base/unique_fd.h"
#include "frontend/http_types.h"

namespace perdure::frontend {

// Either Respond or RespondWithFile once, or BeginStream, Stream…, EndStream; after Respond or
// EndStream, or after the sink's owner called OnClientGone, it is not used again.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  virtual void Respond(HttpResponse response) = 0;
  // The same with a file, of head.content_length bytes, as the body.
  virtual void RespondWithFile(HttpResponse head, UniqueFd file) = 0;
  virtual void BeginStream(HttpResponse head) = 0;
  // OnTaken(rid, payload_bytes) is called once the kernel has taken all of `bytes`.
  virtual void Stream(std::string bytes, size_t payload_bytes) = 0;
  virtual void EndStream() = 0;
  // The kernel has taken everything so far.
  virtual bool caught_up() const = 0;
};

}  // namespace perdure::frontend
