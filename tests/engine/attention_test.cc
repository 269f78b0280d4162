// Attention over pages of every precision: the scalar kernel against double precision on what the
// pages hold, every other instruction set against the scalar one, bit by bit. Pages are read here
// by their description in kv_view.h, one number at a time.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "engine/float16.h"
#include "engine/kernels/kernels.h"
#include "engine/kv_view.h"
#include "engine/kv_write.h"
#include "kernel_inputs.h"

namespace perdure::engine {
namespace {

float Half(const std::byte* at, size_t index) {
  uint16_t half;
  std::memcpy(&half, at + 2 * index, 2);
  return F16ToF32(half);
}

int Code(const std::byte* at, size_t index, bool high, KvPrecision precision) {
  const int byte = std::to_integer<int>(at[index]);
  return precision == KvPrecision::kQ8 ? byte : high ? byte >> 4 : byte & 15;
}

float Number(int code, const std::byte* params, int d, int slot) {
  const size_t group = static_cast<size_t>(d / 64 * 64), at = group + static_cast<size_t>(slot);
  return std::fma(static_cast<float>(code), Half(params, at), Half(params, at + 32));
}

float KeyAt(KvPrecision precision, int head_dim, const std::byte* head, int slot, int d) {
  const KvHeadLayout layout = KvHeadLayout::Of(precision, head_dim);
  const auto row = static_cast<size_t>(precision == KvPrecision::kQ4 ? d / 2 : d);
  const size_t index = row * 32 + static_cast<size_t>(slot);
  if (precision == KvPrecision::kF16) return Half(head, index);
  return Number(Code(head, index, d % 2 == 1, precision), head + layout.key_params, d, slot);
}

float ValueAt(KvPrecision precision, int head_dim, const std::byte* head, int slot, int d) {
  const KvHeadLayout layout = KvHeadLayout::Of(precision, head_dim);
  const std::byte* values = head + layout.values;
  if (precision == KvPrecision::kF16) return Half(values, static_cast<size_t>(slot * head_dim + d));
  const int padded = (head_dim + 31) / 32 * 32;
  const int index =
      precision == KvPrecision::kQ8 ? slot * padded + d : slot * padded / 2 + d / 32 * 16 + d % 16;
  return Number(Code(values, static_cast<size_t>(index), d % 32 >= 16, precision),
                head + layout.value_params, d, slot);
}

// Page by page in turn.
using Precisions = std::vector<KvPrecision>;
const Precisions kMixtures[] = {{KvPrecision::kF16},
                                {KvPrecision::kQ8},
                                {KvPrecision::kQ4},
                                {KvPrecision::kQ4, KvPrecision::kF16, KvPrecision::kQ8}};

// One head's pages, garbage after `filled` positions.
struct Cache {
  std::vector<std::vector<std::byte>> pages;
  std::vector<const std::byte*> pointers;
  Precisions precisions;
  std::vector<float> keys, values;  // [position][head_dim], as stored
};

Cache RandomCache(const Precisions& precisions, int head_dim, int filled, uint64_t seed) {
  Cache cache;
  const auto dim = static_cast<size_t>(head_dim);
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  for (int start = 0; start < filled; start += kPageTokens) {
    const KvPrecision precision = precisions[cache.pages.size() % precisions.size()];
    const int rows = std::min(kPageTokens, filled - start);
    std::vector<float> kv(2 * static_cast<size_t>(rows) * dim);
    for (float& x : kv) x = normal(random);
    auto& page =
        cache.pages.emplace_back(KvHeadLayout::Of(precision, head_dim).bytes, std::byte{0xFF});
    WriteKv(KernelsFor(Isa::kScalar), precision, page.data(), 0,
            {.keys = kv.data(),
             .values = kv.data() + static_cast<size_t>(rows) * dim,
             .stride = head_dim,
             .rows = rows,
             .head_dim = head_dim});
    cache.precisions.push_back(precision);
    cache.pointers.push_back(page.data());
    for (int slot = 0; slot < rows; ++slot)
      for (int d = 0; d < head_dim; ++d) {
        cache.keys.push_back(KeyAt(precision, head_dim, page.data(), slot, d));
        cache.values.push_back(ValueAt(precision, head_dim, page.data(), slot, d));
      }
  }
  return cache;
}

struct Shape {
  int head_dim, group, rows, start, window = 0, keep = 0;
};
class AttentionTest : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!CpuHas(GetParam())) GTEST_SKIP() << "this CPU lacks " << IsaName(GetParam());
    vector_ = &KernelsFor(GetParam());
  }
  void Check(const Precisions& precisions, const Shape& s) const;

  const Kernels& scalar_ = KernelsFor(Isa::kScalar);
  const Kernels* vector_ = nullptr;
};

