#include "shm/kv_least.h"

#include <gtest/gtest.h>

#include "base/limits.h"

namespace perdure::shm {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

TEST(KvLeast, IsOneContextInWholeSlabs) {
  EXPECT_EQ(LeastKvBytes(2 * kMiB, 65536, 2048), 4 * kMiB);
  EXPECT_EQ(LeastKvBytes(2 * kMiB, 65536, 2049), 6 * kMiB);
  EXPECT_EQ(LeastKvBytes(32 * kMiB, 65536, 2048), 32 * kMiB) << "a slab is the least";
}

TEST(KvLeast, IsBounded) {
  EXPECT_EQ(LeastKvBytes(32 * kMiB, 4 * kMiB, 1 << 20), limits::kKvGrantBytes);
  EXPECT_EQ(LeastKvBytes(24 * kMiB, 4 * kMiB, 1 << 20), 48 * kMiB) << "whole slabs, not more";
  EXPECT_EQ(LeastKvBytes(128 * kMiB, 128 * kMiB, 1 << 20), 128 * kMiB) << "but one";
  EXPECT_EQ(LeastKvBytes(0, 0, 0), limits::kKvGrantBytes) << "nothing is known";
}

TEST(KvLeast, FollowsFromTheShapes) {
  const KvSize nano = KvSizeOf(65536, 2048, 8, 100);
  EXPECT_EQ(nano.slab_bytes, 2 * kMiB);
  EXPECT_EQ(nano.least_bytes, 4 * kMiB);
  EXPECT_GT(nano.fixed_bytes, 1'015'808u) << "what its arena has, with all descriptors";
  EXPECT_LT(nano.fixed_bytes, 2 * kMiB);
  const KvSize large = KvSizeOf(4 * kMiB, 1 << 17, 8, 100);
  EXPECT_EQ(large.slab_bytes, limits::kArenaSlabBytes);
  EXPECT_EQ(large.least_bytes, limits::kKvGrantBytes);
  EXPECT_EQ(KvSizeOf(0, 2048, 8, 100).least_bytes, limits::kKvGrantBytes);
}

}  // namespace
}  // namespace perdure::shm
