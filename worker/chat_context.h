// A chat request as its model's template wants to see it.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "text/template/chat_template.h"

namespace perdure::worker {

// The template's context of `chat_json` ({messages, tools?, chat_template_kwargs?}): what
// transformers' apply_chat_template passes, with messages in the form that templates are written
// for: content as a string, arguments of tool calls as objects. Keyword arguments cannot replace
// what the server sets. Errors (invalid_request) name the field.
Result<Json> ChatContext(std::string_view chat_json, const text::ModelTemplate& chat);

// ChatContext, rendered. `chat.chat` must not be null.
Result<text::RenderedPrompt> RenderConversation(const text::ModelTemplate& chat,
                                                std::string_view chat_json, int64_t unix_time);

}  // namespace perdure::worker
