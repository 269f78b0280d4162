// Products with activations in 8 bits: every instruction set gives the definition's bits, whatever
// the rows and threads; and what the rounding costs a model.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>

#include "engine/engine.h"
#include "engine/packed_matrix.h"
#include "kernel_inputs.h"
#include "kv_memory.h"
#include "synth_model.h"

namespace perdure::engine {
namespace {

// --- The definition ------------------------------------------------------------------------------

struct QuantizedRow {
  std::vector<int> q;
  std::vector<float> scales;  // of each 64
};

QuantizedRow Quantize(const float* x, int k) {
  QuantizedRow row;
  for (int begin = 0; begin < k; begin += 64) {
    const int end = std::min(k, begin + 64);
    float largest = 0.0f;
    bool finite = true;
    for (int i = begin; i < end; ++i) {
      finite = finite && std::isfinite(x[i]);
      largest = std::max(largest, std::fabs(x[i]));
    }
    const bool zero = !finite || largest < 0x1p-100f;
    row.scales.push_back(!finite ? NAN : zero ? 0.0f : largest / 127.0f);
    const double factor = zero ? 0.0 : double(127.0f / largest);
    for (int i = begin; i < end; ++i)
      row.q.push_back(zero ? 0 : static_cast<int>(std::nearbyint(double(x[i]) * factor)));
  }
  return row;
}

template <class T>
T Read(const std::byte* at, size_t index) {
  T value;
  std::memcpy(&value, at + index * sizeof(T), sizeof(T));
  return value;
}

float ReadScale(ScaleType type, const std::byte* at, int index) {
  const auto i = static_cast<size_t>(index);
  if (type == ScaleType::kF32) return Read<float>(at, i);
  const auto half = Read<uint16_t>(at, i);
  return type == ScaleType::kF16 ? F16ToF32(half) : Bf16ToF32(half);
}

// A weight as scale · number + bias.
struct Weight {
  int number;
  float scale, bias;
};

Weight WeightAt(const PanelLayout& layout, const std::byte* panel, int k, int lane) {
  const std::byte* header = panel + size_t(k / layout.group) * layout.group_bytes;
  const std::byte* words = header + layout.group_header_bytes;
  const int i = k % layout.group;
  if (layout.format == PanelFormat::kQ8) {
    const auto word = Read<uint32_t>(words, size_t((i / 8 * 2 + i % 2) * 32 + lane));
    return {static_cast<int>(word >> (i % 8 / 2 * 8) & 255u),
            ReadScale(layout.scale_type, header, lane),
            ReadScale(layout.scale_type, header, 32 + lane)};
  }
  const uint32_t nibble = Read<uint32_t>(words, size_t(i / 8 * 32 + lane)) >> (i % 8 * 4) & 15u;
  if (layout.format == PanelFormat::kQ4)
    return {static_cast<int>(nibble), ReadScale(layout.scale_type, header, lane),
            ReadScale(layout.scale_type, header, 32 + lane)};
  constexpr int kTwice[8] = {0, 1, 2, 3, 4, 6, 8, 12};
  const int twice = (nibble & 8u) != 0 ? -kTwice[nibble & 7u] : kTwice[nibble & 7u];
  const float scale = std::ldexp(1.0f, int(header[lane]) - 128);
  return {twice + 12, scale, -12.0f * scale};
}

float Output(const PanelLayout& layout, const std::byte* panel, const QuantizedRow& row, int lane) {
  constexpr float kOrigin = 12582912.0f;  // 1.5 · 2^23
  float acc = 0.0f;
  for (int begin = 0; begin < layout.k; begin += std::min(layout.group, 64)) {
    int sum = 0, q_sum = 0;
    for (int k = begin; k < begin + std::min(layout.group, 64); ++k) {
      sum += WeightAt(layout, panel, k, lane).number * row.q[size_t(k)];
      q_sum += row.q[size_t(k)];
    }
    const Weight weight = WeightAt(layout, panel, begin, lane);
    const float d = row.scales[size_t(begin / 64)];
    const float product =
        std::fma(weight.scale, kOrigin + static_cast<float>(sum), weight.scale * -kOrigin);
    if (layout.scale_type != ScaleType::kF32) {
      EXPECT_EQ(product, static_cast<float>(double(weight.scale) * sum)) << "one rounding";
    }
    acc = std::fma(product, d, acc);
    acc = std::fma(weight.bias, d * static_cast<float>(q_sum), acc);
  }
  return acc;
}

// --- Kernels -------------------------------------------------------------------------------------

class Int8Test : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!CpuHas(GetParam())) GTEST_SKIP() << "this CPU lacks " << IsaName(GetParam());
    kernels_ = &KernelsFor(GetParam());
  }
  const Kernels* kernels_ = nullptr;
};

