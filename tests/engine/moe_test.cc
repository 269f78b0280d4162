// Layers of experts: who is chosen, that nothing else is read, that a token's result depends on no
// other, and how experts lie in checkpoints.

#include "engine/models/moe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "base/limits.h"
#include "engine/engine.h"
#include "engine/weights/weight_reader.h"
#include "kv_memory.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// --- Choosing ------------------------------------------------------------------------------------

struct Choice {
  std::vector<int> experts;
  std::vector<float> weights;
};

Choice Choose(const std::vector<float>& probabilities, size_t count, bool normalize) {
  Choice choice{std::vector<int>(count, -1), std::vector<float>(count, -1.0f)};
  ChooseExperts(probabilities, normalize, choice.experts, choice.weights);
  return choice;
}

TEST(ChooseExpertsTest, TheLargestAndOfEqualOnesTheLowest) {
  const std::vector<float> p = {0.125f, 0.25f, 0.0625f, 0.25f, 0.125f, 0.125f, 0.0625f, 0.0f};
  EXPECT_THAT(Choose(p, 1, false).experts, ElementsAre(1));
  EXPECT_THAT(Choose(p, 3, false).experts, ElementsAre(1, 3, 0));
  EXPECT_THAT(Choose(p, 4, false).experts, ElementsAre(1, 3, 0, 4));
  EXPECT_THAT(Choose(p, 8, false).experts, ElementsAre(1, 3, 0, 4, 5, 2, 6, 7));
  EXPECT_THAT(Choose(p, 3, false).weights, ElementsAre(0.25f, 0.25f, 0.125f));
  EXPECT_THAT(Choose(p, 3, true).weights, ElementsAre(0.4f, 0.4f, 0.2f));
  EXPECT_THAT(Choose(std::vector<float>(6, 0.5f), 3, true).experts, ElementsAre(0, 1, 2));
}

TEST(ChooseExpertsTest, EqualsAStableSort) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<float> p(random() % 40 + 1);
    for (float& value : p) value = static_cast<float>(random() % 8) / 16.0f;  // many are equal
    std::vector<int> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return p[size_t(a)] > p[size_t(b)]; });
    order.resize(random() % p.size() + 1);
    ASSERT_EQ(Choose(p, order.size(), false).experts, order);
  }
}

// A model that computes NaN must not make the choice anything but a choice.
TEST(ChooseExpertsTest, NanChoosesExpertsThatExist) {
  EXPECT_THAT(Choose({NAN, NAN, NAN}, 2, true).experts, ElementsAre(0, 1));
  for (const std::vector<float>& p : {std::vector<float>{NAN, 0.5f, NAN, 0.25f, NAN},
                                      std::vector<float>{0.25f, NAN, 0.5f, NAN, 0.5f}}) {
    std::vector<int> experts = Choose(p, 4, false).experts;
    std::sort(experts.begin(), experts.end());
    EXPECT_EQ(std::unique(experts.begin(), experts.end()), experts.end());
    EXPECT_GE(experts.front(), 0);
    EXPECT_LT(experts.back(), 5);
  }
}

// --- One layer -----------------------------------------------------------------------------------

struct LayerCase {
  const char* name;
  SynthSpec spec;
};
std::ostream& operator<<(std::ostream& out, const LayerCase& c) { return out << c.name; }

ExpertsConfig ConfigOf(const SynthSpec& spec) {
  return {.count = spec.experts,
          .per_token = spec.experts_per_token,
          .feed_forward = spec.expert_feed_forward,
          .normalize = true,
          .sparse_step = 1,
          .dense_layers = {}};
}

MoeLayer ReadLayer(const SynthSpec& spec) {
  TempDir dir;
  WriteSynthModel(spec, dir.path());
  const auto config = ReadModelConfig(dir.path());
  const auto checkpoint = Checkpoint::Open(dir.path());
  EXPECT_TRUE(config.has_value() && checkpoint.has_value());
  ThreadPool pool(2);
  WeightReader reader(*checkpoint, *config, pool, [](uint64_t) {});
  auto layer = LoadMoeLayer(reader, "model.layers.0.mlp", spec.hidden, ConfigOf(spec));
  EXPECT_TRUE(layer.has_value()) << layer.error().message;
  return std::move(*layer);
}

std::vector<float> RandomRows(int rows, int hidden, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  std::vector<float> values(static_cast<size_t>(rows * hidden));
  for (float& value : values) value = normal(random);
  return values;
}