const Shape kShapes[] = {
    {16, 2, 1, 0},
    {16, 2, 24, 0},
    {20, 3, 5, 30},
    {32, 1, 40, 25},
    {40, 7, 6, 63},
    {64, 5, 3, 100},
    {128, 2, 24, 200},
    {128, 4, 1, 95},
    {8, 48, 1, 33},
    {100, 1, 13, 31},
    {256, 2, 2, 64},
    {512, 1, 2, 40},
    {16, 2, 24, 90, 1},
    {16, 1, 48, 60, 7},
    {32, 1, 40, 25, 31},
    {32, 4, 12, 190, 32},
    {20, 3, 16, 200, 33},
    {64, 5, 9, 100, 64},
    {40, 7, 6, 63, 68},
    {128, 2, 24, 200, 100},
    {16, 1, 48, 500, 224},
    {16, 1, 48, 480, 225},
    {16, 2, 24, 40, 1000},
    {8, 48, 1, 333, 40},
    // Whole tiles, tiles of a few queries, heads that are no whole panels or vectors, blocks that
    // begin and end within a page, and windows about as long as a block.
    {32, 1, 96, 0},
    {64, 2, 48, 17},
    {128, 7, 13, 50},
    {8, 96, 1, 65},
    {80, 1, 13, 127},
    {80, 4, 3, 128},
    {48, 7, 1, 129},
    {24, 2, 4, 191},
    {96, 1, 1, 63},
    {112, 3, 4, 64},
    {32, 2, 48, 96, 63},
    {32, 2, 48, 97, 64},
    {32, 2, 48, 98, 65},
    {80, 1, 1, 200, 70},
    {64, 7, 1, 255, 64},
    {128, 2, 6, 250, 129},
    // First positions besides the window: in its block, in another, over a page and a block, and
    // where the window reaches them within the tile.
    {32, 2, 48, 300, 40, 4},
    {32, 2, 1, 300, 40, 4},
    {64, 5, 9, 400, 64, 33},
    {16, 1, 96, 0, 20, 4},
    {16, 1, 90, 30, 50, 4},
    {80, 3, 13, 200, 33, 70},
    {128, 7, 1, 500, 100, 64},
    {24, 2, 4, 191, 10, 65},
    {20, 3, 16, 70, 33, 100},
};

