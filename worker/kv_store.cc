#include "worker/kv_store.h"

#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/prepared_folder.h"
#include "shm/arena.h"
#include "shm/hashes.h"
#include "worker/cache_schedule.h"

namespace perdure::worker {
namespace {

// Waits for a writer that is about to end.
Result<std::unique_ptr<shm::Arena>> AttachAfterOthers(int fd, const shm::ArenaSpec& spec) {
  const int64_t deadline_ms = MonotonicMs() + limits::kArenaLockWaitMs;
  for (;;) {
    auto arena = shm::Arena::Attach(fd, spec);
    if (arena || arena.error().code != ErrorCode::overloaded || MonotonicMs() >= deadline_ms)
      return arena;
    poll(nullptr, 0, 10);
  }
}

Result<std::unique_ptr<shm::PageMemory>> AttachArena(const engine::ModelInfo& info,
                                                     const shm::ArenaShape& shape,
                                                     const KvStoreOptions& options) {
  shm::ArenaSpec spec;
  spec.fingerprint = options.fingerprint;
  spec.numerics = Hash64(info.numerics_id);
  spec.shape = shape;
  spec.pages_budget = options.pages_budget;
  ASSIGN_OR_RETURN(std::unique_ptr<shm::Arena> arena, AttachAfterOthers(options.arena_fd, spec));
  if (!arena->reset_reason().empty())
    LogInfo("the KV cache begins empty: {}", arena->reset_reason());
  return std::unique_ptr<shm::PageMemory>(std::move(arena));
}

}  // namespace

Result<std::unique_ptr<shm::PageStore>> OpenKvStore(const engine::ModelInfo& info,
                                                    const KvStoreOptions& options) {
  shm::ArenaShape shape;
  for (const shm::PageFormat format : shm::kAllFormats)
    shape.page_bytes[format] = info.kv.PageBytes(PrecisionOf(format));
  shape.pages_max =
      std::max(options.pages_budget, std::min(options.pages_max, limits::kArenaPagesMax));
  // A new record is written before the old one is given up.
  shape.conversations_max = static_cast<uint32_t>(options.conversations_max) + 1;
  std::unique_ptr<shm::PageMemory> memory;
  if (options.arena_fd >= 0) {
    auto arena = AttachArena(info, shape, options);
    if (arena) {
      memory = std::move(*arena);
    } else {
      LogWarning("the KV cache will end with this process: {}", arena.error().message);
    }
  }
  if (memory == nullptr) {
    shape.pages_max = options.pages_budget;
    ASSIGN_OR_RETURN(const shm::ArenaGeometry geometry, shm::ArenaGeometry::For(shape));
    ASSIGN_OR_RETURN(memory,
                     shm::MakePrivateMemory(
                         geometry, shm::RootHash(options.fingerprint, Hash64(info.numerics_id))));
  }
  auto store = std::make_unique<shm::PageStore>(std::move(memory), options.pages_budget);
  if (store->recovery().kept + store->recovery().dropped > 0)
    LogInfo("the KV cache of the worker before holds {} pages, {} were not whole",
            store->recovery().kept, store->recovery().dropped);
  return store;
}

uint64_t ModelFingerprint(const std::filesystem::path& model_dir, int quantize_bits) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(model_dir, error)) {
    const std::filesystem::path& path = entry.path();
    if (path.filename() == "config.json" || path.extension() == ".safetensors")
      files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  std::string text = std::to_string(quantize_bits);
  for (const auto& file : files) text += ' ' + std::to_string(FileFingerprint(file));
  return Hash64(text);
}

uint64_t ArenaBytes(int arena_fd) {
  constexpr uint64_t kBlock = 512;  // the unit of st_blocks, whatever the file system
  struct stat st {};
  if (arena_fd < 0 || fstat(arena_fd, &st) != 0) return 0;
  return static_cast<uint64_t>(st.st_blocks) * kBlock;
}

}  // namespace perdure::worker
