#include "text/template/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/template/interpreter.h"
#include "text/template/json_value.h"
#include "text/template/parser.h"

namespace perdure::text {
namespace {

class JinjaChatTemplate : public ChatTemplate {
 public:
  explicit JinjaChatTemplate(std::unique_ptr<jinja::Ast> ast) : ast_(std::move(ast)) {}

  Result<RenderedPrompt> Render(const Json& context, const std::vector<std::string>& trusted_keys,
                                const TemplateTime& time) const override {
    if (!context.is_object())
      return Err(ErrorCode::internal, "a chat template's context must be a JSON object");
    jinja::Interpreter interpreter(*ast_, time);
    for (const auto& [key, json] : context.items()) {
      if (!ast_->name_numbers.contains(key)) continue;
      const bool trusted =
          std::find(trusted_keys.begin(), trusted_keys.end(), key) != trusted_keys.end() &&
          key != "messages" && key != "tools" && key != "documents";
      ASSIGN_OR_RETURN(jinja::Value value, key == "messages"
                                               ? jinja::MessagesFromJson(json)
                                               : jinja::ValueFromJson(json, !trusted));
      interpreter.SetVariable(key, std::move(value));
    }
    ASSIGN_OR_RETURN(jinja::MarkedString text, interpreter.Run());
    RenderedPrompt prompt;
    prompt.input = text.input();
    prompt.text = std::move(text).TakeText();
    return prompt;
  }

 private:
  std::unique_ptr<jinja::Ast> ast_;
};

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                          std::string_view name) {
  ASSIGN_OR_RETURN(auto ast, jinja::ParseTemplate(source, name));
  return std::make_unique<JinjaChatTemplate>(std::move(ast));
}

}  // namespace perdure::text
