#include "worker/cache_advice.h"

#include <fmt/format.h>

#include <algorithm>

namespace perdure::worker {
namespace {

// From here on something is worth a sentence.
constexpr double kMuchIdle = 0.5;          // of the memory that there may be
constexpr double kFull = 0.9;              // the same
constexpr double kMuchSpare = 0.25;        // of the memory that was asked for
constexpr double kMuchUnclaimed = 0.25;    // of what is used
constexpr double kLongConversation = 0.5;  // of the memory, one alone
constexpr double kSeldomCached = 0.2;      // of prompts
constexpr uint64_t kRequestsToJudge = 20;

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::string Size(uint64_t bytes) {
  return bytes < kMiB ? fmt::format("{} KiB", bytes >> 10) : fmt::format("{} MiB", bytes / kMiB);
}

// How many times as many positions fit in the memory of a 16-bit one.
double Times(const CacheFacts& facts, shm::PageFormat format) {
  return facts.page_bytes[format] == 0
             ? 1.0
             : PartOf(facts.page_bytes[shm::PageFormat::kFloat16], facts.page_bytes[format]);
}

void AdviseQuantizing(const CacheFacts& facts, std::vector<CacheAdvice>* advice) {
  const uint64_t in_16_bits =
      facts.pages[shm::PageFormat::kFloat16] * facts.page_bytes[shm::PageFormat::kFloat16];
  const double idle = PartOf(facts.idle_bytes, facts.bytes_max);
  if (idle < kMuchIdle || PartOf(in_16_bits, facts.bytes_used) < 0.5) return;
  const auto measured = [&](double divergence) {
    return facts.divergence ? fmt::format("measured KL {:.0e}", divergence)
                            : std::string("KL not measured yet: no conversation is long enough");
  };
  const CacheDivergence divergence = facts.divergence.value_or(CacheDivergence{});
  advice->push_back(
      {fmt::format("{:.0f}% of this model's memory is held by idle conversations: quantized_kv "
                   "would hold {:.1f}x as many in 8 bits ({}), {:.1f}x in 4 bits ({})",
                   100 * idle, Times(facts, shm::PageFormat::kBits8), measured(divergence.bits8),
                   Times(facts, shm::PageFormat::kBits4), measured(divergence.bits4)),
       "cache_type = \"quantized_kv\""});
}

}  // namespace

std::vector<CacheAdvice> Advise(const CacheFacts& facts) {
  std::vector<CacheAdvice> advice;
  AdviseQuantizing(facts, &advice);
  const bool is_full = PartOf(facts.bytes_used, facts.bytes_max) >= kFull;
  if (facts.dropped_pages > 0 && is_full)
    advice.push_back(
        {fmt::format("{} pages of KV were dropped to make room for others, and all of "
                     "{} is in use: with more memory they would still be there",
                     facts.dropped_pages, Size(facts.bytes_max)),
         fmt::format("kv_bytes_max = \"{}MiB\"", (facts.bytes_max * 2 + kMiB - 1) / kMiB)});
  const uint64_t longest_bytes =
      facts.longest_tokens * facts.page_bytes[shm::PageFormat::kFloat16] / shm::kArenaPageTokens;
  if (PartOf(longest_bytes, facts.bytes_max) >= kLongConversation)
    advice.push_back(
        {fmt::format("the longest conversation has {} tokens, which in 16 bits take "
                     "{:.0f}% of the memory: rotating_kv has a ceiling, but forgets "
                     "what lies between the beginning and the last positions",
                     facts.longest_tokens, 100 * PartOf(longest_bytes, facts.bytes_max)),
         "\"cache\": {\"type\": \"rotating_kv\", \"max_size\": 4096} in its requests"});
  if (facts.totals.displaced > 0)
    advice.push_back(
        {fmt::format(
             "{} conversations were forgotten because only {} are remembered: their answers "
             "are no longer spliced, and their memory is the first to go",
             facts.totals.displaced, facts.conversations_max),
         fmt::format("conversations.max = {}", facts.conversations_max * 2)});
  if (facts.use.requests >= kRequestsToJudge && facts.use.hit_rate() < kSeldomCached)
    advice.push_back(
        {fmt::format("{:.0f}% of the prompts' tokens were cached: requests seldom begin as others "
                     "did; what changes from request to request (dates, names, retrieved text) "
                     "belongs behind what stays the same",
                     100 * facts.use.hit_rate()),
         "the order of the prompt"});
  if (PartOf(facts.unclaimed_bytes, facts.bytes_used) >= kMuchUnclaimed)
    advice.push_back({fmt::format("{} are held for no conversation that is remembered: they are of "
                                  "use only to requests that repeat such a prompt",
                                  Size(facts.unclaimed_bytes)),
                      "perdure cache optimize"});
  else if (facts.bytes_spare > 0 && PartOf(facts.bytes_spare, facts.bytes_granted) >= kMuchSpare)
    advice.push_back({fmt::format("{} of {} that were asked of the system are not needed",
                                  Size(facts.bytes_spare), Size(facts.bytes_granted)),
                      "perdure cache optimize"});
  return advice;
}

}  // namespace perdure::worker
