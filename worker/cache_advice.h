// What would make a cache better, from what was measured of it. Pure.
#pragma once

#include <string>
#include <vector>

#include "worker/cache_facts.h"

namespace perdure::worker {

struct CacheAdvice {
  std::string text;     // what was measured, and what would follow from the change
  std::string setting;  // the change: a key of the config with its value, or a command
};

// The most useful first; none where there is nothing to say.
std::vector<CacheAdvice> Advise(const CacheFacts& facts);

}  // namespace perdure::worker
