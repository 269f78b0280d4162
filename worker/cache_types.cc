#include "worker/cache_types.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/limits.h"
#include "engine/kv_view.h"
#include "worker/cache_schedule.h"

namespace perdure::worker {
namespace {

constexpr int kPage = engine::kPageTokens;

// What the types are where nobody says more.
constexpr int32_t kQuantizedBits = 8;
constexpr int32_t kRotatingSize = 4096;
constexpr int32_t kRotatingKeep = 4;
constexpr int32_t kChunk = 512;

bool IsBuiltIn(std::string_view name) {
  return std::ranges::find(kCacheTypes, name) != std::end(kCacheTypes);
}

// What is set in `over` goes before what is set in `under`.
CacheSettings Merge(CacheSettings over, const CacheSettings& under) {
  const auto fill = [](auto& value, const auto& other) {
    if (!value) value = other;
  };
  fill(over.bits, under.bits);
  fill(over.max_size, under.max_size);
  fill(over.keep, under.keep);
  fill(over.chunk_size, under.chunk_size);
  fill(over.compression_ratio, under.compression_ratio);
  fill(over.optimization_interval, under.optimization_interval);
  return over;
}

// A position takes 1, 0.53 or 0.28 of what it takes in 16 bits, as head_dim has a scale and a bias
// for each 64 numbers: the nearest.
int32_t BitsOf(float compression_ratio) { return compression_ratio >= 0.405f ? 8 : 4; }

class Resolver {
 public:
  Resolver(const CacheChoice& asked, const CacheTypes& types) : types_(types) {
    auto schedule = Resolve(asked);
    if (schedule) {
      result_.schedule = std::move(*schedule);
    } else {
      Warn(fmt::format("the cache is kv: {}", schedule.error().message));
      result_.optimization_interval.reset();
    }
  }
  ResolvedCache Take() { return std::move(result_); }

 private:
  static tl::unexpected<Error> Impossible(std::string text) {
    return Err(ErrorCode::unsupported, std::move(text));
  }

  void Warn(std::string text) { result_.warnings.push_back(std::move(text)); }

  const NamedCacheType* Named(std::string_view name) const {
    const auto it = std::ranges::find(types_.named, name, &NamedCacheType::name);
    return it == types_.named.end() ? nullptr : &*it;
  }

  // It has no settings: what is measured beside the others.
  CacheSettings Plain(const CacheSettings& settings) {
    CacheSettings plain;
    plain.type = settings.type;
    plain.optimization_interval = settings.optimization_interval;
    if (plain != settings)
      Warn(
          "kv keeps everything in 16 bits: bits and compression_ratio are for quantized_kv, "
          "max_size and keep for rotating_kv, chunk_size for chunked_kv");
    return plain;
  }

  // With what its name stands for in the configuration; `then` gets that one's later phases.
  Result<CacheSettings> Expand(CacheSettings settings, std::vector<CachePhase>* then) {
    const CacheSettings& standard = types_.standard.settings;
    const std::string standard_type = standard.type.empty() ? "kv" : standard.type;
    if (settings.type.empty()) settings.type = standard_type;
    const bool is_standard = settings.type == standard_type;
    std::vector<std::string> seen;
    while (const NamedCacheType* named = Named(settings.type)) {
      if (std::ranges::find(seen, named->name) != seen.end()) break;
      seen.push_back(named->name);
      settings = Merge(std::move(settings), named->choice.settings);
      if (!named->choice.settings.type.empty()) settings.type = named->choice.settings.type;
      if (then->empty()) *then = named->choice.then;
    }
    if (is_standard || settings.type == standard_type)
      settings = Merge(std::move(settings), standard);
    if (settings.type == "kv") return Plain(settings);
    if (IsBuiltIn(settings.type)) return settings;
    std::vector<std::string_view> known(std::begin(kCacheTypes), std::end(kCacheTypes));
    for (const NamedCacheType& named : types_.named)
      if (!IsBuiltIn(named.name)) known.push_back(named.name);
    return Impossible(fmt::format("there is no type \"{}\"; there are {}",
                                  settings.type.substr(0, limits::kCacheTypeNameBytesMax),
                                  fmt::join(known, ", ")));
  }