void AttentionTest::Check(const Precisions& precisions, const Shape& s) const {
  const int filled = s.start + s.rows;
  const auto sees_from = [&](int position) {
    return s.window > 0 ? std::max(0, position - s.window + 1) : 0;
  };
  Cache cache = RandomCache(precisions, s.head_dim, filled, 11);
  // What no query sees must not even be read.
  for (int page = KvShape::PagesFor(s.keep); page < sees_from(s.start) / kPageTokens; ++page)
    cache.pointers[static_cast<size_t>(page)] = nullptr;
  const ptrdiff_t stride = ptrdiff_t(s.group) * s.head_dim + 5;
  Floats q(size_t(s.rows) * size_t(stride), 1);
  FillRandom(q, 12, 2.0f);
  const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  const auto run = [&](const Kernels& kernels, int first, int rows, Floats& out) {
    const size_t floats = AttentionScratchFloats(s.head_dim);
    std::vector<float> scratch(floats + 16, NAN);
    float* aligned =
        scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) / 4 % 16;
    const AttentionTile tile{.pages = cache.pointers.data(),
                             .precisions = cache.precisions.data(),
                             .head = 0,
                             .head_dim = s.head_dim,
                             .group = s.group,
                             .rows = rows,
                             .start = s.start + first,
                             .window = s.window,
                             .keep = s.keep,
                             .q = q.data() + first * stride,
                             .out = out.data() + first * stride,
                             .q_stride = stride,
                             .out_stride = stride,
                             .scale = scale};
    kernels.attend(tile, aligned);
  };
  Floats a(q.size(), 0), b(q.size(), 3), one_by_one(q.size(), 0);
  run(scalar_, 0, s.rows, a);
  run(*vector_, 0, s.rows, b);
  for (int r = 0; r < s.rows; ++r) run(*vector_, r, 1, one_by_one);
  Floats pieces(q.size(), 0);
  for (int r = 0; r < s.rows; r += 5) run(*vector_, r, std::min(5, s.rows - r), pieces);
  EXPECT_TRUE(a.SameBits(b)) << s.head_dim << " " << s.group << " " << s.window;
  EXPECT_TRUE(a.SameBits(one_by_one)) << s.head_dim << " " << s.group << " " << s.window;
  EXPECT_TRUE(a.SameBits(pieces)) << s.head_dim << " " << s.group << " " << s.window;
  EXPECT_TRUE(b.GuardsIntact());

  for (int r = 0; r < s.rows; ++r)
    for (int g = 0; g < s.group; ++g) {
      const float* query = q.data() + r * stride + g * s.head_dim;
      std::vector<double> weights;
      double sum = 0.0;
      std::vector<int> seen;
      for (int p = 0; p <= s.start + r; ++p)
        if (p < s.keep || p >= sees_from(s.start + r)) seen.push_back(p);
      for (const int p : seen) {
        double dot = 0.0;
        for (int d = 0; d < s.head_dim; ++d)
          dot += double(query[d]) * cache.keys[size_t(p) * size_t(s.head_dim) + size_t(d)];
        weights.push_back(std::exp(dot * scale));
        sum += weights.back();
      }
      for (int d = 0; d < s.head_dim; ++d) {
        double exact = 0.0;
        for (size_t p = 0; p < weights.size(); ++p)
          exact +=
              weights[p] / sum * cache.values[size_t(seen[p]) * size_t(s.head_dim) + size_t(d)];
        EXPECT_NEAR(a.data()[r * stride + g * s.head_dim + d], exact, 5e-6);
      }
    }
}

TEST_P(AttentionTest, GivesTheScalarBitsAndIsRight) {
  for (const Precisions& precisions : kMixtures)
    for (const Shape& shape : kShapes) Check(precisions, shape);
}

TEST_P(AttentionTest, QuantizesWithTheScalarBits) {
  for (int bits : {8, 4})
    for (int n : {1, 8, 16, 20, 63, 64, 65, 80, 100, 128, 256}) {
      Floats x(static_cast<size_t>(n), 3);
      FillRandom(x, static_cast<uint64_t>(n), 2.0f);
      for (int i = 0; i < n; ++i) x.data()[i] += 5.0f;
      std::vector<uint8_t> a(512, 0xEE), b = a;
      std::vector<uint16_t> params(512, 0xEEEE), others = params;
      scalar_.quantize_kv(x.data(), n, bits, a.data(), params.data());
      vector_->quantize_kv(x.data(), n, bits, b.data(), others.data());
      EXPECT_EQ(a, b) << bits << " bits, " << n;
      EXPECT_EQ(params, others) << bits << " bits, " << n;
      EXPECT_EQ(a[static_cast<size_t>((n + 15) / 16 * 16)], 0xEE);
    }
}

