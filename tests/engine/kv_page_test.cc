#include "engine/kv_page.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "engine/kv_write.h"

namespace perdure::engine {
namespace {

class KvPageTest : public testing::TestWithParam<KvPrecision> {
 protected:
  // `count` positions as an engine stores them, over memory of this byte.
  std::vector<std::byte> Written(int count, int byte) const {
    std::vector<std::byte> page(kv_.PageBytes(GetParam()), static_cast<std::byte>(byte));
    const Kernels& kernels = KernelsFor(Isa::kScalar);
    std::vector<float> rows(static_cast<size_t>(count) * 2 * kDim);
    for (size_t i = 0; i < rows.size(); ++i)
      rows[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 7;
    for (size_t at = 0; at < page.size(); at += kv_.HeadBytes(GetParam()))
      WriteKv(kernels, GetParam(), page.data() + at, 0,
              {.keys = rows.data(),
               .values = rows.data() + kDim,
               .stride = 2 * kDim,
               .rows = count,
               .head_dim = kDim});
    return page;
  }
  static constexpr int kDim = 64;
  const KvShape kv_{2, 3, kDim};
};

TEST_P(KvPageTest, NothingIsLeftOfWhatLayBehind) {
  for (const int count : {1, 5, 16, 31}) {
    std::vector<std::byte> page = Written(count, 0xAB);
    ClearBehind(kv_, GetParam(), count, page);
    EXPECT_EQ(page, Written(count, 0)) << count;
  }
  std::vector<std::byte> full = Written(32, 0xAB);
  ClearBehind(kv_, GetParam(), 32, full);
  EXPECT_EQ(full, Written(32, 0));
}

TEST_P(KvPageTest, NumbersThatAreNoneAreSeen) {
  const std::vector<std::byte> page = Written(32, 0);
  EXPECT_TRUE(AreFinite(kv_, GetParam(), page));
  const auto layout = KvHeadLayout::Of(GetParam(), kDim);
  const bool is_f16 = GetParam() == KvPrecision::kF16;
  for (const uint16_t half : {uint16_t{0x7c00}, uint16_t{0xfc00}, uint16_t{0x7e01}}) {
    for (const size_t at : {is_f16 ? size_t{0} : layout.key_params, layout.bytes - 2,
                            page.size() - layout.bytes + layout.key_params, page.size() - 2}) {
      std::vector<std::byte> changed = page;
      std::memcpy(changed.data() + at, &half, sizeof half);
      EXPECT_FALSE(AreFinite(kv_, GetParam(), changed)) << at;
    }
  }
  if (is_f16) return;
  // Codes may be any.
  std::vector<std::byte> changed = page;
  std::memset(changed.data(), 0xff, layout.key_params);
  EXPECT_TRUE(AreFinite(kv_, GetParam(), changed));
}

INSTANTIATE_TEST_SUITE_P(All, KvPageTest,
                         testing::Values(KvPrecision::kF16, KvPrecision::kQ8, KvPrecision::kQ4));

}  // namespace
}  // namespace perdure::engine
