// How a conversation's KV is to be kept, as clients and configurations say it, and the schedule
// that follows from it. docs/caching.md tells what each means.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace perdure {

// The five types that every model has; a configuration can name more.
inline constexpr std::string_view kCacheTypes[] = {"kv", "quantized_kv", "rotating_kv",
                                                   "chunked_kv", "concatenate_kv"};

// One type and what is set of it; absent: as the type has it.
struct CacheSettings {
  std::string type;                        // empty: the default
  std::optional<int32_t> bits;             // of a number: 16, 8 or 4
  std::optional<int32_t> max_size;         // positions that are seen, `keep` included
  std::optional<int32_t> keep;             // of them the conversation's first
  std::optional<int32_t> chunk_size;       // positions that lie in a row
  std::optional<float> compression_ratio;  // chooses bits: what is left of 16-bit numbers' memory
  std::optional<int32_t> optimization_interval;  // requests after which the cache is optimized
  auto Fields() {
    return std::tie(type, bits, max_size, keep, chunk_size, compression_ratio,
                    optimization_interval);
  }
  bool operator==(const CacheSettings&) const = default;
};

struct CachePhase {
  int32_t at = 0;  // the first position it holds for
  CacheSettings settings;
  auto Fields() { return std::tie(at, settings); }
  bool operator==(const CachePhase&) const = default;
};

// A type, and others that follow at later positions.
struct CacheChoice {
  CacheSettings settings;
  std::vector<CachePhase> then;
  auto Fields() { return std::tie(settings, then); }
  bool operator==(const CacheChoice&) const = default;
};

struct NamedCacheType {
  std::string name;
  CacheChoice choice;
  auto Fields() { return std::tie(name, choice); }
  bool operator==(const NamedCacheType&) const = default;
};

// From a position on: how exactly numbers are stored, and what of its past a position sees.
struct CacheSegment {
  int32_t from = 0;
  int32_t bits = 16;
  int32_t keep = 0;
  int32_t size = 0;  // the first `keep` and the last `size - keep` positions, its own among these
                     // (keep < size); 0: all
  auto Fields() { return std::tie(from, bits, keep, size); }
  bool operator==(const CacheSegment&) const = default;
};

// What KV depends on beside the tokens, and where it is put. Recorded with its conversation:
// computed again under its schedule, KV has the same bits.
struct CacheSchedule {
  std::string type = "kv";                    // what it is called
  std::vector<CacheSegment> segments = {{}};  // ascending; the first is from 0
  int32_t chunk_size = 0;                     // 0: pages lie anywhere
  bool pinned = false;                        // stays while the conversation lives
  auto Fields() { return std::tie(type, segments, chunk_size, pinned); }
  bool operator==(const CacheSchedule&) const = default;
};

// How conversations are recognised and remembered.
struct ConversationSettings {
  bool enabled = true;      // what was computed is of use to later requests
  bool auto_detect = true;  // requests without an id are recognised, and remembered
  int32_t conversations_max = 100;
  int32_t idle_timeout_s = 3600;
  float detection_threshold = 0.8f;  // part of a conversation that its continuation repeats
  auto Fields() {
    return std::tie(enabled, auto_detect, conversations_max, idle_timeout_s, detection_threshold);
  }
  bool operator==(const ConversationSettings&) const = default;
};

}  // namespace perdure
