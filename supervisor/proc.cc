#include "supervisor/proc.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "base/limits.h"

namespace perdure::supervisor {
namespace {

constexpr size_t kProcFileBytesMax = size_t{1} << 20;

// The blank-separated field `index` (from 0) of `text`.
std::optional<uint64_t> Field(std::string_view text, int index) {
  for (;; --index) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    const std::string_view word = text.substr(0, text.find_first_of(" \n"));
    if (word.empty()) return std::nullopt;
    if (index == 0) {
      uint64_t value = 0;
      if (std::from_chars(word.data(), word.data() + word.size(), value).ec != std::errc())
        return std::nullopt;
      return value;
    }
    text.remove_prefix(word.size());
  }
}

// The number after "name " at the beginning of a line.
std::optional<uint64_t> NumberOf(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.starts_with(name)) return Field(line.substr(name.size()), 0);
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return std::nullopt;
}

}  // namespace

std::optional<MemoryUse> ReadMemoryUse(int pid) {
  const auto text = ReadFile(fmt::format("/proc/{}/status", pid), kProcFileBytesMax);
  if (!text) return std::nullopt;
  const auto resident = NumberOf(*text, "VmRSS:");  // kB, all of them
  const auto file = NumberOf(*text, "RssFile:"), shmem = NumberOf(*text, "RssShmem:");
  if (!resident || !file || !shmem) return std::nullopt;
  MemoryUse use{*resident * 1024, (*file + *shmem) * 1024, *shmem * 1024,
                (*resident - std::min(*resident, *shmem)) * 1024};
  if (use.rss_bytes > limits::kSharesAskedBytesMax) return use;
  const auto parts = ReadFile(fmt::format("/proc/{}/smaps_rollup", pid), kProcFileBytesMax);
  if (!parts) return use;
  const auto pss = NumberOf(*parts, "Pss:"), pss_shmem = NumberOf(*parts, "Pss_Shmem:");
  if (pss && pss_shmem && *pss >= *pss_shmem) use.own_bytes = (*pss - *pss_shmem) * 1024;
  return use;
}

std::optional<uint64_t> MajorFaultsFromStat(std::string_view text) {
  const size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos) return std::nullopt;
  // After the name: state ppid pgrp session tty tpgid flags minflt cminflt majflt.
  return Field(text.substr(name_end + 1), 9);
}

std::optional<uint64_t> ReadMajorFaults(int pid) {
  const auto text = ReadFile(fmt::format("/proc/{}/stat", pid), kProcFileBytesMax);
  if (!text) return std::nullopt;
  return MajorFaultsFromStat(*text);
}

uint64_t ReadOomKills() {
  if (const auto groups = ReadFile("/proc/self/cgroup", kProcFileBytesMax)) {
    const size_t v2 = groups->starts_with("0::") ? 0 : groups->find("\n0::");
    if (v2 != std::string::npos) {
      const size_t begin = groups->find("::", v2) + 2;
      const std::string group = groups->substr(begin, groups->find('\n', begin) - begin);
      const auto events = ReadFile("/sys/fs/cgroup" + group + "/memory.events", kProcFileBytesMax);
      if (events) {
        if (const auto kills = NumberOf(*events, "oom_kill ")) return *kills;
      }
    }
  }
  const auto machine = ReadFile("/proc/vmstat", kProcFileBytesMax);
  return machine ? NumberOf(*machine, "oom_kill ").value_or(0) : 0;
}

}  // namespace perdure::supervisor
