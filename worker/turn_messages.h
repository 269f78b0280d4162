// What was said in a turn, as it is stored for people and for other models: JSON, a line for each
// message. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "protocol/messages.h"
#include "worker/said_answer.h"

namespace perdure::worker {

// The request's messages as they came; of a completion {"prompt": …}, without a text where it came
// as tokens.
std::vector<std::string> MessagesOf(const protocol::GenerationRequest& request);
// The answer to it, as its client got it: an assistant's message, or {"completion": …}.
std::string AnswerMessage(protocol::RequestKind kind, const SaidAnswer& answer,
                          protocol::RequestId rid, int32_t choice);

}  // namespace perdure::worker
