// OpenAI's response objects, as text. Pure.
//
// Source of the shapes: OpenAI's API reference for chat completions, completions and models.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "frontend/choice_answer.h"
#include "protocol/messages.h"

namespace perdure::frontend {

// "req_" + 16 hex digits: the x-request-id of every response.
std::string RequestIdText(protocol::RequestId rid);

// {"error":{message,type,param,code}}; param is null where no field is at fault.
std::string ErrorBody(const Error& error);

// What stays the same in all parts of one answer.
struct AnswerIdentity {
  protocol::RequestKind kind = protocol::RequestKind::kChat;
  protocol::RequestId rid = 0;
  std::string model;
  int64_t created_unix = 0;
  bool include_usage = false;  // of a stream
};

// Of the whole answer. waited_ms: for the model, in the frontend, before the worker's queue.
struct AnswerEnd {
  protocol::Usage usage;
  int64_t waited_ms = 0;
  // How its KV is kept, and what of it was asked for in vain.
  std::string cache_type;
  std::string conversation_id;
  int32_t spliced = 0;  // tokens of the prompt that are as they were drawn once
  std::vector<std::string> warnings;
  bool stored = false;  // all its turns are
};

struct WholeChoice {
  ChoiceAnswer::Part part;
  protocol::FinishReason reason = protocol::FinishReason::kStop;
};

// The answer in one piece; a choice's index is its place.
std::string WholeAnswer(const AnswerIdentity& identity, std::span<const WholeChoice> choices,
                        const AnswerEnd& end);

// Server-sent events: each of these is one or more whole "data: …\n\n" blocks.
// For each choice; empty for completions.
std::string StreamStart(const AnswerIdentity& identity, int choices);
std::string StreamDelta(const AnswerIdentity& identity, int choice, const ChoiceAnswer::Part& part);
// The end of a choice; of the last one, with all that ends the answer up to [DONE].
std::string StreamChoiceEnd(const AnswerIdentity& identity, int choice,
                            protocol::FinishReason reason);
std::string StreamEnd(const AnswerIdentity& identity, int choice, protocol::FinishReason reason,
                      const AnswerEnd& end);
std::string StreamError(const Error& error);
inline constexpr std::string_view kStreamComment = ": waiting\n\n";

// Aliases stand as models of their own, with "alias_of".
std::string ModelList(std::span<const protocol::RosterEntry> models,
                      std::span<const ModelAlias> aliases = {});
// `name`: as it was asked for.
std::string ModelObject(const protocol::RosterEntry& model, const std::string& name);
// {"status": status, "models": {name: {state, …}}} of /health and /ready.
std::string HealthBody(std::string_view status, std::span<const protocol::RosterEntry> models);

}  // namespace perdure::frontend