// What the layer adds to rows of zeros.
std::vector<float> Compute(const SynthSpec& spec, const MoeLayer& layer,
                           std::span<const float> normed, int threads = 1, Isa isa = BestIsa(),
                           Activations activations = Activations::kInt8) {
  ThreadPool pool(threads);
  MoeCompute moe(KernelsFor(isa), pool, activations, spec.hidden, ConfigOf(spec));
  std::vector<float> x(normed.size(), 0.0f);
  moe.Add(layer, normed.data(), static_cast<int>(normed.size()) / spec.hidden, x.data());
  return x;
}

class MoeLayerTest : public testing::TestWithParam<LayerCase> {
 protected:
  const SynthSpec& spec_ = GetParam().spec;
  const size_t hidden_ = static_cast<size_t>(spec_.hidden);
  const MoeLayer layer_ = ReadLayer(spec_);
};

TEST_P(MoeLayerTest, IsTheWeightedSumOfTheChosen) {
  constexpr int kRows = 40;
  const std::vector<float> normed = RandomRows(kRows, spec_.hidden, 2);
  const std::vector<float> got =
      Compute(spec_, layer_, normed, 1, BestIsa(), Activations::kFloat32);
  const auto inner = static_cast<size_t>(spec_.expert_feed_forward);
  std::vector<float> weights(std::max(hidden_, inner));
  const auto dot = [&](const PackedMatrix& matrix, int output, int part, const auto& x) {
    ReadRow(matrix, output, weights.data(), part);
    double sum = 0.0;
    for (size_t i = 0; i < static_cast<size_t>(matrix.layout.k); ++i)
      sum += double{weights[i]} * x[i];
    return sum;
  };
  for (size_t row = 0; row < kRows; ++row) {
    const auto x = std::span(normed).subspan(row * hidden_, hidden_);
    std::vector<double> logits;
    for (int expert = 0; expert < spec_.experts; ++expert)
      logits.push_back(dot(layer_.router, expert, 0, x));
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int a, int b) { return logits[size_t(a)] > logits[size_t(b)]; });
    order.resize(static_cast<size_t>(spec_.experts_per_token));
    double sum = 0.0;  // of the chosen: the rest of the softmax cancels
    for (int expert : order) sum += std::exp(logits[size_t(expert)] - logits[size_t(order[0])]);
    std::vector<double> expected(hidden_, 0.0);
    for (int expert : order) {
      std::vector<double> h;
      for (int i = 0; i < spec_.expert_feed_forward; ++i) {
        const double gate = dot(layer_.gate, i, expert, x);
        h.push_back(gate / (1.0 + std::exp(-gate)) * dot(layer_.up, i, expert, x));
      }
      const double weight = std::exp(logits[size_t(expert)] - logits[size_t(order[0])]) / sum;
      for (size_t i = 0; i < hidden_; ++i)
        expected[i] += weight * dot(layer_.down, static_cast<int>(i), expert, h);
    }
    for (size_t i = 0; i < hidden_; ++i)
      EXPECT_NEAR(got[row * hidden_ + i], expected[i], 2e-5) << "row " << row;
  }
}

// Many rows: some experts take direct products, others tiles, some both in another batch.
TEST_P(MoeLayerTest, EqualBitsAloneInAnyBatchOnAnyThreadsAndInstructionSet) {
  constexpr int kRows = 150;
  const std::vector<float> normed = RandomRows(kRows, spec_.hidden, 3);
  const std::vector<float> alone = [&] {
    std::vector<float> all;
    for (size_t row = 0; row < kRows; ++row) {
      const auto one = Compute(spec_, layer_, std::span(normed).subspan(row * hidden_, hidden_));
      all.insert(all.end(), one.begin(), one.end());
    }
    return all;
  }();
  for (Isa isa : kIsas) {
    if (!CpuHas(isa)) continue;
    for (int threads : {1, 2, 3})
      EXPECT_EQ(Compute(spec_, layer_, normed, threads, isa), alone)
          << IsaName(isa) << ", " << threads << " threads";
  }
  for (size_t chunk : {2, 3, 5, 9, 31}) {
    std::vector<float> all;
    for (size_t row = 0; row < kRows; row += chunk) {
      const size_t n = std::min(chunk, kRows - row);
      const auto part =
          Compute(spec_, layer_, std::span(normed).subspan(row * hidden_, n * hidden_), 2);
      all.insert(all.end(), part.begin(), part.end());
    }
    EXPECT_EQ(all, alone) << "in batches of " << chunk;
  }
  // In another order.
  std::vector<float> reversed, expected;
  for (size_t row = kRows; row-- > 0;) {
    const auto at = static_cast<ptrdiff_t>(row * hidden_), end = at + spec_.hidden;
    reversed.insert(reversed.end(), normed.begin() + at, normed.begin() + end);
    expected.insert(expected.end(), alone.begin() + at, alone.begin() + end);
  }
  EXPECT_EQ(Compute(spec_, layer_, reversed, 2), expected);
}

