#include "cli/prompt_report.h"

#include <string>
#include <system_error>

#include "text/template/model_template.h"
#include "text/tokenizer/tokenizer.h"

namespace perdure::cli {

namespace fs = std::filesystem;

namespace {

// The file that the tokenizer is read from, in the order of Tokenizer::Load.
Json TokenizerFile(const fs::path& folder) {
  for (const char* name : {"tokenizer.json", "tekken.json", "tokenizer.model"}) {
    std::error_code ignored;
    if (fs::exists(folder / name, ignored)) return name;
  }
  return nullptr;
}

}  // namespace

PromptReport ReportPrompts(const fs::path& folder) {
  PromptReport report;
  report.problems = Json::array();
  report.tokenizer = Json{{"file", TokenizerFile(folder)}, {"tokens", nullptr}};
  if (const auto tokenizer = text::Tokenizer::Load(folder))
    report.tokenizer["tokens"] = (*tokenizer)->vocab_size();
  else
    report.problems.push_back(tokenizer.error().message);

  report.chat_templates = Json::array();
  if (const auto model = text::LoadModelTemplate(folder)) {
    for (const text::NamedTemplate& entry : model->templates) {
      report.chat_templates.push_back(Json{{"name", entry.name}, {"file", entry.file}});
      if (entry.chat == nullptr) report.problems.push_back(entry.problem);
    }
  } else {
    report.problems.push_back(model.error().message);
  }
  return report;
}

}  // namespace perdure::cli
