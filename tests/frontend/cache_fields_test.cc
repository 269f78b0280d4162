#include "frontend/cache_fields.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

// Of a request whose `cache` is that.
Result<CacheChoice> Cache(const std::string& cache) {
  return ReadCache(Json::parse("{\"cache\":" + cache + "}"));
}

TEST(CacheFields, NothingIsTheDefault) {
  for (const char* body : {"{}", R"({"cache":null})", R"({"cache":{}})", R"({"cache":{"then":[]}})",
                           R"({"cache":{"type":null,"bits":null,"then":null}})"}) {
    const auto choice = ReadCache(Json::parse(body));
    ASSERT_TRUE(choice) << body;
    EXPECT_EQ(*choice, CacheChoice()) << body;
  }
}

TEST(CacheFields, AStringIsAType) {
  const auto choice = Cache(R"("rotating_kv")");
  ASSERT_TRUE(choice);
  EXPECT_EQ(*choice, *Cache(R"({"type":"rotating_kv"})"));
  EXPECT_EQ(choice->settings.type, "rotating_kv");
}

TEST(CacheFields, ReadsEach) {
  struct Row {
    const char* json;
    void (*set)(CacheSettings*);
  };
  using S = CacheSettings;
  for (const Row& row : {
           Row{R"({"type":"kv"})", [](S* s) { s->type = "kv"; }},
           Row{R"({"bits":8})", [](S* s) { s->bits = 8; }},
           Row{R"({"max_size":1000})", [](S* s) { s->max_size = 1000; }},
           Row{R"({"keep":4})", [](S* s) { s->keep = 4; }},
           Row{R"({"chunk_size":64})", [](S* s) { s->chunk_size = 64; }},
           Row{R"({"compression_ratio":0.25})", [](S* s) { s->compression_ratio = 0.25f; }},
           Row{R"({"compression_ratio":1})", [](S* s) { s->compression_ratio = 1.0f; }},
           Row{R"({"optimization_interval":10})", [](S* s) { s->optimization_interval = 10; }},
       }) {
    CacheSettings settings;
    row.set(&settings);
    const auto choice = Cache(row.json);
    ASSERT_TRUE(choice) << row.json << ": " << choice.error().message;
    EXPECT_EQ(choice->settings, settings) << row.json;
    EXPECT_THAT(choice->then, IsEmpty()) << row.json;
  }
}

TEST(CacheFields, BitsHaveTwoNames) {
  EXPECT_EQ(Cache(R"({"quantization_bits":4})")->settings.bits, 4);
  EXPECT_EQ(Cache(R"({"quantization_bits":4,"bits":8})")->settings.bits, 8);
  EXPECT_EQ(Cache(R"({"bits":8,"quantization_bits":4})")->settings.bits, 8);
  EXPECT_EQ(Cache(R"({"bits":null,"quantization_bits":4})")->settings.bits, 4);
}

TEST(CacheFields, OthersAndTheirRangesAreTheWorkersBusiness) {
  const auto choice =
      Cache(R"({"type":"nobody knows it","bits":5,"keep":-1,"compression_ratio":-2,"new":[{}]})");
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->settings.type, "nobody knows it");
  EXPECT_EQ(choice->settings.bits, 5);
  EXPECT_EQ(choice->settings.keep, -1);
  EXPECT_EQ(choice->settings.compression_ratio, -2.0f);
}

TEST(CacheFields, OthersFollow) {
  const auto choice = Cache(
      R"({"type":"kv","then":[{"at":100,"type":"quantized_kv"},{"at":200,"max_size":50,"x":1}]})");
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->settings, Cache(R"("kv")")->settings);
  const std::vector<CachePhase> then = {{100, Cache(R"("quantized_kv")")->settings},
                                        {200, Cache(R"({"max_size":50})")->settings}};
  EXPECT_EQ(choice->then, then);
}