// A tile in memory of its own.
struct OwnTile {
  OwnTile(const Kernels& kernels, const std::vector<const float*>& rows, int k)
      : memory(Int8TileFloats(static_cast<int>(rows.size()), k), 1),
        tile(Int8TileAt(memory.data(), static_cast<int>(rows.size()), k)) {
    kernels.int8_pack(rows.data(), k, tile);
  }
  Floats memory;
  Int8Tile tile;
};

TEST_P(Int8Test, RowsAreRoundedAsDefined) {
  for (int k : {32, 64, 96, 160, 1024}) {
    for (size_t count = 1; count <= size_t{kInt8TileRows}; ++count) {
      Floats a(count * size_t(k), count);
      FillRandom(a, count, 3.0f);
      if (k == 160) {
        a.data()[3] = 1e30f;  // the others of its group become zero
        std::fill_n(a.data() + 64, 64, 0.0f);
        std::fill_n(a.data() + 128, 32, -0x1p-101f);  // too small
      }
      if (k == 96) {  // halves to even: 0.5, 1.5, 2.5 … of 127 steps
        for (int i = 0; i < 64; ++i) a.data()[i] = static_cast<float>(i) + 0.5f;
        a.data()[9] = -127.0f;
        a.data()[10] = -2.5f;
        std::fill_n(a.data() + 64, 32, 0x1p-100f);
      }
      std::vector<const float*> rows;
      for (size_t r = 0; r < count; ++r) rows.push_back(a.data() + r * size_t(k));
      const OwnTile own(*kernels_, rows, k);
      EXPECT_TRUE(own.memory.GuardsIntact());
      const Int8Tile& tile = own.tile;
      for (size_t r = 0; r < count; ++r) {
        const QuantizedRow expected = Quantize(rows[r], k);
        std::vector<float> sums32(size_t(k) / 32), sums64((size_t(k) + 63) / 64);
        for (size_t i = 0; i < size_t(k); ++i) {
          const uint32_t word = tile.words[(i / 8 * 2 + i % 2) * count + r];
          ASSERT_EQ(static_cast<int8_t>(word >> (i % 8 / 2 * 8)), expected.q[i]) << k << " " << i;
          sums32[i / 32] += static_cast<float>(expected.q[i]);
          sums64[i / 64] += static_cast<float>(expected.q[i]);
        }
        for (size_t g = 0; g < sums64.size(); ++g) {
          EXPECT_EQ(tile.scales[g * count + r], expected.scales[g]);
          EXPECT_EQ(tile.sums64[g * count + r], expected.scales[g] * sums64[g]);
        }
        for (size_t g = 0; g < sums32.size(); ++g)
          EXPECT_EQ(tile.sums32[g * count + r], expected.scales[g / 2] * sums32[g]);
      }
    }
  }
}

