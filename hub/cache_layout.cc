#include "hub/cache_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <tuple>

#include "base/file.h"
#include "base/limits.h"

namespace perdure::hub {
namespace {

namespace fs = std::filesystem;

bool IsAlnum(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// The Hub's own rules for names.
bool IsRepoPart(std::string_view part) {
  const auto allowed = [](char c) { return IsAlnum(c) || c == '.' || c == '_' || c == '-'; };
  return !part.empty() && part.size() <= limits::kRepoNameBytesMax &&
         std::all_of(part.begin(), part.end(), allowed) &&
         part.find("--") == std::string_view::npos && part.find("..") == std::string_view::npos &&
         part.front() != '.' && part.front() != '-' && part.back() != '.' && part.back() != '-';
}

// A path below refs/, such as main, v1.0 or refs/pr/3.
bool IsRevision(std::string_view revision) {
  const auto allowed = [](char c) {
    return IsAlnum(c) || c == '.' || c == '_' || c == '-' || c == '/' || c == '+';
  };
  return !revision.empty() && revision.size() <= limits::kModelNameBytesMax &&
         std::all_of(revision.begin(), revision.end(), allowed) &&
         revision.find("..") == std::string_view::npos &&
         revision.find("//") == std::string_view::npos && revision.front() != '/' &&
         revision.back() != '/' && revision.front() != '.' &&
         revision.find("/.") == std::string_view::npos;
}

bool IsCommit(std::string_view text) {
  return text.size() == 40 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace

Result<RepoId> ParseRepoId(std::string_view text) {
  RepoId repo;
  std::string_view id = text;
  bool good = true;
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    id = text.substr(0, at);
    repo.revision = std::string(text.substr(at + 1));
    good = IsRevision(repo.revision);
  }
  const size_t slash = id.find('/');
  if (slash != std::string_view::npos) {
    repo.org = std::string(id.substr(0, slash));
    repo.name = std::string(id.substr(slash + 1));
  }
  if (!good || !IsRepoPart(repo.org) || !IsRepoPart(repo.name))
    return Err(ErrorCode::bad_config,
               fmt::format("\"{}\" is no model of the Hugging Face Hub: org/name or "
                           "org/name@revision is",
                           text.substr(0, limits::kModelNameBytesMax)));
  return repo;
}

std::string RepoFolderName(const RepoId& repo) {
  return fmt::format("models--{}--{}", repo.org, repo.name);
}

Result<fs::path> FindSnapshot(const fs::path& cache, const RepoId& repo) {
  const fs::path folder = cache / RepoFolderName(repo);
  std::error_code ignored;
  const auto missing = [&](const fs::path& where) {
    return Err(ErrorCode::not_found,
               fmt::format("{}/{}@{} is not in the Hugging Face cache (looked for {})", repo.org,
                           repo.name, repo.revision, where.string()));
  };
  if (!fs::is_directory(folder, ignored)) return missing(folder);
  std::string commit = repo.revision;
  if (!IsCommit(commit)) {
    const fs::path ref = folder / "refs" / repo.revision;
    auto text = ReadFile(ref, limits::kRefBytesMax);
    if (!text) return missing(ref);
    commit = std::move(*text);
    commit.erase(commit.find_last_not_of(" \r\n") + 1);
    if (!IsCommit(commit))
      return Err(ErrorCode::io_error,
                 fmt::format("{} does not hold a commit's 40 hex digits", ref.string()));
  }
  const fs::path snapshot = folder / "snapshots" / commit;
  if (!fs::is_directory(snapshot, ignored)) return missing(snapshot);
  return snapshot;
}

std::vector<RepoId> ListCache(const fs::path& cache) {
  std::vector<RepoId> repos;
  constexpr std::string_view kPrefix = "models--";
  std::error_code error;
  for (fs::directory_iterator it(cache, error), end; !error && it != end; it.increment(error)) {
    std::string id = it->path().filename().string();
    const size_t split = id.find("--", kPrefix.size());
    if (!id.starts_with(kPrefix) || split == std::string::npos) continue;
    id = id.substr(kPrefix.size(), split - kPrefix.size()) + "/" + id.substr(split + 2);
    std::error_code no_refs;
    for (fs::directory_iterator ref(it->path() / "refs", no_refs); !no_refs && ref != end;
         ref.increment(no_refs)) {
      auto repo = ParseRepoId(id + "@" + ref->path().filename().string());
      if (repo && FindSnapshot(cache, *repo)) repos.push_back(std::move(*repo));
    }
  }
  std::sort(repos.begin(), repos.end(), [](const RepoId& a, const RepoId& b) {
    return std::tie(a.org, a.name, a.revision) < std::tie(b.org, b.name, b.revision);
  });
  return repos;
}

}  // namespace perdure::hub
