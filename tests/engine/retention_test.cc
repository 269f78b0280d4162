// Sequences that see the first and the last of their positions only: equal bits however the work is
// cut, with the pages in between gone, and right beside a model that sees all.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/engine.h"
#include "kv_memory.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

constexpr int kLength = 200;

class RetentionTest : public testing::Test {
 protected:
  void SetUp() override { WriteSynthModel(spec_, dir_.path()); }
  std::unique_ptr<Engine> Load(int threads, Isa isa = BestIsa()) {
    auto engine = Engine::Load(dir_.path(), {.threads = threads, .isa = isa});
    EXPECT_TRUE(engine.has_value()) << engine.error().message;
    return std::move(*engine);
  }
  // Steps of `chunk`, the logits of all tokens. Pages that are not seen any more become null.
  std::vector<float> Compute(Engine& engine, size_t chunk,
                             const std::vector<KvRetention>& retentions) {
    const KvMemory kv(engine.info().kv, kLength);
    std::vector<std::byte*> pages(kv.view().pages.begin(), kv.view().pages.end());
    std::vector<float> all;
    for (size_t at = 0; at < tokens_.size(); at += chunk) {
      const KvView whole{.pages = pages, .retentions = retentions};
      const KvRetention now = whole.RetentionAt(static_cast<int>(at));
      const int last_from = static_cast<int>(at) - (now.size - now.keep) + 1;
      if (now.size > 0)
        for (int page = KvShape::PagesFor(now.keep); (page + 1) * kPageTokens <= last_from; ++page)
          pages[static_cast<size_t>(page)] = nullptr;
      const SequenceStep step{
          .kv = whole,
          .start = static_cast<int>(at),
          .tokens = std::span(tokens_).subspan(at, std::min(chunk, tokens_.size() - at)),
          .logits_from = 0};
      const auto logits = engine.Step({&step, 1});
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  }
  static bool SameBits(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
  }

  TempDir dir_;
  SynthSpec spec_;
  std::vector<TokenId> tokens_ = SynthTokens(3, kLength, spec_.vocab);
};

TEST_F(RetentionTest, EqualBitsHoweverTheWorkIsCut) {
  // From the start; and from a position within a page, then wider again.
  const std::vector<KvRetention> schedules[] = {
      {{.from = 0, .keep = 4, .size = 40}},
      {{.from = 45, .keep = 33, .size = 80}, {.from = 130, .keep = 33, .size = 120}},
  };
  for (const auto& retentions : schedules) {
    const auto engine = Load(1);
    const auto whole = Compute(*engine, kLength, retentions);
    for (const float logit : whole) ASSERT_TRUE(std::isfinite(logit));
    for (const Isa isa : kIsas) {
      if (!CpuHas(isa)) continue;
      const auto other = Load(2, isa);
      for (const size_t chunk : {1, 7, 32, 64})
        EXPECT_TRUE(SameBits(whole, Compute(*other, chunk, retentions)))
            << IsaName(isa) << ", " << chunk;
    }
  }
}

TEST_F(RetentionTest, HoldsFromItsPositionOn) {
  const auto engine = Load(1);
  const auto vocab = static_cast<size_t>(spec_.vocab);
  const auto all = Compute(*engine, 64, {});
  const auto rotating = Compute(*engine, 64, {{.from = 100, .keep = 4, .size = 36}});
  const std::span before(all.data(), 100 * vocab);
  EXPECT_TRUE(SameBits(before, std::span(rotating).first(before.size())));
  for (size_t at = 100; at < kLength; ++at)
    EXPECT_FALSE(SameBits(std::span(all).subspan(at * vocab, vocab),
                          std::span(rotating).subspan(at * vocab, vocab)))
        << at;
  // What holds all there is changes nothing.
  EXPECT_TRUE(SameBits(all, Compute(*engine, 64, {{.from = 10, .keep = 4, .size = kLength + 4}})));
}

}  // namespace
}  // namespace perdure::engine