TEST(CacheFields, ErrorsNameTheField) {
  struct Row {
    const char* cache;
    const char* param;
    const char* message;
  };
  for (const Row& row : {
           Row{"7", "cache", "cache must be an object, not 7."},
           Row{"[]", "cache", "cache must be an object, not an empty array."},
           Row{"false", "cache", "not false"},
           Row{R"({"type":7})", "cache.type", "cache.type must be a string, not 7."},
           Row{R"({"bits":"8"})", "cache.bits", "not the string \"8\""},
           Row{R"({"bits":8.0})", "cache.bits", "cache.bits must be an integer"},
           Row{R"({"quantization_bits":[]})", "cache.quantization_bits", "not an empty array"},
           Row{R"({"max_size":2147483648})", "cache.max_size", "not 2147483648"},
           Row{R"({"max_size":-2147483649})", "cache.max_size", "not -2147483649"},
           Row{R"({"keep":true})", "cache.keep", "not true"},
           Row{R"({"chunk_size":{}})", "cache.chunk_size", "not an empty object"},
           Row{R"({"compression_ratio":"0.5"})", "cache.compression_ratio",
               "cache.compression_ratio must be a number"},
           Row{R"({"compression_ratio":1e39})", "cache.compression_ratio", "not 1e+39"},
           Row{R"({"optimization_interval":1.5})", "cache.optimization_interval", "not 1.5"},
           Row{R"({"then":{}})", "cache.then", "cache.then must be an array of objects"},
           Row{R"({"then":[7]})", "cache.then[0]", "cache.then[0] must be an object, not 7."},
           Row{R"({"then":[null]})", "cache.then[0]", "not null"},
           Row{R"({"then":[{"type":"kv"}]})", "cache.then[0].at", "cache.then[0].at is required"},
           Row{R"({"then":[{"at":1},{"at":"2"}]})", "cache.then[1].at",
               "cache.then[1].at must be an integer"},
           Row{R"({"then":[{"at":1},{"at":2,"bits":"8"}]})", "cache.then[1].bits",
               "cache.then[1].bits must be"},
       }) {
    const auto choice = Cache(row.cache);
    ASSERT_FALSE(choice) << row.cache;
    EXPECT_EQ(choice.error().code, ErrorCode::invalid_request) << row.cache;
    EXPECT_EQ(choice.error().param, row.param) << row.cache;
    EXPECT_THAT(choice.error().message, HasSubstr(row.message)) << row.cache;
  }
}

TEST(CacheFields, NamesOfTypesAreBounded) {
  const std::string longest(limits::kCacheTypeNameBytesMax, 't');
  EXPECT_EQ(Cache("\"" + longest + "\"")->settings.type, longest);
  EXPECT_EQ(Cache("\"" + longest + "t\"").error().param, "cache");
  EXPECT_EQ(Cache("{\"type\":\"" + longest + "t\"}").error().param, "cache.type");
}

TEST(CacheFields, PartsAreBounded) {
  std::string parts;
  for (int at = 1; at < limits::kCacheSegmentsMax; ++at)
    parts += fmt::format("{}{{\"at\":{}}}", parts.empty() ? "" : ",", at);
  const auto choice = Cache("{\"then\":[" + parts + "]}");
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->then.size(), size_t{limits::kCacheSegmentsMax} - 1);
  const auto more = Cache("{\"then\":[" + parts + ",{\"at\":99}]}");
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().param, "cache.then");
  EXPECT_THAT(more.error().message, HasSubstr("16 entries; at most 15"));
}

TEST(CacheFields, ConversationIds) {
  EXPECT_EQ(ReadConversationId(Json::parse("{}")), "");
  EXPECT_EQ(ReadConversationId(Json::parse(R"({"conversation_id":null})")), "");
  EXPECT_EQ(ReadConversationId(Json::parse(R"({"conversation_id":"my ✓ id"})")), "my ✓ id");
  const std::string longest(limits::kConversationIdBytesMax, 'c');
  EXPECT_EQ(ReadConversationId(Json{{"conversation_id", longest}}), longest);
  for (const Json& id : {Json(""), Json(7), Json(longest + "c"), Json("a\nb"), Json("\x7f")}) {
    const auto read = ReadConversationId(Json{{"conversation_id", id}});
    ASSERT_FALSE(read) << id;
    EXPECT_EQ(read.error().code, ErrorCode::invalid_request) << id;
    EXPECT_EQ(read.error().param, "conversation_id") << id;
    EXPECT_THAT(read.error().message, HasSubstr("conversation_id must ")) << id;
  }
}

}  // namespace
}  // namespace perdure::frontend
