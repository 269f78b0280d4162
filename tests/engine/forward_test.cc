// The forward pass as a whole: equal bits however the work is cut, and for every instruction set.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/limits.h"
#include "engine/engine.h"
#include "kv_memory.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

using Logits = std::vector<float>;

std::unique_ptr<Engine> LoadEngine(const std::filesystem::path& dir, int threads, Isa isa,
                                   Activations activations = Activations::kInt8) {
  auto engine = Engine::Load(dir, {.threads = threads, .isa = isa, .activations = activations});
  EXPECT_TRUE(engine.has_value()) << (engine ? "" : engine.error().message);
  return engine ? std::move(*engine) : nullptr;
}

// Logits of all tokens, computed in steps of `chunk`.
Logits RunChunks(Engine& engine, const KvMemory& kv, const std::vector<TokenId>& tokens,
                 size_t chunk) {
  Logits all;
  for (size_t at = 0; at < tokens.size(); at += chunk) {
    const size_t n = std::min(chunk, tokens.size() - at);
    const SequenceStep step{.kv = kv.view(),
                            .start = static_cast<int>(at),
                            .tokens = std::span(tokens).subspan(at, n),
                            .logits_from = 0};
    const auto logits = engine.Step({&step, 1});
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}
bool SameBits(const KvMemory& a, const KvMemory& b) {
  return a.memory().size() == b.memory().size() &&
         std::memcmp(a.memory().data(), b.memory().data(), a.memory().size()) == 0;
}

std::vector<Isa> Isas() {
  std::vector<Isa> isas;
  for (Isa isa : kIsas)
    if (CpuHas(isa)) isas.push_back(isa);
  return isas;
}

struct Case {
  const char* name;
  SynthSpec spec;
  Activations activations = Activations::kInt8;
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class ForwardTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override { WriteSynthModel(GetParam().spec, dir_.path()); }
  std::unique_ptr<Engine> Load(int threads, Isa isa = BestIsa()) const {
    return LoadEngine(dir_.path(), threads, isa, GetParam().activations);
  }
  TempDir dir_;
};

constexpr int kLength = 75;

TEST_P(ForwardTest, EqualBitsHoweverAPromptIsCut) {
  const SynthSpec& spec = GetParam().spec;
  const std::vector<TokenId> tokens = SynthTokens(7, kLength, spec.vocab);
  const auto engine = Load(1);
  ASSERT_NE(engine, nullptr);
  const KvMemory whole_kv(engine->info().kv, kLength);
  const Logits whole = RunChunks(*engine, whole_kv, tokens, kLength);
  ASSERT_EQ(whole.size(), tokens.size() * static_cast<size_t>(spec.vocab));
  for (float logit : whole) ASSERT_TRUE(std::isfinite(logit));
  for (int threads : {1, 2, 3}) {
    const auto other = Load(threads);
    ASSERT_NE(other, nullptr);
    for (size_t chunk : {1, 2, 3, 4, 5, 13, 32, 33, 64, 75}) {
      const KvMemory kv(engine->info().kv, kLength);
      EXPECT_TRUE(SameBits(whole, RunChunks(*other, kv, tokens, chunk)))
          << threads << " threads, steps of " << chunk;
      EXPECT_TRUE(SameBits(whole_kv, kv)) << threads << " threads, steps of " << chunk;
    }
  }
}

TEST_P(ForwardTest, EqualBitsAloneAndAmongEightOthers) {
  const SynthSpec& spec = GetParam().spec;
  const auto engine = Load(2);
  ASSERT_NE(engine, nullptr);
  const KvShape& shape = engine->info().kv;
  const std::vector<TokenId> tokens = SynthTokens(7, kLength, spec.vocab);
  const KvMemory alone_kv(shape, kLength);
  const Logits alone = RunChunks(*engine, alone_kv, tokens, kLength);

  // Others of various lengths, each a few tokens a step; ours stands in the middle.
  constexpr size_t kOthers = 8, kOurs = 4;
  std::vector<std::vector<TokenId>> all;
  std::vector<KvMemory> kvs;
  for (size_t i = 0; i <= kOthers; ++i) {
    all.push_back(i == kOurs ? tokens
                             : SynthTokens(100 + i, 20 + 9 * static_cast<int>(i), spec.vocab));
    kvs.emplace_back(shape, static_cast<int>(all[i].size()));
  }
  std::vector<size_t> done(all.size(), 0);
  Logits ours;
  for (int round = 0; done[kOurs] < tokens.size(); ++round) {
    std::vector<SequenceStep> steps;
    size_t before = 0, mine = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t n =
          std::min((i * 5 + static_cast<size_t>(round) * 3) % 11 + 1, all[i].size() - done[i]);
      if (n == 0) continue;
      if (i == kOurs) mine = n;
      if (i < kOurs) ++before;
      // The others want the logits of their last token only.
      steps.push_back({.kv = kvs[i].view(),
                       .start = static_cast<int>(done[i]),
                       .tokens = std::span(all[i]).subspan(done[i], n),
                       .logits_from = i == kOurs ? 0 : static_cast<int>(n) - 1});
      done[i] += n;
    }
    const auto logits = engine->Step(steps);
    const auto vocab = static_cast<size_t>(spec.vocab);
    const auto part = logits.subspan(before * vocab, mine * vocab);
    ours.insert(ours.end(), part.begin(), part.end());
  }
  EXPECT_TRUE(SameBits(alone, ours));
  EXPECT_TRUE(SameBits(alone_kv, kvs[kOurs]));
}