TEST_P(Int8Test, ProductsAreAsDefined) {
  constexpr int kPanels = 3;
  constexpr ptrdiff_t kLdc = kPanels * kPanelWidth + 5;
  for (const FormatCase& f : kFormats) {
    if (f.group == 0) continue;
    for (int groups : {1, 3, 5, kInt8ChunkRows / f.group + 2}) {
      const int k = groups * f.group;
      const Panels p = RandomPanels(f.format, k, f.group, f.scale_type, kPanels, 9);
      Floats a(size_t(kInt8TileRows) * size_t(k), 3);
      FillRandom(a, 3);
      // The largest sums there are.
      for (int i = 0; i < k; ++i) a.data()[i] = 1.0f;
      std::vector<const float*> rows;
      std::vector<float> expected;
      for (int r = 0; r < kInt8TileRows; ++r) {
        rows.push_back(a.data() + r * k);
        const QuantizedRow row = Quantize(rows.back(), k);
        for (int o = 0; o < kPanels * kPanelWidth; ++o)
          expected.push_back(Output(p.layout,
                                    p.bytes.data() + size_t(o / kPanelWidth) * p.layout.panel_bytes,
                                    row, o % kPanelWidth));
      }
      const auto check = [&](const char* what, const Floats& c, size_t count) {
        EXPECT_TRUE(c.GuardsIntact());
        for (size_t r = 0; r < count; ++r)
          for (size_t o = 0; o < kPanels * kPanelWidth; ++o)
            ASSERT_EQ(std::bit_cast<uint32_t>(c.data()[r * kLdc + o]),
                      std::bit_cast<uint32_t>(expected[r * kPanels * kPanelWidth + o]))
                << what << ", format " << int(f.format) << ", group " << f.group << ", K " << k
                << ", row " << r << " of " << count << ", output " << o;
      };
      for (size_t count = 1; count <= size_t{kInt8TileRows}; ++count) {
        const OwnTile own(*kernels_, {rows.begin(), rows.begin() + ptrdiff_t(count)}, k);
        Floats c(count * kLdc, count, 99.0f), d(count * kLdc, 5, 99.0f);
        alignas(64) std::byte chunk[kInt8ChunkBytes];
        for (int panel = 0; panel < kPanels; ++panel) {
          const std::byte* weights = p.bytes.data() + size_t(panel) * p.layout.panel_bytes;
          const Ahead ahead{weights, panel == 1 ? size_t{0} : p.layout.panel_bytes + 1};
          for (int k0 = 0; k0 < k; k0 += kInt8ChunkRows) {
            const int k1 = std::min(k, k0 + kInt8ChunkRows);
            kernels_->int8_direct(p.layout, weights, own.tile, k0, k1,
                                  c.data() + panel * kPanelWidth, kLdc, k0 > 0, ahead);
            kernels_->int8_unpack(p.layout, weights, k0, k1, chunk);
            kernels_->int8_tile(p.layout, chunk, own.tile, k0, k1, d.data() + panel * kPanelWidth,
                                kLdc, k0 > 0, ahead);
          }
        }
        check("direct", c, count);
        check("tile", d, count);
      }
    }
  }
}

