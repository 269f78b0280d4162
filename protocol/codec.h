// Messages as bytes (base/codec.h).
#pragma once

#include <string_view>
#include <utility>

#include "base/codec.h"
#include "base/result.h"

namespace perdure::protocol {

using perdure::Encode;

template <HasFields T>
Result<T> Decode(std::string_view bytes) {
  auto message = DecodeExactly<T>(bytes);
  if (!message) return Err(ErrorCode::protocol_error, "a message of another process is malformed");
  return std::move(*message);
}

}  // namespace perdure::protocol
