#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

#include "base/control_groups.h"

namespace perdure {
namespace {

namespace fs = std::filesystem;

std::optional<int64_t> ReadNumber(const fs::path& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// Whole processors of a group's quota; nothing where it has none. Version 2 writes "max" and
// version 1 -1 for no quota.
std::optional<int64_t> QuotaOf(ControlGroupVersion version, const fs::path& folder) {
  std::optional<int64_t> quota, period;
  if (version == ControlGroupVersion::k2) {
    std::ifstream file(folder / "cpu.max");
    int64_t values[2] = {};
    if (file >> values[0] >> values[1]) quota = values[0], period = values[1];
  } else {
    quota = ReadNumber(folder / "cpu.cfs_quota_us");
    period = ReadNumber(folder / "cpu.cfs_period_us");
  }
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return *quota / *period;
}

// More processors than a cpu_set_t holds make the call fail: the set grows.
int AffinityCount() {
  for (int processors = CPU_SETSIZE; processors <= CPU_SETSIZE * 64; processors *= 2) {
    const size_t bytes = CPU_ALLOC_SIZE(processors);
    std::vector<unsigned long> set(bytes / sizeof(unsigned long));
    auto* cpus = reinterpret_cast<cpu_set_t*>(set.data());
    if (sched_getaffinity(0, bytes, cpus) == 0) return CPU_COUNT_S(bytes, cpus);
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int UsableProcessors(const fs::path& root) {
  int64_t count = AffinityCount();
  VisitControlGroups(root, "cpu", [&](ControlGroupVersion version, const fs::path& folder) {
    if (const auto quota = QuotaOf(version, folder)) count = std::min(count, *quota);
  });
  return static_cast<int>(std::max<int64_t>(count, 1));
}

}  // namespace perdure