// What the float path makes NaN or infinite must not come out as a plausible number.
TEST_P(Int8Test, ARowThatIsNotFiniteGivesNan) {
  const Panels p = RandomPanels(PanelFormat::kQ4, 192, 64, ScaleType::kBf16, 1, 9);
  for (float bad : {INFINITY, -INFINITY, NAN, -NAN, std::bit_cast<float>(0x7F800001u)}) {
    for (int at : {0, 63, 64, 191}) {
      std::vector<float> good(192, 1.0f), row = good;
      row[size_t(at)] = bad;
      const OwnTile own(*kernels_, {good.data(), row.data()}, 192);
      Floats c(2 * kPanelWidth, 0);
      kernels_->int8_direct(p.layout, p.bytes.data(), own.tile, 0, 192, c.data(), kPanelWidth,
                            false, {});
      for (int o = 0; o < kPanelWidth; ++o) {
        EXPECT_TRUE(std::isfinite(c.data()[o])) << "the other row";
        EXPECT_TRUE(std::isnan(c.data()[kPanelWidth + o])) << bad << " at " << at;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, Int8Test, testing::ValuesIn(kIsas),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

// --- Multiply ------------------------------------------------------------------------------------

PackedMatrix RandomMatrix(const FormatCase& f, int k, int outputs) {
  PackedMatrix matrix;
  matrix.outputs = outputs;
  matrix.panels = (outputs + kPanelWidth - 1) / kPanelWidth;
  const Panels panels = RandomPanels(f.format, k, f.group, f.scale_type, matrix.panels, 4);
  matrix.layout = panels.layout;
  auto memory = AlignedBuffer::Allocate(panels.bytes.size(), "test");
  EXPECT_TRUE(memory.has_value());
  matrix.memory = std::move(*memory);
  std::memcpy(matrix.memory.data(), panels.bytes.data(), panels.bytes.size());
  matrix.data = {matrix.memory.data(), panels.bytes.size()};
  return matrix;
}

// Matrices of all kinds share rows, some in 8 bits, some in f32.
TEST(Int8MultiplyTest, EqualBitsForEveryNumberOfRowsAndThreads) {
  constexpr int kInputs = 1408, kRowsMax = 120;
  std::vector<PackedMatrix> matrices;
  for (const FormatCase& f : kFormats) matrices.push_back(RandomMatrix(f, kInputs, 70));
  Floats a(size_t(kRowsMax) * kInputs, 1);
  FillRandom(a, 8);
  std::vector<int> order;
  for (int r = 0; r < kRowsMax; ++r) order.push_back((r * 7 + 3) % kRowsMax);
  const ptrdiff_t ldc = matrices[0].padded_outputs();
  // [matrix][row][output] of rows a[order[first]] …
  const auto run = [&](int first, int rows, int threads) {
    ThreadPool pool(threads);
    std::vector<float> all(matrices.size() * size_t(rows * ldc), NAN);
    std::vector<Product> products;
    for (size_t m = 0; m < matrices.size(); ++m)
      products.push_back({&matrices[m], all.data() + ptrdiff_t(m) * rows * ldc, ldc});
    const RowGroup group{.a = a.data(),
                         .lda = kInputs,
                         .index = order.data() + first,
                         .rows = rows,
                         .products = products};
    Floats packed(PackedRowsFloats(rows, 1, kInputs), 0);
    Multiply(KernelsFor(BestIsa()), pool, Activations::kInt8, {&group, 1}, packed.data());
    EXPECT_TRUE(packed.GuardsIntact());
    return all;
  };
  const auto part = [&](const std::vector<float>& all, size_t m, int rows, int row) {
    const auto at = all.begin() + (ptrdiff_t(m) * rows + row) * ldc;
    return std::vector<float>(at, at + ldc);
  };
  std::vector<std::vector<float>> alone;
  for (int row = 0; row < kRowsMax; ++row) alone.push_back(run(row, 1, 1));
  std::vector<int> counts;
  for (int rows = 1; rows <= 40; ++rows) counts.push_back(rows);
  counts.push_back(kRowsMax);
  for (int rows : counts) {
    const int threads = 1 + rows % 3;
    const std::vector<float> all = run(0, rows, threads);
    for (size_t m = 0; m < matrices.size(); ++m)
      for (int row = 0; row < rows; ++row)
        ASSERT_EQ(part(all, m, rows, row), part(alone[size_t(row)], m, 1, 0))
            << "matrix " << m << ", row " << row << " of " << rows << ", " << threads << " threads";
  }
  for (int threads : {2, 3, 4}) EXPECT_EQ(run(0, kRowsMax, threads), run(0, kRowsMax, 1));
}

// In several sweeps over the panels.
TEST(Int8MultiplyTest, EqualBitsOfManyRows) {
  constexpr int kInputs = 4096, kRows = 401;
  const PackedMatrix matrix =
      RandomMatrix({PanelFormat::kQ4, 64, ScaleType::kBf16}, kInputs, 2 * kPanelWidth);
  Floats a(size_t(kRows) * kInputs, 0);
  FillRandom(a, 8);
  const ptrdiff_t ldc = matrix.padded_outputs();
  const auto run = [&](int first, int rows) {
    ThreadPool pool(2);
    std::vector<float> c(size_t(rows * ldc), NAN), packed(PackedRowsFloats(rows, 1, kInputs));
    const Product product{&matrix, c.data(), ldc};
    Multiply(KernelsFor(BestIsa()), pool, Activations::kInt8, a.data() + first * kInputs, rows,
             packed.data(), {&product, 1});
    return c;
  };
  const std::vector<float> all = run(0, kRows);
  for (int row : {0, 150, 255, 256, 257, 399, 400})
    EXPECT_EQ(run(row, 1),
              std::vector<float>(all.begin() + row * ldc, all.begin() + (row + 1) * ldc));
}

// --- Models --------------------------------------------------------------------------------------

struct ModelCase {
  const char* name;
  SynthSpec spec;
  double lead = 0.1;  // of the likeliest token that must be enough
  // A rounding may turn the choice of an expert over, which moves a token's logits far: the median
  // of the divergence is looked at instead of the mean.
  bool median = false;
};
std::ostream& operator<<(std::ostream& out, const ModelCase& c) { return out << c.name; }

class Int8ModelTest : public testing::TestWithParam<ModelCase> {};

std::vector<float> Logits(const std::filesystem::path& dir, Activations activations,
                          const std::vector<TokenId>& tokens, int quantize_bits = 0) {
  EngineOptions options;
  options.threads = 2;
  options.activations = activations;
  options.quantize_bits = quantize_bits;
  auto engine = Engine::Load(dir, options);
  EXPECT_TRUE(engine.has_value()) << engine.error().message;
  EXPECT_EQ((*engine)->info().numerics_id,
            std::string(kKernelVersion) + "-" + std::string(ActivationsName(activations)));
  const KvMemory kv((*engine)->info().kv, static_cast<int>(tokens.size()));
  const SequenceStep step{.kv = kv.view(), .start = 0, .tokens = tokens, .logits_from = 0};
  const auto logits = (*engine)->Step({&step, 1});
  return {logits.begin(), logits.end()};
}

// What rounding activations costs where logits spread by 1: the divergence of the distributions,
// and whether the likeliest token stays where it leads by more than `lead`. Layers of random
// weights pass on all the noise they are given and add to it: the divergence grows by about 2.5e-4
// a layer.
struct Score {
  double mean, median;  // of the divergence
  int leads, lost;
};

Score Compare(const std::vector<float>& exact, const std::vector<float>& rounded, size_t rows,
              double lead) {
  const size_t vocab = exact.size() / rows;
  Score score{};
  std::vector<double> divergences;
  for (size_t row = 0; row < rows; ++row) {
    const float* a = exact.data() + row * vocab;
    const float* b = rounded.data() + row * vocab;
    double mean = 0.0, variance = 0.0;
    for (size_t i = 0; i < vocab; ++i) mean += double{a[i]} / double(vocab);
    for (size_t i = 0; i < vocab; ++i) variance += (a[i] - mean) * (a[i] - mean) / double(vocab);
    const double scale = 1.0 / std::sqrt(variance);
    double sum_a = 0.0, sum_b = 0.0;
    for (size_t i = 0; i < vocab; ++i) {
      sum_a += std::exp((a[i] - mean) * scale);
      sum_b += std::exp((b[i] - mean) * scale);
    }
    const double shift = std::log(sum_b) - std::log(sum_a);
    divergences.push_back(0.0);
    for (size_t i = 0; i < vocab; ++i)
      divergences.back() +=
          std::exp((a[i] - mean) * scale) / sum_a * ((double{a[i]} - b[i]) * scale + shift);
    std::vector<float> sorted(a, a + vocab);
    std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
    if ((sorted[0] - sorted[1]) * scale <= lead) continue;
    ++score.leads;
    score.lost += std::max_element(b, b + vocab) - b != std::max_element(a, a + vocab) - a;
  }
  score.mean = std::accumulate(divergences.begin(), divergences.end(), 0.0) / double(rows);
  const auto middle = divergences.begin() + ptrdiff_t(rows / 2);
  std::nth_element(divergences.begin(), middle, divergences.end());
  score.median = *middle;
  std::printf("divergence %.2e, median %.2e; %d of %d tokens lead by more than %g, %d are lost\n",
              score.mean, score.median, score.leads, int(rows), lead, score.lost);
  return score;
}

TEST_P(Int8ModelTest, StaysNearTheFloatPath) {
  constexpr int kTokens = 128;
  const SynthSpec& spec = GetParam().spec;
  TempDir dir;
  WriteSynthModel(spec, dir.path());
  const std::vector<TokenId> tokens = SynthTokens(5, kTokens, spec.vocab);
  const Score score =
      Compare(Logits(dir.path(), Activations::kFloat32, tokens),
              Logits(dir.path(), Activations::kInt8, tokens), kTokens, GetParam().lead);
  EXPECT_GT(score.leads, kTokens / 8);
  EXPECT_GT(score.median, 0.0) << "both paths are one";
  EXPECT_LE(GetParam().median ? score.median : score.mean, 2e-3);
  if (!GetParam().median) {
    EXPECT_EQ(score.lost, 0);
  }
}

// A trained model, on text of its own.
TEST(Int8NanoTest, StaysNearTheFloatPath) {
  const std::filesystem::path nano = std::filesystem::path(PERDURE_SOURCE_DIR) / "models/nano";
  const auto engine = Engine::Load(nano, {.threads = 2});
  ASSERT_TRUE(engine.has_value()) << engine.error().message;
  constexpr size_t kTokens = 160;
  const KvMemory kv((*engine)->info().kv, kTokens);
  std::vector<TokenId> tokens = {1};
  std::mt19937 random(1);
  while (tokens.size() < kTokens) {
    const SequenceStep step{.kv = kv.view(),
                            .start = static_cast<int>(tokens.size()) - 1,
                            .tokens = {&tokens.back(), 1},
                            .logits_from = 0};
    const auto logits = (*engine)->Step({&step, 1});
    // Greedy, but for a jump now and then out of the loops that this leads to.
    tokens.push_back(tokens.size() % 8 == 0
                         ? static_cast<TokenId>(random() % logits.size())
                         : static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) -
                                                logits.begin()));
  }
  for (int bits : {4, 8}) {
    const Score score = Compare(Logits(nano, Activations::kFloat32, tokens, bits),
                                Logits(nano, Activations::kInt8, tokens, bits), kTokens, 0.1);
    EXPECT_GT(score.leads, int(kTokens) / 2);
    EXPECT_GT(score.median, 0.0) << "both paths are one";
    EXPECT_LE(score.mean, 5e-4) << bits << " bits";
    EXPECT_EQ(score.lost, 0) << bits << " bits";
  }
}

SynthSpec ModelOf(int bits, int group, const char* mode = "affine", int layers = 1) {
  return {.hidden = 256,
          .layers = layers,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 64,
          .feed_forward = 768,
          .vocab = 1024,
          .bits = bits,
          .group = group,
          .mode = mode};
}

SynthSpec MoeModel() {
  SynthSpec spec = ModelOf(4, 64);
  spec.model_type = "qwen3_moe";
  spec.layers = 2;
  spec.experts = 16;
  spec.experts_per_token = 4;
  spec.expert_feed_forward = 128;
  return spec;
}

const ModelCase kModels[] = {
    {"FourBits", ModelOf(4, 64)},
    {"FourBitsGroup32", ModelOf(4, 32)},
    {"FourBitsGroup128", ModelOf(4, 128)},
    {"EightBits", ModelOf(8, 64)},
    {"SixBitsGroup32", ModelOf(6, 32)},
    {"ThreeBits", ModelOf(3, 64)},
    {"Mxfp4", ModelOf(4, 32, "mxfp4")},
    {"FourBitsSixLayers", ModelOf(4, 64, "affine", 6), 0.25},
    {"EightBitsSixLayers", ModelOf(8, 64, "affine", 6), 0.25},
    {"Experts", MoeModel(), 0.1, true},
};
INSTANTIATE_TEST_SUITE_P(Models, Int8ModelTest, testing::ValuesIn(kModels),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ActivationsTest, NamesAreParsed) {
  for (Activations activations : {Activations::kInt8, Activations::kFloat32})
    EXPECT_EQ(ParseActivations(ActivationsName(activations)), activations);
  EXPECT_EQ(ParseActivations("int4"), std::nullopt);
}

}  // namespace
}  // namespace perdure::engine
