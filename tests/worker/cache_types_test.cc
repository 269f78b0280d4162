#include "worker/cache_types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/cache_schedule.h"

namespace perdure::worker {
namespace {

using testing::HasSubstr;

CacheChoice Type(const std::string& type) {
  CacheChoice choice;
  choice.settings.type = type;
  return choice;
}
CacheSegment Only(const ResolvedCache& cache) {
  EXPECT_EQ(cache.schedule.segments.size(), 1u);
  EXPECT_TRUE(cache.warnings.empty());
  EXPECT_TRUE(IsSound(cache.schedule));
  return cache.schedule.segments[0];
}

TEST(CacheTypesTest, TheFive) {
  EXPECT_EQ(Only(ResolveCache({}, {})), CacheSegment());
  EXPECT_EQ(Only(ResolveCache(Type("quantized_kv"), {})).bits, 8);
  const CacheSegment rotating = Only(ResolveCache(Type("rotating_kv"), {}));
  EXPECT_EQ(rotating.size, 4096);
  EXPECT_EQ(rotating.keep, 4);
  EXPECT_EQ(ResolveCache(Type("chunked_kv"), {}).schedule.chunk_size, 512);
  EXPECT_TRUE(ResolveCache(Type("concatenate_kv"), {}).schedule.pinned);
  EXPECT_FALSE(ResolveCache(Type("kv"), {}).schedule.pinned);
}

TEST(CacheTypesTest, TheCompressionRatioChoosesTheBits) {
  CacheChoice choice = Type("quantized_kv");
  for (const auto& [ratio, bits] : {std::pair{0.5f, 8}, {0.41f, 8}, {0.4f, 4}, {0.25f, 4}}) {
    choice.settings.compression_ratio = ratio;
    EXPECT_EQ(Only(ResolveCache(choice, {})).bits, bits) << ratio;
  }
}

TEST(CacheTypesTest, WhatIsNotKnownOrNotPossibleIsKvAndSaysSo) {
  const ResolvedCache unknown = ResolveCache(Type("weird"), {});
  EXPECT_EQ(unknown.schedule, CacheSchedule());
  ASSERT_EQ(unknown.warnings.size(), 1u);
  EXPECT_THAT(unknown.warnings[0], HasSubstr("no type \"weird\""));
  CacheChoice tiny = Type("rotating_kv");
  tiny.settings.max_size = 10;
  const ResolvedCache impossible = ResolveCache(tiny, {});
  EXPECT_EQ(impossible.schedule, CacheSchedule());
  ASSERT_EQ(impossible.warnings.size(), 1u);
  EXPECT_THAT(impossible.warnings[0], HasSubstr("max_size is 10"));
}

TEST(CacheTypesTest, SettingsOfTheStandardOneHoldWhereItHasNoName) {
  CacheTypes types;
  types.standard.settings.optimization_interval = 3;
  EXPECT_EQ(ResolveCache({}, types).optimization_interval, 3);
  EXPECT_EQ(ResolveCache(Type("kv"), types).optimization_interval, 3);
  EXPECT_EQ(ResolveCache(Type("rotating_kv"), types).optimization_interval, std::nullopt);
}

TEST(CacheTypesTest, SettingsOfTheStandardOneHoldWhereItsTypeIsANamedOne) {
  CacheTypes types;
  types.named = {{"small", Type("quantized_kv")}};
  types.standard = Type("small");
  types.standard.settings.bits = 4;
  types.standard.settings.optimization_interval = 50;
  for (const CacheChoice& asked : {CacheChoice(), Type("small")}) {
    const ResolvedCache cache = ResolveCache(asked, types);
    EXPECT_EQ(cache.schedule.type, "small");
    EXPECT_EQ(cache.schedule.segments[0].bits, 4);
    EXPECT_EQ(cache.optimization_interval, 50);
  }
  EXPECT_EQ(ResolveCache(Type("quantized_kv"), types).schedule.segments[0].bits, 8);
}

TEST(CacheTypesTest, SizesFarOffAreImpossible) {
  for (const auto& [max_size, keep] :
       {std::pair(INT32_MIN, 1), std::pair(INT32_MIN, INT32_MAX), std::pair(INT32_MAX, 1),
        std::pair(1000, INT32_MAX), std::pair(1000, INT32_MIN), std::pair(-1, 0)}) {
    CacheChoice asked = Type("rotating_kv");
    asked.settings.max_size = max_size;
    asked.settings.keep = keep;
    asked.then.push_back({1000, Type("rotating_kv").settings});
    const ResolvedCache cache = ResolveCache(asked, {});
    EXPECT_EQ(cache.schedule, CacheSchedule()) << max_size << ' ' << keep;
    EXPECT_EQ(cache.warnings.size(), 1u);
  }
}

TEST(CacheTypesTest, ANamedOneWithALaterPhase) {
  NamedCacheType named{"long", Type("kv")};
  named.choice.then.push_back({8192, {}});
  named.choice.then[0].settings.type = "rotating_kv";
  named.choice.then[0].settings.max_size = 2048;
  const ResolvedCache cache = ResolveCache(Type("long"), {{named}, {}});
  EXPECT_TRUE(cache.warnings.empty());
  EXPECT_EQ(cache.schedule.type, "long");
  ASSERT_EQ(cache.schedule.segments.size(), 2u);
  EXPECT_EQ(cache.schedule.segments[0], CacheSegment());
  EXPECT_EQ(cache.schedule.segments[1].from, 8192);
  EXPECT_EQ(cache.schedule.segments[1].size, 2048);
}

}  // namespace
}  // namespace perdure::worker