TEST_P(ForwardTest, EqualBitsForEveryInstructionSet) {
  const SynthSpec& spec = GetParam().spec;
  const std::vector<TokenId> tokens = SynthTokens(7, kLength, spec.vocab);
  Logits reference;
  std::unique_ptr<KvMemory> reference_kv;
  for (Isa isa : Isas()) {
    const auto engine = Load(2, isa);
    ASSERT_NE(engine, nullptr);
    for (size_t chunk : {size_t{1}, size_t{3}, size_t{kLength}}) {
      auto kv = std::make_unique<KvMemory>(engine->info().kv, kLength);
      const Logits logits = RunChunks(*engine, *kv, tokens, chunk);
      if (reference_kv == nullptr) {
        reference = logits;
        reference_kv = std::move(kv);
        continue;
      }
      EXPECT_TRUE(SameBits(reference, logits)) << IsaName(isa) << ", steps of " << chunk;
      EXPECT_TRUE(SameBits(*reference_kv, *kv)) << IsaName(isa) << ", steps of " << chunk;
    }
  }
}

// A step longer than what goes through the layers at once.
TEST_P(ForwardTest, EqualBitsOfStepsThatAreCutInside) {
  const SynthSpec& spec = GetParam().spec;
  constexpr int kLong = limits::kEngineRowsMax + 90;
  const std::vector<TokenId> tokens = SynthTokens(8, kLong, spec.vocab);
  const auto engine = Load(2);
  ASSERT_NE(engine, nullptr);
  const KvMemory a(engine->info().kv, kLong), b(engine->info().kv, kLong);
  EXPECT_TRUE(SameBits(RunChunks(*engine, a, tokens, kLong), RunChunks(*engine, b, tokens, 200)));
  EXPECT_TRUE(SameBits(a, b));
}

TEST_P(ForwardTest, LogitsOnlyForTheRowsAskedFor) {
  const SynthSpec& spec = GetParam().spec;
  const std::vector<TokenId> tokens = SynthTokens(7, 40, spec.vocab);
  const auto engine = Load(2);
  ASSERT_NE(engine, nullptr);
  const KvMemory a(engine->info().kv, 40), b(engine->info().kv, 40);
  const Logits all = RunChunks(*engine, a, tokens, 40);
  const SequenceStep step{.kv = b.view(), .start = 0, .tokens = tokens, .logits_from = 38};
  const auto two = engine->Step({&step, 1});
  EXPECT_TRUE(SameBits(std::span(all).subspan(38 * static_cast<size_t>(spec.vocab)), two));
  const SequenceStep none{.kv = b.view(), .start = 0, .tokens = tokens, .logits_from = 40};
  EXPECT_TRUE(engine->Step({&none, 1}).empty());
  EXPECT_TRUE(engine->Step({}).empty());
}

// Where every layer has a window, the pages behind it may be gone.
TEST(SlidingWindowTest, PagesBehindTheWindowAreNotRead) {
  constexpr int kWindow = 40, kTokens = 300;
  const SynthSpec spec{.model_type = "mistral", .config = R"({"sliding_window": 40})"};
  TempDir dir;
  WriteSynthModel(spec, dir.path());
  const std::vector<TokenId> tokens = SynthTokens(7, kTokens, spec.vocab);
  for (Isa isa : Isas()) {
    const auto engine = LoadEngine(dir.path(), 2, isa);
    ASSERT_NE(engine, nullptr);
    const KvMemory whole_kv(engine->info().kv, kTokens);
    const Logits whole = RunChunks(*engine, whole_kv, tokens, kTokens);
    for (size_t chunk : {1, 7, 32, 50}) {
      const KvMemory kv(engine->info().kv, kTokens);
      std::vector<std::byte*> pages(kv.view().pages.begin(), kv.view().pages.end());
      Logits all;
      for (size_t at = 0; at < tokens.size(); at += chunk) {
        const int behind = std::max(0, static_cast<int>(at) - kWindow + 1) / kPageTokens;
        std::fill_n(pages.begin(), behind, nullptr);
        const SequenceStep step{
            .kv = {pages},
            .start = static_cast<int>(at),
            .tokens = std::span(tokens).subspan(at, std::min(chunk, tokens.size() - at)),
            .logits_from = 0};
        const auto logits = engine->Step({&step, 1});
        all.insert(all.end(), logits.begin(), logits.end());
      }
      EXPECT_GE(std::count(pages.begin(), pages.end(), nullptr), 6);
      EXPECT_TRUE(SameBits(whole, all)) << IsaName(isa) << ", steps of " << chunk;
    }
  }
}

