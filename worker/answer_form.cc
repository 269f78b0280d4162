#include "worker/answer_form.h"

#include <nlohmann/json.hpp>

namespace perdure::worker {

protocol::AnswerForm TicketForm(const text::ChatForm& form, text::ReasoningStart start) {
  return {.tool_format = static_cast<uint8_t>(form.tools),
          .reasoning_open = form.reasoning.open,
          .reasoning_close = form.reasoning.close,
          .reasoning_start = static_cast<uint8_t>(start)};
}

bool IsSound(const protocol::AnswerForm& form) {
  return form.tool_format <= static_cast<uint8_t>(text::ToolFormat::kJson) &&
         form.reasoning_start <= static_cast<uint8_t>(text::ReasoningStart::kClosed) &&
         form.reasoning_open.empty() == form.reasoning_close.empty();
}

text::ChatParserSettings ParserSettings(const protocol::AnswerForm& form, const Json& tools) {
  return {
      .form = {.tools = static_cast<text::ToolFormat>(form.tool_format),
               .reasoning = {form.reasoning_open, form.reasoning_close}},
      .reasoning = static_cast<text::ReasoningStart>(form.reasoning_start),
      .tools = tools.is_array() ? text::ToolSignatures(tools) : std::vector<text::ToolSignature>{}};
}

}  // namespace perdure::worker
