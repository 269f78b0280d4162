// Bodies of generation requests → what the workers are sent. Pure.
//
// Every field is checked for type and range; errors name the field. Fields of other servers' APIs
// that are unknown here are ignored; fields that are known but would change the answer in a way
// that this version cannot are refused (docs/api.md has the list).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"
#include "protocol/messages.h"

namespace perdure::frontend {

struct ParsedRequest {
  std::string model;  // empty: the default model
  bool stream = false;
  bool include_usage = false;  // of a stream
  protocol::GenerationRequest generation;
};

// What the request gets that its body does not say.
struct RequestDefaults {
  uint64_t seed = 0;
  int64_t unix_time = 0;
  std::string tenant = {};  // of its key
  bool store = true;        // as its key has it
};

// POST /v1/chat/completions.
Result<ParsedRequest> ParseChatRequest(std::string_view body, const RequestDefaults& defaults);
// POST /v1/completions.
Result<ParsedRequest> ParseCompletionRequest(std::string_view body,
                                             const RequestDefaults& defaults);

}  // namespace perdure::frontend
