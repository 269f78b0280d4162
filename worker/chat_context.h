// A chat request as its model's template wants to see it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/json.h"
#include "base/result.h"
#include "text/template/model_template.h"

namespace perdure::worker {

struct ChatContext {
  const text::NamedTemplate* chat = nullptr;
  Json variables;  // an object
};

struct RenderedChat {
  text::RenderedPrompt prompt;
  const text::NamedTemplate* chat = nullptr;
  Json tools;  // that it shows; null: none
};

// The template and the variables for `chat_json` ({messages, tools?, chat_template_kwargs?}): what
// transformers' apply_chat_template passes, with messages in the form that the template is written
// for: content as a string, arguments of tool calls as objects (or as text, by its ToolCallForm).
// Keyword arguments cannot replace what the server sets. Errors (invalid_request, unsupported) name
// the field. `chat` must outlive the result.
Result<ChatContext> MakeChatContext(std::string_view chat_json, const text::ModelTemplate& chat);

// MakeChatContext, rendered. `unix_time` is shown in the time zone of this process.
Result<RenderedChat> RenderConversation(const text::ModelTemplate& chat, std::string_view chat_json,
                                        int64_t unix_time);

// The tools of a `chat_json`, without more of it; null for none.
Json ToolsOf(std::string_view chat_json);

}  // namespace perdure::worker
