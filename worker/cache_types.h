// From what a client or the configuration says of a cache to its schedule.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/cache_settings.h"
#include "base/result.h"

namespace perdure::worker {

struct CacheTypes {
  std::vector<NamedCacheType> named;  // of the configuration; may give a built-in one other values
  CacheChoice standard;               // for conversations of which nothing is said
};

struct ResolvedCache {
  CacheSchedule schedule;  // of a conversation that begins
  std::optional<int> optimization_interval;
  // What was asked for and cannot be, and what is done instead, one sentence each.
  std::vector<std::string> warnings;
};

// What nobody has set is as the named type, then the standard one of that type, then the built-in
// one has it. A type that is not known, or cannot be what it was asked to be, is `kv`, with a
// warning.
ResolvedCache ResolveCache(const CacheChoice& asked, const CacheTypes& types);

// "rotating_kv: 16 bits, the first 4 and the last 4092 positions": for logs and people.
std::string DescribeCache(const CacheSchedule& schedule);

}  // namespace perdure::worker