// More pairs of rows and experts than are computed at once.
TEST_P(MoeLayerTest, EqualBitsWhereABatchIsCut) {
  const int rows = limits::kExpertSlotsMax / spec_.experts_per_token + 7;
  const std::vector<float> normed = RandomRows(rows, spec_.hidden, 4);
  const std::vector<float> whole = Compute(spec_, layer_, normed, 2);
  const size_t last = static_cast<size_t>(rows - 20) * hidden_;
  const std::vector<float> tail = Compute(spec_, layer_, std::span(normed).subspan(last));
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), whole.begin() + static_cast<ptrdiff_t>(last)));
}

const LayerCase kLayers[] = {
    {"Bf16", {.model_type = "qwen3_moe", .layers = 1, .experts = 8}},
    {"F32OddShapes",
     {.model_type = "qwen3_moe",
      .dtype = "f32",
      .hidden = 88,
      .layers = 1,
      .experts = 11,
      .experts_per_token = 5,
      .expert_feed_forward = 50}},
    {"FourBits",
     {.model_type = "qwen3_moe",
      .hidden = 128,
      .layers = 1,
      .bits = 4,
      .overrides = {{"model.layers.0.mlp.gate", 8}},
      .experts = 16,
      .experts_per_token = 4}},
    {"Mxfp4",
     {.model_type = "qwen3_moe",
      .hidden = 96,
      .layers = 1,
      .bits = 4,
      .mode = "mxfp4",
      .experts = 6,
      .experts_per_token = 3,
      .expert_feed_forward = 32}},
    {"OneOfOne", {.model_type = "qwen3_moe", .layers = 1, .experts = 1, .experts_per_token = 1}},
};
INSTANTIATE_TEST_SUITE_P(Layers, MoeLayerTest, testing::ValuesIn(kLayers),
                         [](const auto& info) { return std::string(info.param.name); });

// The pages of all experts that no token chooses are taken away: touching one is a fault.
TEST(MoeTest, OnlyChosenExpertsAreRead) {
  const SynthSpec spec{.model_type = "qwen3_moe",
                       .dtype = "f32",
                       .hidden = 64,
                       .layers = 1,
                       .experts = 16,
                       .experts_per_token = 2,
                       .expert_feed_forward = 32};
  MoeLayer layer = ReadLayer(spec);
  // Element e of a row alone makes expert e likely.
  float* router = layer.router.memory.as<float>();
  std::fill_n(router, layer.router.data.size() / sizeof(float), 0.0f);
  for (int expert = 0; expert < spec.experts; ++expert)
    router[expert * kPanelWidth + expert] = 10.0f;
  const std::vector<std::vector<int>> chosen = {{3, 7},  {3, 12}, {12, 7}, {3, 7}, {7, 3},
                                                {3, 12}, {3, 7},  {12, 3}, {3, 7}};
  std::vector<float> normed = RandomRows(static_cast<int>(chosen.size()), spec.hidden, 5);
  for (size_t row = 0; row < chosen.size(); ++row) {
    for (size_t i = 0; i < 16; ++i) normed[row * 64 + i] = -1.0f;
    for (int expert : chosen[row]) normed[row * 64 + static_cast<size_t>(expert)] = 2.0f;
  }
  const std::vector<float> before = Compute(spec, layer, normed, 2);
  for (const PackedMatrix* matrix : {&layer.gate, &layer.up, &layer.down}) {
    const size_t bytes = static_cast<size_t>(matrix->panels) * matrix->layout.panel_bytes;
    ASSERT_EQ(bytes % 4096, 0u);
    for (int expert : {0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15})
      ASSERT_EQ(mprotect(const_cast<std::byte*>(matrix->Panel(0, expert)), bytes, PROT_NONE), 0);
  }
  EXPECT_EQ(Compute(spec, layer, normed, 2), before);
  for (size_t row = 0; row < chosen.size(); ++row) {
    const auto one = Compute(spec, layer, std::span(normed).subspan(row * 64, 64), 2);
    EXPECT_TRUE(std::equal(one.begin(), one.end(), before.begin() + ptrdiff_t(row) * 64));
  }
}

