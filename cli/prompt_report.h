// What `perdure show` tells of a model's tokenizer and chat templates.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/json.h"

namespace perdure::cli {

struct PromptReport {
  Json tokenizer;       // {"file", "tokens"}
  Json chat_templates;  // [{"name", "file"}]
  Json problems;        // what is broken, a sentence each
};
// Thread-safe.
PromptReport ReportPrompts(const std::filesystem::path& folder);

}  // namespace perdure::cli