// A number is off by no more than half a step and what rounding scale and bias to binary16 costs.
TEST_P(AttentionTest, QuantizedNumbersAreNear) {
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  for (int bits : {8, 4})
    for (const float offset : {0.0f, 1.0f, -300.0f, 2e4f})
      for (const float spread : {0.0f, 1e-9f, 1e-4f, 1.0f, 100.0f, 1e4f}) {
        std::vector<float> x(64);
        for (float& number : x) number = offset + spread * normal(random);
        const auto [least, most] = std::minmax_element(x.begin(), x.end());
        uint8_t codes[64];
        uint16_t params[2 * kPageTokens];
        vector_->quantize_kv(x.data(), 64, bits, codes, params);
        const float scale = F16ToF32(params[0]), bias = F16ToF32(params[kPageTokens]);
        const double range = double{*most} - *least, levels = bits == 8 ? 255 : 15;
        const double bound = range / levels * 0.5 + levels * (range / levels * 0x1p-11 + 0x1p-25) +
                             std::fabs(double{*least}) * 0x1p-11 + 0x1p-24;
        for (size_t i = 0; i < 64; ++i) {
          EXPECT_LE(codes[i], levels);
          EXPECT_NEAR(std::fma(static_cast<float>(codes[i]), scale, bias), x[i], bound)
              << bits << " bits, " << offset << " ± " << spread;
        }
      }
}

TEST_P(AttentionTest, WhatIsQuantizedIsFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float odd[] = {NAN, kInfinity, -kInfinity, 1e30f, -1e30f, -0.0f, 1e-45f, 65504.0f};
  for (int bits : {8, 4})
    for (const float a : odd)
      for (const float b : odd) {
        std::vector<float> x(64, a);
        x[63] = b;
        uint8_t codes[64], scalar_codes[64];
        uint16_t params[2 * kPageTokens] = {}, scalar_params[2 * kPageTokens] = {};
        vector_->quantize_kv(x.data(), 64, bits, codes, params);
        scalar_.quantize_kv(x.data(), 64, bits, scalar_codes, scalar_params);
        EXPECT_EQ(std::memcmp(codes, scalar_codes, 64), 0) << a << " " << b;
        EXPECT_EQ(params[0], scalar_params[0]) << a << " " << b;
        EXPECT_EQ(params[kPageTokens], scalar_params[kPageTokens]) << a << " " << b;
        const float scale = F16ToF32(params[0]), bias = F16ToF32(params[kPageTokens]);
        for (const uint8_t code : codes)
          EXPECT_TRUE(std::isfinite(std::fma(static_cast<float>(code), scale, bias)));
      }
}

// As docs and plans say: what a token takes, beside binary16.
TEST(KvLayoutTest, QuantizedPagesAreSmaller) {
  for (const int head_dim : {64, 128, 256}) {
    const KvShape shape{.layers = 3, .kv_heads = 2, .head_dim = head_dim};
    const auto full = static_cast<double>(shape.PageBytes());
    EXPECT_DOUBLE_EQ(static_cast<double>(shape.PageBytes(KvPrecision::kQ8)) / full, 68.0 / 128.0);
    EXPECT_DOUBLE_EQ(static_cast<double>(shape.PageBytes(KvPrecision::kQ4)) / full, 36.0 / 128.0);
  }
  for (int head_dim = 1; head_dim <= 512; ++head_dim)
    for (const auto precision : {KvPrecision::kF16, KvPrecision::kQ8, KvPrecision::kQ4}) {
      const KvHeadLayout layout = KvHeadLayout::Of(precision, head_dim);
      for (const size_t part :
           {layout.values, layout.key_params, layout.value_params, layout.bytes})
        EXPECT_EQ(part % 64, 0u) << head_dim;
    }
}

INSTANTIATE_TEST_SUITE_P(Isas, AttentionTest, testing::ValuesIn(kIsas),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

}  // namespace
}  // namespace perdure::engine