// --- Checkpoints ---------------------------------------------------------------------------------

class MoeLoadTest : public testing::Test {
 protected:
  static SynthSpec Spec() {
    return {.model_type = "qwen3_moe", .experts = 4, .experts_per_token = 2};
  }
  Result<std::unique_ptr<Engine>> Load(
      std::function<void(const LoadProgress&)> on_progress = nullptr) {
    return Engine::Load(dir_.path(), {.threads = 2, .isa = BestIsa(), .on_progress = on_progress});
  }
  std::vector<float> Logits() {
    auto engine = Load();
    EXPECT_TRUE(engine.has_value()) << engine.error().message;
    if (!engine) return {};
    const std::vector<TokenId> tokens = SynthTokens(7, 30, (*engine)->info().vocab_size);
    const KvMemory kv((*engine)->info().kv, 30);
    const SequenceStep step{.kv = kv.view(), .start = 0, .tokens = tokens, .logits_from = 0};
    const auto logits = (*engine)->Step({&step, 1});
    return {logits.begin(), logits.end()};
  }
  // Loads the model with its tensors changed.
  Error ErrorOf(const SynthSpec& spec,
                const std::function<void(std::vector<SynthTensor>&)>& damage) {
    WriteText(dir_.path() / "config.json", SynthConfigJson(spec));
    std::vector<SynthTensor> tensors = SynthTensors(spec);
    damage(tensors);
    WriteText(dir_.path() / "model.safetensors", SafetensorsBytes(tensors));
    auto engine = Load();
    EXPECT_FALSE(engine.has_value());
    return engine ? Error{} : engine.error();
  }
  TempDir dir_;
};

SynthTensor& Named(std::vector<SynthTensor>& tensors, const std::string& name) {
  const auto it = std::find_if(tensors.begin(), tensors.end(),
                               [&](const SynthTensor& tensor) { return tensor.name == name; });
  EXPECT_NE(it, tensors.end()) << name;
  return *it;
}

TEST_F(MoeLoadTest, ExpertsMayLieInAnyOfThreeWays) {
  SynthSpec spec = Spec();
  spec.dense_layers = {0};
  WriteSynthModel(spec, dir_.path());
  const std::vector<float> stacked = Logits();
  for (const char* layout : {"fused", "apart"}) {
    spec.expert_layout = layout;
    WriteSynthModel(spec, dir_.path());
    EXPECT_EQ(Logits(), stacked) << layout;
  }
  // Apart and in shards; quantized and apart.
  spec.shards = 3;
  std::filesystem::remove(dir_.path() / "model.safetensors");
  WriteSynthModel(spec, dir_.path());
  EXPECT_EQ(Logits(), stacked);
  std::filesystem::remove(dir_.path() / "model.safetensors.index.json");
  SynthSpec quantized = Spec();
  quantized.bits = 4;
  WriteSynthModel(quantized, dir_.path());
  const std::vector<float> expected = Logits();
  quantized.expert_layout = "apart";
  WriteSynthModel(quantized, dir_.path());
  EXPECT_EQ(Logits(), expected);
}

TEST_F(MoeLoadTest, InfoCountsAllAndWhatATokenUses) {
  SynthSpec spec = Spec();
  spec.tied = false;
  spec.dense_layers = {1};
  WriteSynthModel(spec, dir_.path());
  std::vector<uint64_t> done;
  auto engine = Load([&](const LoadProgress& progress) { done.push_back(progress.bytes_done); });
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  const ModelInfo& info = (*engine)->info();
  EXPECT_EQ(info.architecture, "qwen3_moe");
  const int64_t attention = 64 * (64 + 32 + 32 + 64), expert = 3 * 64 * 64, router = 4 * 64;
  const int64_t dense = 3 * 64 * 96, head = 256 * 64, norms = 2 * (2 * 64 + 2 * 16) + 64;
  EXPECT_EQ(info.parameters, 2 * head + 2 * attention + dense + router + 4 * expert + norms);
  EXPECT_EQ(info.token_weights, head + 2 * attention + dense + router + 2 * expert);
  // In panels of 32 outputs: the router's are padded.
  EXPECT_EQ(info.token_bytes, 2 * static_cast<uint64_t>(info.token_weights - router + 32 * 64));
  EXPECT_GT(info.weight_bytes, info.token_bytes);
  ASSERT_GE(done.size(), 2u * 8u);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
}

