// One loaded model: what turns a request into tokens and tokens into text.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "text/template/model_template.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::worker {

struct Model {
  std::string name;
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<text::Tokenizer> tokenizer;
  text::ModelTemplate chat;
  // The answer ends with one of these: those of the model's config and the tokenizer's own.
  std::vector<TokenId> eos_ids;
};

// The small files first: what is wrong with them is told before gigabytes are read.
Result<Model> LoadModel(const std::string& name, const std::filesystem::path& dir,
                        const engine::EngineOptions& options);
// eos_ids from the other members.
void CollectEosIds(Model* model);

}  // namespace perdure::worker
