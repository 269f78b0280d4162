// From what the config says of a model to the folder with its files.
#pragma once

#include <filesystem>
#include <string>

#include "base/config.h"
#include "base/result.h"

namespace perdure::hub {

struct ModelPlaces {
  std::filesystem::path executable_dir;  // where `perdure` lies
  std::filesystem::path builtin_dir;     // PERDURE_BUILTIN_MODELS; empty: beside the executable
  std::filesystem::path cache_dir;       // Hugging Face cache
};

// For this process: its own executable, PERDURE_BUILTIN_MODELS, the config's cache.
ModelPlaces PlacesOf(const Config& config, const GetEnv& env);

// `source` is "nano" (the built-in model), a folder, or org/name[@revision] in the cache. The
// folder returned holds a config.json. The error says where was looked and what to do.
Result<std::filesystem::path> FindModel(const std::string& source, const ModelPlaces& places);

}  // namespace perdure::hub
