// The body of a request: for chats, and for completions.

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/limits.h"
#include "frontend/request_parser.h"
#include "fuzz_target.h"

namespace perdure::frontend {
namespace {

void CheckRequest(const Result<ParsedRequest>& request) {
  if (!request) {
    fuzz::CheckError(request.error());
    CHECK(request.error().code == ErrorCode::invalid_request ||
          request.error().code == ErrorCode::unsupported);
    // It repeats what the client sent in part only.
    CHECK(request.error().message.size() < 20 * limits::kEchoBytesMax);
    return;
  }
  const protocol::GenerationRequest& generation = request->generation;
  CHECK(generation.choices >= 1 && generation.choices <= limits::kChoicesMax);
  CHECK(!generation.max_tokens || *generation.max_tokens >= 0);
  CHECK(generation.stop.size() <= limits::kStopStringsMax);
  const protocol::SamplingRequest& sampling = generation.sampling;
  for (const auto& value :
       {sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty,
        sampling.frequency_penalty, sampling.presence_penalty})
    CHECK(!value || std::isfinite(*value));
  CHECK(sampling.logit_bias.size() <= limits::kLogitBiasMax);
  if (generation.kind == protocol::RequestKind::kChat)
    CHECK(ParseJson(generation.chat_json, "chat_json", ErrorCode::internal).has_value());
}

}  // namespace

FUZZ_TARGET(request_body) {
  const RequestDefaults defaults{.seed = 1, .unix_time = 1'700'000'000};
  CheckRequest(ParseChatRequest(input, defaults));
  CheckRequest(ParseCompletionRequest(input, defaults));
}

}  // namespace perdure::frontend
