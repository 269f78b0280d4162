#include "base/result.h"

#include <cerrno>
#include <cstring>

namespace perdure {

const ErrorInfo& InfoOf(ErrorCode code) {
  switch (code) {
#define PERDURE_ERROR(name, wire, http, type, retryable)            \
  case ErrorCode::name: {                                           \
    static constexpr ErrorInfo kInfo{#name, http, type, retryable}; \
    return kInfo;                                                   \
  }
#include "base/errors.inc"
#undef PERDURE_ERROR
  }
  return InfoOf(ErrorCode::internal);
}

ErrorCode ErrorCodeFromWire(uint16_t number) {
  switch (number) {
#define PERDURE_ERROR(name, wire, http, type, retryable) \
  case wire:                                             \
    return ErrorCode::name;
#include "base/errors.inc"
#undef PERDURE_ERROR
  }
  return ErrorCode::internal;
}

tl::unexpected<Error> ErrWithContext(std::string_view context, Error error) {
  error.message = std::string(context) + ": " + error.message;
  return Err(std::move(error));
}

tl::unexpected<Error> ErrFromErrno(std::string_view what) {
  const int saved = errno;
  return Err(ErrorCode::io_error, std::string(what) + ": " + std::strerror(saved));
}

}  // namespace perdure
