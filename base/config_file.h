// The TOML file of the config.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/result.h"

namespace perdure {

// Sets what the file at `path` says in `config`; config->models gets its [models.NAME] tables in
// the order of the file. bad_config errors begin with "path:line: ".
Status ReadConfigFile(const std::filesystem::path& path, const GetEnv& env, Config* config,
                      std::vector<std::string>* warnings);

// A model's name: it stands in URLs, JSON, shared-memory names and logs.
Status CheckModelName(const std::string& name);

// "~/x" becomes $HOME/x (or the user's folder as the system knows it); other paths are as they are.
std::filesystem::path ExpandHome(const std::string& path, const GetEnv& env);

}  // namespace perdure
