// Jinja chat templates, rendered as transformers' apply_chat_template renders them, in a sandbox:
// no attributes beyond those of the values, bounded steps, depth and output.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "base/result.h"
#include "text/template/template_time.h"
#include "text/text_range.h"

namespace perdure::text {

// A rendered conversation that remembers which bytes came from its input (messages, tools, keyword
// arguments) and which from the template. Text from input must not act as special tokens.
struct RenderedPrompt {
  std::string text;
  std::vector<TextRange> input;  // sorted, disjoint
};

// Immutable; Render is thread-safe.
class ChatTemplate {
 public:
  // Syntax errors (bad_model) name `name`, the line and what was found.
  static Result<std::unique_ptr<ChatTemplate>> Parse(std::string_view source,
                                                     std::string_view name);
  virtual ~ChatTemplate() = default;

  // `context`: an object with messages, tools, add_generation_prompt, bos_token, eos_token, … Every
  // string below `messages`, `tools` and `documents`, and those of any key not listed in
  // `trusted_keys`, counts as input, with one exception: the role of a message, where it is one
  // that APIs define (system, user, assistant, tool, …), as templates build special tokens from it
  // ("<|" + role + "|>").
  // Errors: bad_template with name, line and expression; raise_exception's own text.
  virtual Result<RenderedPrompt> Render(const Json& context,
                                        const std::vector<std::string>& trusted_keys,
                                        const TemplateTime& time) const = 0;
};

}  // namespace perdure::text
