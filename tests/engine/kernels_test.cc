// Every kernel of every instruction set against the scalar one: equal bits, over shapes, tails and
// misalignments; and the scalar one against plain loops.

#include "engine/kernels/kernels.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "engine/float16.h"
#include "engine/kv_view.h"
#include "kernel_inputs.h"

namespace perdure::engine {
namespace {

class KernelsTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!CpuHas(GetParam())) GTEST_SKIP() << "this CPU lacks " << IsaName(GetParam());
    vector_ = &KernelsFor(GetParam());
  }
  const Kernels& scalar_ = KernelsFor(Isa::kScalar);
  const Kernels* vector_ = nullptr;
};

TEST_P(KernelsTest, UnpackGivesTheScalarBits) {
  for (const FormatCase& f : kFormats) {
    const int unit = f.group > 0 ? f.group : 1;
    for (int k : {unit, 3 * unit, 8 * kChunkRows + unit}) {
      const Panels p = RandomPanels(f.format, k, f.group, f.scale_type, 1, 5);
      for (int k0 = 0; k0 < k; k0 += kChunkRows) {
        const int k1 = std::min(k, k0 + kChunkRows);
        Floats a(size_t(k1 - k0) * kPanelWidth, 0), b(size_t(k1 - k0) * kPanelWidth, 3);
        scalar_.unpack(p.layout, p.bytes.data(), k0, k1, a.data());
        vector_->unpack(p.layout, p.bytes.data(), k0, k1, b.data());
        EXPECT_TRUE(a.SameBits(b)) << "format " << int(f.format) << ", K " << k0 << " to " << k1;
        EXPECT_TRUE(b.GuardsIntact());
      }
    }
  }
}

// Direct products, chunked tiles of any number of rows: one chain of multiply-adds per output.
TEST_P(KernelsTest, ProductsAreOneChainInOrder) {
  constexpr int kPanels = 7;
  for (const FormatCase& f : kFormats) {
    for (int k : {f.group > 0 ? f.group : 1, f.group > 0 ? 3 * f.group : 77, 384}) {
      if (f.group > 0 && k % f.group != 0) continue;
      const Panels p = RandomPanels(f.format, k, f.group, f.scale_type, kPanels, 9);
      constexpr int kRows = 26;  // more than two blocks of any instruction set
      Floats a(size_t(kRows) * size_t(k), 1);
      FillRandom(a, 3);
      // The reference: a loop.
      Floats expected(size_t(kRows) * kPanels * kPanelWidth, 0);
      Floats weights(size_t(k) * kPanelWidth, 0);
      const ptrdiff_t ldc = kPanels * kPanelWidth;
      for (int panel = 0; panel < kPanels; ++panel) {
        const std::byte* bytes = p.bytes.data() + size_t(panel) * p.layout.panel_bytes;
        scalar_.unpack(p.layout, bytes, 0, k, weights.data());
        for (int r = 0; r < kRows; ++r)
          for (int o = 0; o < kPanelWidth; ++o) {
            float sum = 0.0f;
            for (int i = 0; i < k; ++i)
              sum = std::fma(a.data()[r * k + i], weights.data()[i * kPanelWidth + o], sum);
            expected.data()[r * ldc + panel * kPanelWidth + o] = sum;
          }
      }
      for (const Kernels* kernels : {&scalar_, vector_}) {
        for (int rows = 1; rows <= kRows; ++rows) {
          Floats c(size_t(rows) * size_t(ldc), 2, 99.0f);
          kernels->direct(p.layout, p.bytes.data(), kPanels, a.data(), k, rows, c.data(), ldc);
          EXPECT_EQ(std::memcmp(c.data(), expected.data(), c.size() * sizeof(float)), 0)
              << "direct, format " << int(f.format) << ", K " << k << ", rows " << rows;
          EXPECT_TRUE(c.GuardsIntact());
        }
        for (int rows : {1, 5, 6, 7, 11, 12}) {
          Floats packed(size_t(kTileRows) * size_t(k), 0), chunk(kChunkRows * kPanelWidth, 0);
          const float* pointers[kTileRows];
          for (int r = 0; r < rows; ++r) pointers[r] = a.data() + r * k;
          kernels->pack_rows(pointers, rows, k, packed.data());
          Floats c(size_t(rows) * size_t(ldc), 5, 99.0f);
          for (int panel = 0; panel < kPanels; ++panel)
            for (int k0 = 0; k0 < k; k0 += kChunkRows) {
              const int k1 = std::min(k, k0 + kChunkRows);
              kernels->unpack(p.layout, p.bytes.data() + size_t(panel) * p.layout.panel_bytes, k0,
                              k1, chunk.data());
              kernels->tile(packed.data() + k0 * kTileRows, chunk.data(), k1 - k0, rows,
                            c.data() + panel * kPanelWidth, ldc, k0 > 0);
            }
          EXPECT_EQ(std::memcmp(c.data(), expected.data(), c.size() * sizeof(float)), 0)
              << "tile, format " << int(f.format) << ", K " << k << ", rows " << rows;
          EXPECT_TRUE(c.GuardsIntact());
        }
      }
    }
  }
}

