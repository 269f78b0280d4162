// The chat templates of a model's folder and the special tokens that they name.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/template/chat_template.h"
#include "text/template/tool_call_form.h"

namespace perdure::text {

struct NamedTemplate {
  std::string name;  // "default", "tool_use", "rag", …
  std::string file;  // where it stands, within the model's folder
  // nullptr where the file cannot be used; then `problem` says why.
  std::unique_ptr<ChatTemplate> chat;
  std::string problem;
  std::string source;  // as it was read; FindChatForm looks at what it writes
  ToolCallForm tool_calls;
};

struct ModelTemplate {
  std::vector<NamedTemplate> templates;
  // "bos_token" → "<s>": those of tokenizer_config.json and special_tokens_map.json that are set.
  std::map<std::string, std::string> special_tokens;

  // As transformers chooses: the one that is asked for by name; "tool_use" where tools are given;
  // "default". Errors: unsupported, where there is none or it does not parse.
  Result<const NamedTemplate*> Choose(std::string_view name, bool has_tools) const;
  // "" where it is not set.
  std::string SpecialToken(const std::string& key) const;
};

// As transformers reads them: chat_template.jinja ("default") and
// additional_chat_templates/*.jinja; where neither exists, chat_template.json, else the
// chat_template of tokenizer_config.json (a text, or a list of {name, template}). A template that
// does not parse is no error here: such a model still completes texts.
Result<ModelTemplate> LoadModelTemplate(const std::filesystem::path& model_dir);

}  // namespace perdure::text
