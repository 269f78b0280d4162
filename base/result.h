// Errors that can happen (peers, disks, input, other processes' bytes) as values.
//
// Bugs are not errors: they end in CHECK (base/check.h). Expected absence is std::optional.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace perdure {

enum class ErrorCode : uint16_t {
#define PERDURE_ERROR(name, wire, http, type, retryable) name = wire,
#include "base/errors.inc"
#undef PERDURE_ERROR
};

struct ErrorInfo {
  std::string_view name;  // what clients see as "code"
  int http_status;
  std::string_view openai_type;
  bool retryable;
};

// The row of errors.inc. A number that is not in the table gives the row of `internal`.
const ErrorInfo& InfoOf(ErrorCode code);
// For numbers read from the wire.
ErrorCode ErrorCodeFromWire(uint16_t number);

struct Error {
  ErrorCode code = ErrorCode::internal;
  // One sentence for a person: names the thing and the next step.
  std::string message;
  // The request field at fault, empty where none is.
  std::string param;
  // Seconds after which trying again is sensible; 0 = nothing known.
  int retry_after_s = 0;
};

template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

using Status = Result<void>;

inline tl::unexpected<Error> Err(ErrorCode code, std::string message, std::string param = {}) {
  return tl::unexpected<Error>(Error{code, std::move(message), std::move(param), 0});
}
inline tl::unexpected<Error> Err(Error error) { return tl::unexpected<Error>(std::move(error)); }

// The error, its message preceded by "context: ".
tl::unexpected<Error> ErrWithContext(std::string_view context, Error error);

// "what: strerror(errno)" as io_error.
tl::unexpected<Error> ErrFromErrno(std::string_view what);

#define PERDURE_CONCAT_INNER(a, b) a##b
#define PERDURE_CONCAT(a, b) PERDURE_CONCAT_INNER(a, b)

// Returns from the calling function when `expr` is an error.
#define RETURN_IF_ERROR(expr)                                   \
  do {                                                          \
    if (auto perdure_status = (expr); !perdure_status)          \
      return ::perdure::Err(std::move(perdure_status).error()); \
  } while (0)

// ASSIGN_OR_RETURN(auto x, F()): x = the value, or returns F's error.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(PERDURE_CONCAT(perdure_result_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(result, lhs, expr)                 \
  auto result = (expr);                                          \
  if (!result) return ::perdure::Err(std::move(result).error()); \
  lhs = std::move(*result)

}  // namespace perdure
