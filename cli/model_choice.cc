#include "cli/model_choice.h"

#include <algorithm>
#include <vector>

namespace perdure::cli {

Result<ModelChoice> ChooseModel(const std::string& name, ConfigFlags flags, const GetEnv& env) {
  flags.insecure = true;  // nothing listens
  std::vector<std::string> warnings;
  ModelChoice choice;
  ASSIGN_OR_RETURN(choice.config, LoadConfig(flags, env, &warnings));
  const auto& models = choice.config.models;
  auto found = std::find_if(models.begin(), models.end(),
                            [&](const ModelConfig& model) { return model.name == name; });
  if (found == models.end()) {
    flags.models = {name};
    ASSIGN_OR_RETURN(choice.config, LoadConfig(flags, env, &warnings));
    found = choice.config.models.begin();
  }
  choice.model = *found;
  return choice;
}

}  // namespace perdure::cli
