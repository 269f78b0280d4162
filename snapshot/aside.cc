#include "snapshot/aside.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/unique_fd.h"

namespace perdure::snapshot {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDamaged = ".damaged-";

// By when they were put aside, newest first.
std::vector<std::pair<int64_t, fs::path>> Found(const fs::path& file) {
  const std::string begin = file.filename().string() + std::string(kDamaged);
  std::vector<std::pair<int64_t, fs::path>> found;
  std::error_code error;
  for (fs::directory_iterator it(file.parent_path(), error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(begin)) continue;
    int64_t when = 0;
    const char* const last = name.data() + name.size();
    const auto [rest, problem] = std::from_chars(name.data() + begin.size(), last, when);
    if (problem == std::errc() && rest == last) found.emplace_back(when, it->path());
  }
  std::sort(found.rbegin(), found.rend());
  return found;
}

}  // namespace

Status PutAside(const fs::path& file, std::string_view why) {
  const auto older = Found(file);
  // Several within a second stay in their order.
  int64_t when = UnixSeconds();
  if (!older.empty() && older[0].first >= when && older[0].first < INT64_MAX)
    when = older[0].first + 1;
  const fs::path to = fmt::format("{}{}{}", file.string(), kDamaged, when);
  if (rename(file.c_str(), to.c_str()) != 0)
    return ErrFromErrno(fmt::format("cannot rename {} to {}", file.string(), to.string()));
  LogError("{}; it is put aside as {}, and a new one is begun", why, to.filename().string());
  for (size_t i = limits::kSnapshotDamagedKept - 1; i < older.size(); ++i)
    unlink(older[i].second.c_str());
  return SyncFolder(file.parent_path());
}

Status SyncFolder(const fs::path& folder) {
  const UniqueFd fd(
      open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || fsync(fd.get()) != 0)
    return ErrFromErrno(fmt::format("cannot sync {}", folder.string()));
  return {};
}

}  // namespace perdure::snapshot
