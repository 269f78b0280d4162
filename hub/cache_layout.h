// Where a model lies in the Hugging Face cache (the layout of huggingface_hub):
// <cache>/models--org--name/{refs/<revision>, snapshots/<commit>/…}. Only reads. Thread-safe.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace perdure::hub {

struct RepoId {
  std::string org, name;
  std::string revision = "main";  // a branch, a tag or a commit
};

// "org/name" or "org/name@revision". Anything that could leave the cache's folder is refused.
Result<RepoId> ParseRepoId(std::string_view text);

// models--org--name
std::string RepoFolderName(const RepoId& repo);

// The folder of the snapshot that the revision names. not_found says where was looked.
Result<std::filesystem::path> FindSnapshot(const std::filesystem::path& cache, const RepoId& repo);

// The models in the cache, sorted by name: what FindSnapshot finds by the branch or tag of each
// file in refs/ itself. Folders that are none are passed over; empty where there is no cache.
std::vector<RepoId> ListCache(const std::filesystem::path& cache);

}  // namespace perdure::hub
