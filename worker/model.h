// One loaded model: what turns a request into tokens and tokens into text.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "text/chat/chat_form.h"
#include "text/template/model_template.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::worker {

struct Model {
  std::string name;
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<text::Tokenizer> tokenizer;
  text::ModelTemplate chat;
  std::vector<text::ChatForm> chat_forms;  // of the templates, in their order
  // The answer ends with one of these: those of the model's config and the tokenizer's own.
  std::vector<TokenId> eos_ids;
};

// The small files first: what is wrong with them is told before gigabytes are read. `tool_format`:
// in which the model calls tools, by its name; empty: it is found in the templates.
Result<Model> LoadModel(const std::string& name, const std::filesystem::path& dir,
                        const std::string& tool_format, const engine::EngineOptions& options);
// chat_forms from the other members. Errors: bad_config, a tool format that there is not.
Status FindChatForms(Model* model, const std::string& tool_format);
// eos_ids from the other members.
void CollectEosIds(Model* model);

// How answers to a prompt of this template of the model are read.
const text::ChatForm& FormOf(const Model& model, const text::NamedTemplate& chat);

}  // namespace perdure::worker