TEST_F(MoeLoadTest, LayersMayBeDenseByStep) {
  SynthSpec spec = Spec();
  spec.layers = 4;
  spec.dense_layers = {0, 2, 3};
  spec.config = R"({"decoder_sparse_step": 2, "mlp_only_layers": [3, 17]})";
  WriteSynthModel(spec, dir_.path());
  const auto engine = Load();
  EXPECT_TRUE(engine.has_value()) << engine.error().message;
}

TEST_F(MoeLoadTest, TheNumberOfExpertsHasTwoNames) {
  SynthSpec spec = Spec();
  spec.config = R"({"num_experts": null, "num_local_experts": 4})";
  WriteSynthModel(spec, dir_.path());
  EXPECT_TRUE(Load().has_value());
}

TEST_F(MoeLoadTest, WithoutRenormalizationWeightsAreSmaller) {
  SynthSpec spec = Spec();
  WriteSynthModel(spec, dir_.path());
  const std::vector<float> normalized = Logits();
  spec.config = R"({"norm_topk_prob": false})";
  WriteSynthModel(spec, dir_.path());
  EXPECT_NE(Logits(), normalized);
  // With all experts the probabilities are whole.
  spec.experts_per_token = 4;
  WriteSynthModel(spec, dir_.path());
  const std::vector<float> all = Logits();
  spec.config = "{}";
  WriteSynthModel(spec, dir_.path());
  const std::vector<float> all_normalized = Logits();
  ASSERT_EQ(all.size(), all_normalized.size());
  for (size_t i = 0; i < all.size(); ++i) EXPECT_NEAR(all[i], all_normalized[i], 1e-2f);
}

