// How a model's answers are read: found in its templates when it is loaded, kept in a request's
// ticket for the workers that go on with it. Pure.
#pragma once

#include "base/json.h"
#include "protocol/messages.h"
#include "text/chat/chat_form.h"
#include "text/chat/chat_parser.h"

namespace perdure::worker {

protocol::AnswerForm TicketForm(const text::ChatForm& form, text::ReasoningStart start);

// Its numbers are those of forms that there are.
bool IsSound(const protocol::AnswerForm& form);

// For a sound form; `tools` as the request has them, null for none.
text::ChatParserSettings ParserSettings(const protocol::AnswerForm& form, const Json& tools);

}  // namespace perdure::worker