  // Of expanded settings. What a type is not made for may be set all the same: they combine.
  Result<CacheSegment> SegmentOf(const CacheSettings& s, int32_t from) const {
    CacheSegment segment;
    segment.from = from;
    if (s.bits) {
      segment.bits = *s.bits;
    } else if (s.compression_ratio) {
      segment.bits = BitsOf(*s.compression_ratio);
    } else {
      segment.bits = s.type == "quantized_kv" ? kQuantizedBits : 16;
    }
    if (segment.bits != 16 && segment.bits != 8 && segment.bits != 4)
      return Impossible(fmt::format("bits is {}, possible are 16, 8 and 4", segment.bits));
    if (s.compression_ratio && !(*s.compression_ratio > 0.0f && *s.compression_ratio <= 1.0f))
      return Impossible(
          fmt::format("compression_ratio is {}, possible is above 0, to 1", *s.compression_ratio));
    if (s.type == "rotating_kv" || s.max_size) {
      segment.size = s.max_size.value_or(kRotatingSize);
      segment.keep = s.keep.value_or(std::min(kRotatingKeep, segment.size));
      if (!IsPossibleWindow(segment.keep, segment.size))
        return Impossible(fmt::format(
            "max_size is {} and keep is {}; possible are sizes up to {} "
            "that leave {} positions beside those kept",
            segment.size, segment.keep, limits::kContextMax, limits::kRotatingWindowMin));
    }
    return segment;
  }

  Result<int32_t> ChunkOf(const CacheSettings& s) const {
    if (s.type != "chunked_kv" && !s.chunk_size) return 0;
    const int32_t chunk = s.chunk_size.value_or(kChunk);
    if (chunk < kPage || chunk > limits::kCacheChunkMax)
      return Impossible(fmt::format("chunk_size is {}, possible are {} to {}", chunk, kPage,
                                    limits::kCacheChunkMax));
    return (chunk + kPage - 1) / kPage * kPage;
  }

  Result<CacheSchedule> Resolve(const CacheChoice& asked) {
    std::vector<CachePhase> then = asked.then;
    if (asked.settings.type.empty() && asked == CacheChoice()) then = types_.standard.then;
    ASSIGN_OR_RETURN(const CacheSettings first, Expand(asked.settings, &then));
    CacheSchedule schedule;
    schedule.type =
        asked.settings.type.empty() ? types_.standard.settings.type : asked.settings.type;
    if (schedule.type.empty()) schedule.type = first.type;
    schedule.segments.clear();
    ASSIGN_OR_RETURN(const CacheSegment segment, SegmentOf(first, 0));
    schedule.segments.push_back(segment);
    ASSIGN_OR_RETURN(schedule.chunk_size, ChunkOf(first));
    schedule.pinned = first.type == "concatenate_kv";
    if (first.optimization_interval) {
      if (*first.optimization_interval < 1)
        return Impossible(fmt::format("optimization_interval is {}, possible is 1 and above",
                                      *first.optimization_interval));
      result_.optimization_interval = *first.optimization_interval;
    }
    std::ranges::stable_sort(then, {}, &CachePhase::at);
    for (const CachePhase& phase : then) {
      if (phase.at < 1 || phase.at > limits::kContextMax)
        return Impossible(fmt::format("a phase begins at {}, possible are 1 to {}", phase.at,
                                      limits::kContextMax));
      std::vector<CachePhase> of_its_own;
      ASSIGN_OR_RETURN(const CacheSettings next, Expand(phase.settings, &of_its_own));
      ASSIGN_OR_RETURN(const CacheSegment later, SegmentOf(next, phase.at));
      ASSIGN_OR_RETURN(const int32_t chunk, ChunkOf(next));
      schedule.chunk_size = std::max(schedule.chunk_size, chunk);
      schedule.pinned = schedule.pinned || next.type == "concatenate_kv";
      schedule.segments.push_back(later);
    }
    schedule = Normalized(std::move(schedule));
    if (schedule.segments.size() > static_cast<size_t>(limits::kCacheSegmentsMax))
      return Impossible(fmt::format("it changes {} times, possible are {}",
                                    schedule.segments.size() - 1, limits::kCacheSegmentsMax - 1));
    return schedule;
  }

  const CacheTypes& types_;
  ResolvedCache result_;
};

}  // namespace

ResolvedCache ResolveCache(const CacheChoice& asked, const CacheTypes& types) {
  return Resolver(asked, types).Take();
}

std::string DescribeCache(const CacheSchedule& schedule) {
  std::string text = schedule.type + ":";
  for (const CacheSegment& segment : schedule.segments) {
    if (segment.from > 0) text += fmt::format("; from {} on", segment.from);
    text += fmt::format(" {} bits", segment.bits);
    if (segment.size > 0)
      text += fmt::format(", the first {} and the last {} positions", segment.keep,
                          segment.size - segment.keep);
  }
  if (schedule.chunk_size > 0) text += fmt::format("; in rows of {}", schedule.chunk_size);
  if (schedule.pinned) text += "; pinned";
  return text;
}

}  // namespace perdure::worker
