// The HTTP API: which request gets which answer, without sockets and without workers. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "frontend/cache_calls.h"
#include "frontend/conversation_calls.h"
#include "frontend/conversation_file_calls.h"
#include "frontend/http_types.h"
#include "frontend/memory_calls.h"
#include "frontend/model_table.h"
#include "frontend/request_parser.h"
#include "protocol/messages.h"

namespace perdure::frontend {

struct ApiState {
  const protocol::FrontendSettings& settings;
  const ModelTable& models;
  bool draining = false;
};

// What the header alone decides: who may ask, whether there is such an endpoint, whether its body
// can be read. The refusal is sent without waiting for the body.
std::optional<HttpResponse> CheckHead(const HttpRequest& request,
                                      std::optional<uint64_t> content_length,
                                      const ApiState& state);

// A whole request that CheckHead passed: its response, or what is to be started.
std::variant<HttpResponse, ParsedRequest, CacheCall, ConversationCall, ConversationFileCall,
             MemoryCall>
HandleRequest(const HttpRequest& request, const ApiState& state, const RequestDefaults& defaults);

// Headers that let a page of an allowed origin read the response; none for other requests.
std::vector<std::pair<std::string, std::string>> CorsHeaders(
    const HttpRequest& request, const protocol::FrontendSettings& settings);

}  // namespace perdure::frontend