// A window that reaches over everything changes nothing; a smaller one does.
TEST(SlidingWindowTest, HidesWhatLiesBehind) {
  constexpr int kTokens = 100;
  TempDir dir;
  const auto run = [&](const char* config) {
    const SynthSpec spec{.model_type = "mistral", .config = config};
    WriteSynthModel(spec, dir.path());
    const auto engine = LoadEngine(dir.path(), 2, BestIsa());
    const KvMemory kv(engine->info().kv, kTokens);
    return RunChunks(*engine, kv, SynthTokens(7, kTokens, spec.vocab), kTokens);
  };
  const Logits full = run("{}");
  EXPECT_TRUE(SameBits(full, run(R"({"sliding_window": 100})")));
  const Logits slid = run(R"({"sliding_window": 60})");
  const size_t vocab = full.size() / kTokens;
  EXPECT_TRUE(SameBits(std::span(full).first(60 * vocab), std::span(slid).first(60 * vocab)));
  for (size_t row = 60; row < kTokens; ++row)
    EXPECT_FALSE(SameBits(std::span(full).subspan(row * vocab, vocab),
                          std::span(slid).subspan(row * vocab, vocab)))
        << row;
}

const Case kCases[] = {
    {"Qwen3Bf16", {}},
    {"Qwen3F16OddShapes",
     {.dtype = "f16",
      .hidden = 88,
      .heads = 6,
      .kv_heads = 1,
      .head_dim = 20,
      .feed_forward = 150,
      .vocab = 203,
      .tied = false}},
    {"Qwen2F32", {.model_type = "qwen2", .dtype = "f32", .hidden = 64, .vocab = 100, .seed = 3}},
    {"Qwen2Bf16ManyHeads",
     {.model_type = "qwen2",
      .hidden = 72,
      .layers = 1,
      .heads = 52,
      .kv_heads = 1,
      .head_dim = 8,
      .tied = false}},
    {"LlamaBiases",
     {.model_type = "llama",
      .dtype = "f16",
      .hidden = 72,
      .feed_forward = 100,
      .tied = false,
      .attention_bias = true,
      .mlp_bias = true}},
    {"MistralWindow",
     {.model_type = "mistral",
      .hidden = 72,
      .heads = 6,
      .head_dim = 24,
      .config = R"({"sliding_window": 21})"}},
    {"MistralWindowOfOne", {.model_type = "mistral", .config = R"({"sliding_window": 1})"}},
    {"Qwen3SomeLayersWindows",
     {.layers = 3,
      .heads = 6,
      .kv_heads = 1,
      .config = R"({"use_sliding_window": true, "sliding_window": 33, "max_window_layers": 1})"}},
    {"Qwen3FourBits", {.hidden = 128, .heads = 4, .head_dim = 32, .feed_forward = 192, .bits = 4}},
    {"Qwen3FourBitsFloat32",
     {.hidden = 128, .heads = 4, .head_dim = 32, .feed_forward = 192, .bits = 4},
     Activations::kFloat32},
    {"Qwen3EightBitsGroup32",
     {.dtype = "f16",
      .hidden = 96,
      .head_dim = 24,
      .feed_forward = 160,
      .vocab = 150,
      .tied = false,
      .bits = 8,
      .group = 32}},
    {"Qwen2FiveBitsGroup128F32Scales",
     {.model_type = "qwen2",
      .dtype = "f32",
      .hidden = 128,
      .head_dim = 32,
      .feed_forward = 256,
      .bits = 5,
      .group = 128}},
    {"Qwen3Mxfp4Untied",
     {.hidden = 96, .feed_forward = 160, .vocab = 150, .tied = false, .bits = 4, .mode = "mxfp4"}},
    {"Qwen3SixBitsFloat32", {.bits = 6}, Activations::kFloat32},
    {"Qwen3SomeLayersFloat",
     {.hidden = 128,
      .layers = 3,
      .heads = 4,
      .head_dim = 32,
      .feed_forward = 192,
      .bits = 4,
      .overrides = {{"model.layers.0.self_attn.k_proj", 0},
                    {"model.layers.1.mlp.up_proj", 8},
                    {"model.layers.2.mlp.down_proj", 0}}}},
    {"Qwen3MoeBf16", {.model_type = "qwen3_moe", .experts = 8}},
    {"Qwen3MoeFourBitsDenseBetween",
     {.model_type = "qwen3_moe",
      .dtype = "f16",
      .hidden = 128,
      .layers = 3,
      .feed_forward = 192,
      .bits = 4,
      .overrides = {{"model.layers.0.mlp.gate", 8}},
      .experts = 12,
      .experts_per_token = 3,
      .expert_feed_forward = 128,
      .dense_layers = {1}}},
    {"Qwen3MoeMxfp4",
     {.model_type = "qwen3_moe",
      .bits = 4,
      .mode = "mxfp4",
      .experts = 16,
      .experts_per_token = 4,
      .expert_feed_forward = 32}},
};
INSTANTIATE_TEST_SUITE_P(Models, ForwardTest, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace perdure::engine
