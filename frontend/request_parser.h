// Bodies of generation requests → what the workers are sent. Pure.
//
// Every field is checked for type and range; errors name the field. Fields of other servers' APIs
// that are unknown here are ignored; fields that are known but would change the answer in a way
// that this version cannot are refused (docs/api.md has the list).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/model_alias.h"
#include "base/result.h"
#include "protocol/messages.h"

namespace perdure::frontend {

struct ParsedRequest {
  std::string model;  // empty: the default model
  std::string alias;  // under which the client knows it; empty: none
  bool stream = false;
  bool include_usage = false;           // of a stream
  std::optional<int32_t> keep_alive_s;  // that the model stays afterwards; -1: for ever
  std::optional<int64_t> timeout_ms;    // for all of it, as the client says
  protocol::GenerationRequest generation;
};

// What the request gets that its body does not say.
struct RequestDefaults {
  uint64_t seed = 0;
  int64_t unix_time = 0;
  std::string tenant = {};  // of its key
  uint64_t client = 0;      // of GenerationRequest
  bool store = true;        // as its key has it
  std::span<const ModelAlias> aliases = {};
};

// POST /v1/chat/completions.
Result<ParsedRequest> ParseChatRequest(std::string_view body, const RequestDefaults& defaults);
// POST /v1/completions.
Result<ParsedRequest> ParseCompletionRequest(std::string_view body,
                                             const RequestDefaults& defaults);

}  // namespace perdure::frontend
