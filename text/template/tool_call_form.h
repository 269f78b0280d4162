// How a template wants to be handed the tool calls of an assistant's message.
#pragma once

#include <map>
#include <string>

#include "text/template/chat_template.h"

namespace perdure::text {

// Templates differ: some take content for missing where a message only calls tools, some compare it
// with none, some add it to a string; some print arguments with tojson, some paste them as text.
struct ToolCallForm {
  enum class EmptyContent { kAbsent, kNull, kText };
  EmptyContent empty_content = EmptyContent::kText;
  // A call is shown beside "" as content, too.
  bool takes_empty_text = true;
  // The JSON text instead of the object that it stands for.
  bool arguments_as_text = false;
  // Ids that are not of nine letters and digits are refused, as Mistral's templates do.
  bool short_ids = false;
  // Of several calls in a message all but the first are refused, or not shown.
  bool one_call_a_message = false;
};

// Renders a short conversation in each form and takes the first that shows the call; the defaults
// where none does, as by templates that know no tools.
ToolCallForm FindToolCallForm(const ChatTemplate& chat,
                              const std::map<std::string, std::string>& special_tokens);

}  // namespace perdure::text