TEST_P(KernelsTest, RmsNormGivesTheScalarBits) {
  for (int n : {1, 2, 15, 16, 17, 20, 24, 31, 32, 33, 64, 100, 128, 1024, 3584}) {
    for (size_t offset : {0, 1, 7}) {
      Floats x(size_t(n), offset), w(size_t(n), offset + 3), a(size_t(n), 0), b(size_t(n), offset);
      FillRandom(x, size_t(n), 3.0f);
      FillRandom(w, 2);
      scalar_.rms_norm(x.data(), w.data(), n, 1e-6f, a.data());
      vector_->rms_norm(x.data(), w.data(), n, 1e-6f, b.data());
      EXPECT_TRUE(a.SameBits(b)) << n;
      EXPECT_TRUE(b.GuardsIntact());
      vector_->rms_norm(x.data(), w.data(), n, 1e-6f, x.data());
      EXPECT_TRUE(a.SameBits(x)) << n << " in place";
      double sum = 0.0;
      Floats y(size_t(n), 0);
      FillRandom(y, size_t(n), 3.0f);
      for (int i = 0; i < n; ++i) sum += double(y.data()[i]) * y.data()[i];
      const double scale = 1.0 / std::sqrt(sum / n + 1e-6);
      for (int i = 0; i < n; ++i) {
        const double exact = y.data()[i] * scale * w.data()[i];
        EXPECT_NEAR(a.data()[i], exact, 1e-6 + 1e-6 * std::fabs(exact));
      }
    }
  }
}

TEST_P(KernelsTest, RopeGivesTheScalarBits) {
  for (int half : {1, 4, 10, 15, 16, 17, 32, 40, 64, 256}) {
    Floats x(size_t(2 * half), 1), angles(size_t(2 * half), 5);
    FillRandom(x, 4);
    FillRandom(angles, 5);
    Floats y = x;
    scalar_.rope(x.data(), angles.data(), angles.data() + half, half);
    vector_->rope(y.data(), angles.data(), angles.data() + half, half);
    EXPECT_TRUE(x.SameBits(y)) << half;
    EXPECT_TRUE(y.GuardsIntact());
  }
}

