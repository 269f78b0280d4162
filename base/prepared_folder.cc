#include "base/prepared_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

namespace perdure {
namespace {

namespace fs = std::filesystem;

constexpr auto kWaitStep = std::chrono::milliseconds(20);

// Others are left alone.
bool IsOurs(const fs::path& path) {
  const std::string kind = path.extension().string();
  return kind == ".weights" || kind == ".tokenizer" || kind == ".tmp";
}

struct Found {
  fs::path path;
  uint64_t bytes;
  int64_t last_use_ns;
};

std::vector<Found> FilesOf(const fs::path& dir) {
  std::vector<Found> files;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    struct stat st {};
    if (!IsOurs(it->path()) || lstat(it->path().c_str(), &st) != 0 || !S_ISREG(st.st_mode))
      continue;
    files.push_back({it->path(), static_cast<uint64_t>(st.st_blocks) * 512,
                     int64_t{st.st_mtim.tv_sec} * 1'000'000'000 + st.st_mtim.tv_nsec});
  }
  return files;
}

// Removes a file unless somebody uses or writes it.
bool RemoveUnused(const fs::path& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!fd || flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return false;
  struct stat here {
  }, there{};
  // A temporary file may have been renamed since: then it is another one's by now.
  if (fstat(fd.get(), &here) != 0 || lstat(path.c_str(), &there) != 0 ||
      here.st_ino != there.st_ino)
    return false;
  return unlink(path.c_str()) == 0;
}

uint64_t BytesMax(const PreparedFolder& folder) {
  if (folder.bytes_max > 0) return folder.bytes_max;
  uint64_t bytes = 0;
  for (const Found& file : FilesOf(folder.dir)) bytes += file.bytes;
  struct statvfs disk {};
  if (statvfs(folder.dir.c_str(), &disk) == 0) bytes += uint64_t{disk.f_bavail} * disk.f_frsize;
  return bytes / 2;
}

Status MakeFolder(const fs::path& dir) {
  std::error_code error;
  fs::create_directories(dir.parent_path(), error);
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST)
    return ErrFromErrno(fmt::format("cannot make the folder {}", dir.string()));
  return {};
}

// Waits for the writer of `path`: true when it has gone or its file has grown.
bool WaitForWriter(const fs::path& path, int wait_ms) {
  const auto size = [&]() -> int64_t {
    struct stat st {};
    return stat(TemporaryOf(path).c_str(), &st) == 0 ? int64_t{st.st_blocks} : -1;
  };
  const int64_t before = size(), begin_ms = MonotonicMs();
  if (before < 0) return true;
  while (MonotonicMs() - begin_ms < wait_ms) {
    std::this_thread::sleep_for(kWaitStep);
    if (size() != before) return true;
  }
  return false;
}

}  // namespace

Result<PreparedFile> OpenOrPrepare(const PreparedFolder& folder, const std::string& name,
                                   uint64_t fingerprint, uint64_t bytes,
                                   const std::function<Status(PreparedWriter&)>& make,
                                   const std::function<void()>& alive) {
  const fs::path path = folder.dir / name;
  std::string told;
  for (;;) {
    auto file = PreparedFile::Open(path, fingerprint);
    if (file) return file;
    if (file.error().code != ErrorCode::not_found && file.error().message != told) {
      told = file.error().message;
      LogInfo("{} is made again: {}", path.string(), told);
    }
    RETURN_IF_ERROR(MakeFolder(folder.dir));
    ASSIGN_OR_RETURN(auto writer, PreparedWriter::TryCreate(path, BytesMax(folder)));
    if (!writer) {
      if (!WaitForWriter(path, folder.wait_ms))
        return Err(ErrorCode::io_error,
                   fmt::format("another process has been writing {} for {} ms without getting on",
                               path.string(), folder.wait_ms));
      alive();
      continue;
    }
    // It may have come between the look and the lock.
    if (auto again = PreparedFile::Open(path, fingerprint)) return again;
    TrimPreparedFolder(folder, bytes, name);
    RETURN_IF_ERROR(make(*writer));
    RETURN_IF_ERROR(writer->Commit(fingerprint));
    TrimPreparedFolder(folder, 0, name);
    auto made = PreparedFile::Open(path, fingerprint);
    if (made) return made;
    return ErrWithContext(path.string(), std::move(made).error());
  }
}

void TrimPreparedFolder(const PreparedFolder& folder, uint64_t bytes, const std::string& keep) {
  const uint64_t bytes_max = BytesMax(folder);
  const fs::path kept = folder.dir / keep;
  std::vector<Found> files = FilesOf(folder.dir);
  std::sort(files.begin(), files.end(),
            [](const Found& a, const Found& b) { return a.last_use_ns < b.last_use_ns; });
  uint64_t sum = bytes;
  for (const Found& file : files) {
    const bool temporary = file.path.extension() == ".tmp";
    if (!temporary || !RemoveUnused(file.path)) sum += file.bytes;
  }
  for (const Found& file : files) {
    if (sum <= bytes_max) return;
    if (file.path == kept || file.path.extension() == ".tmp" || !RemoveUnused(file.path)) continue;
    LogInfo("removed {} ({} MiB): prepared files may take {} MiB", file.path.string(),
            file.bytes >> 20, bytes_max >> 20);
    sum -= file.bytes;
  }
}

uint64_t FileFingerprint(const fs::path& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) return 0;
  return Hash64(fmt::format("{}/{}/{}.{:09}/{}", path.filename().string(), st.st_size,
                            st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_ino));
}

std::string PreparedName(const fs::path& model_dir, std::string_view extension) {
  std::error_code error;
  fs::path place = fs::weakly_canonical(model_dir, error);
  if (error) place = model_dir;
  if (!place.has_filename()) place = place.parent_path();  // it was written with a / behind it
  std::string stem = place.filename().string().substr(0, 100);
  for (char& c : stem) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || (c == '.' && &c != stem.data());
    if (!plain) c = '_';
  }
  return fmt::format("{}-{:016x}.{}", stem, Hash64(place.string()), extension);
}

}  // namespace perdure