TEST_F(MoeLoadTest, BadConfigsAreRefused) {
  struct Row {
    const char* config;
    std::vector<const char*> reasons;
  };
  const Row rows[] = {
      {R"({"num_experts": null})", {"num_experts is missing"}},
      {R"({"num_experts_per_tok": null})", {"num_experts_per_tok is missing"}},
      {R"({"moe_intermediate_size": null})", {"moe_intermediate_size is missing"}},
      {R"({"num_experts_per_tok": 5})", {"num_experts_per_tok is 5", "only 4 experts"}},
      {R"({"num_experts_per_tok": 0})", {"num_experts_per_tok is 0", "[1, 4096]"}},
      {R"({"num_experts": 0})", {"num_experts is 0"}},
      {R"({"num_experts": 100000})", {"num_experts is 100000", "[1, 4096]"}},
      {R"({"decoder_sparse_step": 0})", {"decoder_sparse_step is 0"}},
      {R"({"mlp_only_layers": 3})", {"mlp_only_layers is 3, not a list of layers"}},
      {R"({"mlp_only_layers": [0, -1]})", {"mlp_only_layers is [0,-1]"}},
      {R"({"norm_topk_prob": 1})", {"norm_topk_prob is 1, not true or false"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.config);
    SynthSpec spec = Spec();
    spec.config = row.config;
    const Error error = ErrorOf(spec, [](auto&) {});
    EXPECT_EQ(error.code, ErrorCode::bad_model);
    EXPECT_THAT(error.message, HasSubstr("config.json"));
    for (const char* reason : row.reasons) EXPECT_THAT(error.message, HasSubstr(reason));
  }
}

TEST_F(MoeLoadTest, BadExpertsAreRefused) {
  const std::string mlp = "model.layers.1.mlp.";
  SynthSpec stacked = Spec(), apart = Spec(), fused = Spec(), quantized = Spec();
  apart.expert_layout = "apart";
  fused.expert_layout = "fused";
  quantized.bits = 4;
  const auto remove = [](const std::string& name) {
    return [name](std::vector<SynthTensor>& tensors) { Named(tensors, name).name += ".gone"; };
  };
  const auto reshape = [](const std::string& name, std::vector<int64_t> shape) {
    return [=](std::vector<SynthTensor>& tensors) {
      SynthTensor& tensor = Named(tensors, name);
      tensor.shape = shape;
      size_t bytes = tensor.dtype == "U32" ? 4 : 2;
      for (int64_t size : shape) bytes *= static_cast<size_t>(size);
      tensor.data.resize(bytes);
    };
  };
  struct Row {
    const char* what;
    SynthSpec spec;
    std::function<void(std::vector<SynthTensor>&)> damage;
    std::vector<std::string> reasons;
  };
  const Row rows[] = {
      {"router missing", stacked, remove(mlp + "gate.weight"), {mlp + "gate.weight is missing"}},
      {"router of another number",
       stacked,
       reshape(mlp + "gate.weight", {5, 64}),
       {mlp + "gate.weight has the shape [5, 64]", "[4, 64]"}},
      {"no experts at all",
       stacked,
       remove(mlp + "switch_mlp.gate_proj.weight"),
       {mlp + "experts.0.gate_proj.weight is missing"}},
      {"one projection missing",
       stacked,
       remove(mlp + "switch_mlp.down_proj.weight"),
       {mlp + "switch_mlp.down_proj.weight is missing"}},
      {"fewer experts stacked",
       stacked,
       reshape(mlp + "switch_mlp.up_proj.weight", {3, 64, 64}),
       {mlp + "switch_mlp.up_proj.weight has the shape [3, 64, 64]", "[4, 64, 64]"}},
      {"an expert missing",
       apart,
       remove(mlp + "experts.2.up_proj.weight"),
       {mlp + "experts.2.up_proj.weight is missing"}},
      {"an expert too many",
       apart,
       [&](std::vector<SynthTensor>& tensors) {
         SynthTensor extra = Named(tensors, mlp + "experts.0.gate_proj.weight");
         extra.name = mlp + "experts.4.gate_proj.weight";
         tensors.push_back(extra);
       },
       {mlp + "experts.4.gate_proj.weight", "there are 4 experts"}},
      {"an expert of another shape",
       apart,
       reshape(mlp + "experts.3.down_proj.weight", {64, 32}),
       {mlp + "experts.3.down_proj.weight has the shape [64, 32]", "[64, 64]"}},
      {"an expert of another type",
       apart,
       [&](std::vector<SynthTensor>& tensors) {
         Named(tensors, mlp + "experts.1.gate_proj.weight").dtype = "F16";
       },
       {mlp + "experts.0.gate_proj.weight and ", mlp + "experts.1.gate_proj.weight",
        "different types"}},
      {"fused in another order",
       fused,
       reshape(mlp + "experts.gate_up_proj", {4, 64, 128}),
       {mlp + "experts.gate_up_proj has the shape [4, 64, 128]", "[4, 128, 64]"}},
      {"fused without down_proj",
       fused,
       remove(mlp + "experts.down_proj"),
       {mlp + "experts.down_proj is missing"}},
      {"scales of experts missing",
       quantized,
       remove(mlp + "switch_mlp.gate_proj.scales"),
       {mlp + "switch_mlp.gate_proj.weight is of dtype U32",
        mlp + "switch_mlp.gate_proj.scales is missing"}},
      {"biases of experts of another shape",
       quantized,
       reshape(mlp + "switch_mlp.down_proj.biases", {4, 32, 2}),
       {mlp + "switch_mlp.down_proj.biases has the shape [4, 32, 2]", "[4, 64, 1]"}},
      {"scales of too few experts",
       quantized,
       reshape(mlp + "switch_mlp.down_proj.scales", {3, 64, 1}),
       {mlp + "switch_mlp.down_proj.scales has the shape [3, 64, 1]", "[4, 64, 1]"}},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.what);
    const Error error = ErrorOf(row.spec, row.damage);
    EXPECT_EQ(error.code, ErrorCode::bad_model);
    for (const std::string& reason : row.reasons) EXPECT_THAT(error.message, HasSubstr(reason));
  }

  const Error bias = ErrorOf(stacked, [&](std::vector<SynthTensor>& tensors) {
    tensors.push_back({mlp + "switch_mlp.up_proj.bias", "BF16", {4, 64}, std::string(512, '\0')});
  });
  EXPECT_EQ(bias.code, ErrorCode::unsupported);
  EXPECT_THAT(bias.message, HasSubstr(mlp + "switch_mlp.up_proj.bias"));
}

}  // namespace
}  // namespace perdure::engine