TEST_P(KernelsTest, ElementwiseGivesTheScalarBits) {
  for (size_t n : {1, 15, 16, 17, 31, 33, 100, 1000}) {
    Floats x(n, 2), y(n, 9);
    FillRandom(x, 7, 20.0f);
    FillRandom(y, 8, 20.0f);
    if (n > 20) {
      const float special[] = {0.0f, -0.0f, 1e30f, -1e30f, 88.0f, -88.0f, 86.6f, -86.6f, 1e-40f};
      std::copy(std::begin(special), std::end(special), x.data());
    }
    Floats a = x, b = x;
    scalar_.add(a.data(), y.data(), n);
    vector_->add(b.data(), y.data(), n);
    EXPECT_TRUE(a.SameBits(b)) << n;
    EXPECT_TRUE(b.GuardsIntact());
    Floats c = x, d = x;
    scalar_.silu_mul(c.data(), y.data(), n);
    vector_->silu_mul(d.data(), y.data(), n);
    EXPECT_TRUE(c.SameBits(d)) << n;
    EXPECT_TRUE(d.GuardsIntact());
    for (size_t i = 0; i < n; ++i) {
      const double g = x.data()[i], exact = g / (1.0 + std::exp(-g)) * y.data()[i];
      if (std::fabs(g) < 80.0) {
        EXPECT_NEAR(c.data()[i], exact, 1e-30 + 4e-7 * std::fabs(exact));
      }
    }
  }
}

// Every scale byte but 255 with every element: powers of two from 2^-127 on, exact down to the
// subnormals.
TEST_P(KernelsTest, Mxfp4IsExact) {
  constexpr float kValues[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                 -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
  constexpr int kGroups = 8;  // of 32 outputs, each with a scale of its own
  const PanelLayout layout =
      MakePanelLayout(PanelFormat::kMxfp4, kGroups * kMxfp4Group, kMxfp4Group, ScaleType::kF32);
  ASSERT_EQ(layout.panel_bytes, size_t{kGroups} * (32 + 512));
  std::vector<std::byte> panel(layout.panel_bytes);
  for (size_t g = 0; g < kGroups; ++g) {
    std::byte* group = &panel[g * layout.group_bytes];
    for (size_t lane = 0; lane < kPanelWidth; ++lane) {
      group[lane] = static_cast<std::byte>(std::min<size_t>(g * kPanelWidth + lane, 254));
      for (size_t word = 0; word < 4; ++word) {
        const uint32_t nibbles = word % 2 == 0 ? 0x76543210u : 0xFEDCBA98u;
        std::memcpy(group + 32 + (word * kPanelWidth + lane) * 4, &nibbles, 4);
      }
    }
  }
  for (const Kernels* kernels : {&scalar_, vector_})
    for (int k0 = 0; k0 < layout.k; k0 += kChunkRows) {
      Floats out(size_t(kChunkRows) * kPanelWidth, 1);
      kernels->unpack(layout, panel.data(), k0, k0 + kChunkRows, out.data());
      for (int i = 0; i < kChunkRows; ++i)
        for (int lane = 0; lane < kPanelWidth; ++lane) {
          const int scale = std::min((k0 + i) / kMxfp4Group * kPanelWidth + lane, 254);
          const auto expected =
              static_cast<float>(std::ldexp(double{kValues[i % 16]}, scale - 127));
          ASSERT_EQ(std::bit_cast<uint32_t>(out.data()[i * kPanelWidth + lane]),
                    std::bit_cast<uint32_t>(expected))
              << "2^(" << scale << " - 127) times " << kValues[i % 16];
        }
    }
}

TEST_P(KernelsTest, SoftmaxGivesTheScalarBits) {
  for (int n : {1, 2, 15, 16, 17, 33, 60, 64, 100, 128, 512}) {
    for (float scale : {0.0f, 1.0f, 40.0f}) {
      Floats a(size_t(n), 1);
      FillRandom(a, size_t(n), scale);
      if (scale > 1.0f) a.data()[n / 2] = -INFINITY;
      if (scale > 1.0f) a.data()[0] = 3.0f;
      const std::vector<float> x(a.data(), a.data() + n);
      Floats b = a;
      scalar_.softmax(a.data(), n);
      vector_->softmax(b.data(), n);
      EXPECT_TRUE(a.SameBits(b)) << n;
      EXPECT_TRUE(b.GuardsIntact());
      const double top = *std::max_element(x.begin(), x.end());
      double sum = 0.0;
      for (float value : x) sum += std::exp(value - top);
      for (int i = 0; i < n; ++i)
        EXPECT_NEAR(a.data()[i], std::exp(x[size_t(i)] - top) / sum, 1e-6) << n;
    }
  }
}

TEST_P(KernelsTest, AddScaledIsOneMultiplyAdd) {
  for (size_t n : {1, 15, 16, 17, 31, 32, 33, 100, 768}) {
    Floats x(n, 1), y(n, 3);
    FillRandom(x, n);
    FillRandom(y, n + 1);
    Floats a = x, b = x;
    scalar_.add_scaled(a.data(), y.data(), 0.3f, n);
    vector_->add_scaled(b.data(), y.data(), 0.3f, n);
    EXPECT_TRUE(a.SameBits(b)) << n;
    EXPECT_TRUE(b.GuardsIntact());
    for (size_t i = 0; i < n; ++i) EXPECT_EQ(a.data()[i], std::fma(0.3f, y.data()[i], x.data()[i]));
  }
}

TEST_P(KernelsTest, HalvesAreRoundedToNearestEvenAndClamped) {
  std::vector<float> values = {0.0f,       -0.0f,    1.0f,         65504.0f,     65519.9f, 65520.0f,
                               1e30f,      -1e30f,   INFINITY,     -INFINITY,    0x1p-24f, 0x1p-25f,
                               0x1.8p-25f, 0x1p-26f, 0x1.ffcp-15f, 0x1.ffep-15f, 2049.0f,  2051.0f};
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!std::isnan(value)) values.push_back(value);
  }
  for (uint32_t bits = 0x38000000; bits < 0x38010000; bits += 37)
    values.push_back(std::bit_cast<float>(bits));
  values.push_back(NAN);
  std::vector<uint16_t> a(values.size()), b(values.size());
  scalar_.to_f16(values.data(), a.data(), values.size());
  vector_->to_f16(values.data(), b.data(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(a[i], b[i]) << values[i];
    const float back = F16ToF32(a[i]);
    EXPECT_TRUE(std::isfinite(back));
    if (std::fabs(values[i]) <= 65504.0f) {
      EXPECT_LE(std::fabs(double(back) - values[i]),
                std::max(0x1p-25, std::fabs(double(values[i])) * 0x1p-11))
          << values[i];
    }
  }
}

