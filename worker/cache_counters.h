// What a worker counts of its cache.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace perdure::worker {

struct CacheUse {
  uint64_t requests = 0;
  uint64_t prompt_tokens = 0;
  uint64_t cached_tokens = 0;  // of prompt_tokens: not computed

  // 0 to 1.
  double hit_rate() const {
    return prompt_tokens == 0
               ? 0.0
               : static_cast<double>(cached_tokens) / static_cast<double>(prompt_tokens);
  }
};

// Since the worker began.
struct CacheCounters {
  CacheUse all;
  std::map<std::string, CacheUse> by_type;  // the schedule's name
};

}  // namespace perdure::worker
