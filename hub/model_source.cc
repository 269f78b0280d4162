#include "hub/model_source.h"

#include <fmt/format.h>

#include <system_error>
#include <vector>

#include "hub/cache_layout.h"

namespace perdure::hub {
namespace {

namespace fs = std::filesystem;

bool HasConfig(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_regular_file(folder / "config.json", ignored);
}

Result<fs::path> FindBuiltin(const std::string& name, const ModelPlaces& places) {
  std::vector<fs::path> candidates;
  if (!places.builtin_dir.empty()) {
    candidates.push_back(places.builtin_dir / name);
  } else {
    // Installed: <prefix>/bin; built: <source>/build/<preset>/bin.
    candidates.push_back(places.executable_dir / "../share/perdure/models" / name);
    candidates.push_back(places.executable_dir / "../../../models" / name);
  }
  std::string looked;
  for (const fs::path& candidate : candidates) {
    const fs::path folder = candidate.lexically_normal();
    if (HasConfig(folder)) return folder;
    looked += (looked.empty() ? "" : ", ") + folder.string();
  }
  return Err(ErrorCode::not_found,
             fmt::format("the built-in model \"{}\" is not installed (looked for {}); set "
                         "PERDURE_BUILTIN_MODELS to the folder that holds it",
                         name, looked));
}

Result<fs::path> FindFolder(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error))
    return Err(ErrorCode::not_found, fmt::format("there is no folder {}", folder.string()));
  if (!HasConfig(folder))
    return Err(ErrorCode::bad_model,
               fmt::format("{} is no model: it has no config.json", folder.string()));
  return folder;
}

}  // namespace

ModelPlaces PlacesOf(const Config& config, const GetEnv& env) {
  ModelPlaces places;
  std::error_code error;
  places.executable_dir = fs::read_symlink("/proc/self/exe", error).parent_path();
  places.builtin_dir = env("PERDURE_BUILTIN_MODELS").value_or("");
  places.cache_dir = config.model_cache_dir;
  return places;
}

Result<fs::path> FindModel(const std::string& source, const ModelPlaces& places) {
  if (source == "nano") return FindBuiltin(source, places);
  if (source.starts_with('/')) return FindFolder(fs::path(source).lexically_normal());
  auto repo = ParseRepoId(source);
  if (!repo)
    return Err(ErrorCode::bad_config,
               fmt::format("\"{}\" is neither \"nano\" (the built-in model), nor a folder (with a "
                           "leading / or ./), nor org/name of the Hugging Face Hub",
                           source));
  auto snapshot = FindSnapshot(places.cache_dir, *repo);
  if (!snapshot) {
    Error error = std::move(snapshot).error();
    if (error.code == ErrorCode::not_found)
      error.message += fmt::format(
          "; this version does not download models: fetch it with `huggingface-cli download "
          "{}/{}`, or name a folder",
          repo->org, repo->name);
    return Err(std::move(error));
  }
  if (!HasConfig(*snapshot))
    return Err(ErrorCode::bad_model,
               fmt::format("{} is incomplete: it has no config.json", snapshot->string()));
  return snapshot;
}

}  // namespace perdure::hub