TEST_P(KernelsTest, KeysLieSideBySideInAPage) {
  for (int head_dim : {16, 64, 80, 128})
    for (int slot : {0, 1, 16}) {
      const ptrdiff_t stride = head_dim + 8;
      Floats x(size_t(kKeysAtOnce * stride), 1);
      FillRandom(x, uint64_t(head_dim), 3.0f);
      x.data()[0] = 1e30f;
      std::vector<uint16_t> page(size_t(head_dim) * kPageTokens, 0xABCD), expected = page;
      vector_->keys_to_f16(x.data(), stride, head_dim, page.data() + slot);
      for (int r = 0; r < kKeysAtOnce; ++r) {
        std::vector<uint16_t> row(static_cast<size_t>(head_dim));
        scalar_.to_f16(x.data() + r * stride, row.data(), row.size());
        for (size_t i = 0; i < row.size(); ++i)
          expected[i * kPageTokens + size_t(slot + r)] = row[i];
      }
      EXPECT_EQ(page, expected) << head_dim << " " << slot;
    }
}

INSTANTIATE_TEST_SUITE_P(Isas, KernelsTest, testing::ValuesIn(std::span(kIsas).subspan(1)),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

TEST(Float16Test, EveryHalfSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = F16ToF32(half);
    if (std::isnan(value)) continue;
    EXPECT_EQ(F32ToF16(value), half);
  }
}

TEST(IsaTest, NamesAreParsed) {
  for (Isa isa : kIsas) EXPECT_EQ(ParseIsa(IsaName(isa)), isa);
  EXPECT_EQ(ParseIsa("sse"), std::nullopt);
  EXPECT_TRUE(CpuHas(BestIsa()));
}

}  // namespace
}  // namespace perdure::engine
