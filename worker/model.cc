#include "worker/model.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"

namespace perdure::worker {

Result<Model> LoadModel(const std::string& name, const std::filesystem::path& dir,
                        const std::string& tool_format, const engine::EngineOptions& options) {
  Model model;
  model.name = name;
  ASSIGN_OR_RETURN(model.tokenizer, text::Tokenizer::Load(dir, options.prepared));
  ASSIGN_OR_RETURN(model.chat, text::LoadModelTemplate(dir));
  ASSIGN_OR_RETURN(model.engine, engine::Engine::Load(dir, options));
  CollectEosIds(&model);
  RETURN_IF_ERROR(FindChatForms(&model, tool_format));
  for (const std::string& note : model.engine->info().notes) LogWarning("{}: {}", name, note);
  const int tokens = model.tokenizer->vocab_size();
  const int rows = model.engine->info().vocab_size;
  if (tokens > rows)
    LogWarning(
        "the tokenizer knows {} tokens, the model only {}: prompts with the others will be "
        "refused",
        tokens, rows);
  if (model.chat.templates.empty())
    LogWarning("the model has no chat template: only completions are served");
  for (const text::NamedTemplate& chat : model.chat.templates) {
    if (!chat.chat)
      LogWarning("the model's template '{}' cannot be used, chats with it will be refused: {}",
                 chat.name, chat.problem);
  }
  if (model.eos_ids.empty())
    LogWarning(
        "neither the model's config nor its tokenizer names an end token: answers end at "
        "stop strings and limits alone");
  return model;
}

Status FindChatForms(Model* model, const std::string& tool_format) {
  model->chat_forms.clear();
  for (const text::NamedTemplate& chat : model->chat.templates) {
    text::ChatForm form =
        text::FindChatForm(chat.source, model->engine->info().architecture, model->tokenizer.get());
    if (!tool_format.empty()) {
      ASSIGN_OR_RETURN(form.tools, text::ToolFormatNamed(tool_format));
    }
    model->chat_forms.push_back(std::move(form));
  }
  return {};
}

const text::ChatForm& FormOf(const Model& model, const text::NamedTemplate& chat) {
  const auto index = static_cast<size_t>(&chat - model.chat.templates.data());
  CHECK(index < model.chat_forms.size());
  return model.chat_forms[index];
}

void CollectEosIds(Model* model) {
  model->eos_ids = model->engine->info().eos_ids;
  // A base model's config often names another token than the one that ends a turn of its template.
  const std::string eos_token = model->chat.SpecialToken("eos_token");
  const auto own = eos_token.empty() ? std::nullopt : model->tokenizer->IdOf(eos_token);
  if (own && std::find(model->eos_ids.begin(), model->eos_ids.end(), *own) == model->eos_ids.end())
    model->eos_ids.push_back(*own);
}

}  // namespace perdure::worker
