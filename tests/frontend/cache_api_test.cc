#include "frontend/cache_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/limits.h"

namespace perdure::frontend {
namespace {

using protocol::CacheOperation;
using testing::HasSubstr;

// Of /admin/cache/`operation`; `query` with its question mark.
Result<CacheCall> Parse(const std::string& operation, const std::string& query = "",
                        const std::string& body = "") {
  HttpRequest request;
  request.target = "/admin/cache/" + operation + query;
  request.body = body;
  const auto endpoint = CacheEndpointOf("/admin/cache/" + operation);
  if (!endpoint) return Err(ErrorCode::not_found, "no endpoint " + operation);
  request.method = endpoint->changes ? "POST" : "GET";
  return ParseCacheCall(*endpoint, request);
}

TEST(CacheApi, KnowsItsPaths) {
  struct Row {
    const char* path;
    CacheOperation operation;
    bool changes;
  };
  for (const Row& row : {Row{"/admin/cache/stats", CacheOperation::kStats, false},
                         Row{"/admin/cache/optimize", CacheOperation::kOptimize, true},
                         Row{"/admin/cache/clear", CacheOperation::kClear, true},
                         Row{"/admin/cache/health", CacheOperation::kHealth, false},
                         Row{"/admin/cache/recommend", CacheOperation::kRecommend, false},
                         Row{"/admin/cache/monitor", CacheOperation::kMonitor, false}}) {
    const auto endpoint = CacheEndpointOf(row.path);
    ASSERT_TRUE(endpoint) << row.path;
    EXPECT_EQ(endpoint->operation, row.operation) << row.path;
    EXPECT_EQ(endpoint->changes, row.changes) << row.path;
  }
  for (const char* path :
       {"", "/", "/admin", "/admin/cache", "/admin/cache/", "/admin/cache/Stats",
        "/admin/cache/stats/", "/admin/cache/stats?model=a", "/admin/cache//stats",
        "/admin/cache/drop", "admin/cache/stats", "/v1/admin/cache/stats"})
    EXPECT_FALSE(CacheEndpointOf(path)) << path;
}

TEST(CacheApi, AsksAllModelsByDefault) {
  for (const char* operation : {"stats", "optimize", "clear", "health", "recommend", "monitor"}) {
    const auto call = Parse(operation);
    ASSERT_TRUE(call) << operation;
    EXPECT_EQ(call->operation,
              CacheEndpointOf("/admin/cache/" + std::string(operation))->operation);
    EXPECT_EQ(call->model, "");
    EXPECT_FALSE(call->unused_only);
    EXPECT_EQ(call->seconds, call->operation == CacheOperation::kMonitor ? 60 : 0);
  }
}

TEST(CacheApi, ReadsTheQuery) {
  EXPECT_EQ(Parse("stats", "?model=nano")->model, "nano");
  EXPECT_EQ(Parse("health", "?model=org%2Fname%20x")->model, "org/name x");
  EXPECT_EQ(Parse("clear", "?model=nano")->model, "nano");
  EXPECT_EQ(Parse("stats", "?model=a=b")->model, "a=b");
  for (const char* empty : {"?", "?&", "?&&model=", "?model"})
    EXPECT_EQ(Parse("stats", empty)->model, "") << empty;
  const auto both = Parse("monitor", "?seconds=5&model=nano");
  EXPECT_EQ(both->seconds, 5);
  EXPECT_EQ(both->model, "nano");
  EXPECT_EQ(Parse("monitor", "?seconds=1")->seconds, 1);
  EXPECT_EQ(Parse("monitor", "?seconds=3600")->seconds, 3600);
}

TEST(CacheApi, RefusesBadQueriesByName) {
  struct Row {
    const char* operation;
    const char* query;
    const char* param;
    const char* message;
  };
  for (const Row& row : {
           Row{"monitor", "?seconds=0", "seconds",
               "seconds must be an integer from 1 to 3600, not \"0\"."},
           Row{"monitor", "?seconds=-1", "seconds", "not \"-1\""},
           Row{"monitor", "?seconds=3601", "seconds", "not \"3601\""},
           Row{"monitor", "?seconds=99999999999", "seconds", "not \"99999999999\""},
           Row{"monitor", "?seconds=1.5", "seconds", "not \"1.5\""},
           Row{"monitor", "?seconds=5s", "seconds", "not \"5s\""},
           Row{"monitor", "?seconds=", "seconds", "not \"\""},
           Row{"monitor", "?seconds", "seconds", "not \"\""},
           Row{"stats", "?seconds=5", "seconds", "There is no parameter \"seconds\" here."},
           Row{"stats", "?modell=a", "modell", "There is no parameter \"modell\" here."},
           Row{"stats", "?Model=a", "Model", "\"Model\""},
           Row{"clear", "?unused=true", "unused", "\"unused\""},
           Row{"stats", "?model=%2", "", "percent-encoded"},
           Row{"stats", "?model=a&x=%zz", "", "percent-encoded"},
       }) {
    const auto call = Parse(row.operation, row.query);
    ASSERT_FALSE(call) << row.operation << row.query;
    EXPECT_EQ(call.error().code, ErrorCode::invalid_request) << row.query;
    EXPECT_EQ(call.error().param, row.param) << row.query;
    EXPECT_THAT(call.error().message, HasSubstr(row.message)) << row.query;
  }
  const auto longest = Parse("stats", "?" + std::string(2000, 'x') + "=1");
  ASSERT_FALSE(longest);
  EXPECT_LT(longest.error().message.size(), 300u) << "what clients send is repeated in part";
}

TEST(CacheApi, ReadsTheBody) {
  auto call = Parse("clear", "", R"({"model":"nano","unused":true})");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->model, "nano");
  EXPECT_TRUE(call->unused_only);
  EXPECT_FALSE(Parse("clear", "", R"({"unused":false})")->unused_only);
  EXPECT_FALSE(Parse("clear", "", R"({"unused":null,"model":null})")->unused_only);
  EXPECT_FALSE(Parse("clear", "", "{}")->unused_only);
  call = Parse("optimize", "", R"({"model":"nano"})");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->model, "nano");
  EXPECT_EQ(Parse("optimize", "?model=a", R"({"model":"b"})")->model, "b");
  EXPECT_EQ(Parse("optimize", "?model=a", "{}")->model, "a");
}

TEST(CacheApi, ABodyMattersOnlyWhereSomethingChanges) {
  const auto call = Parse("stats", "", R"({"model":"nano"})");
  ASSERT_TRUE(call);
  EXPECT_EQ(call->model, "");
  EXPECT_TRUE(Parse("health", "", "no JSON"));
}

TEST(CacheApi, RefusesBadBodiesByName) {
  struct Row {
    std::string body;
    const char* param;
    const char* message;
  };
  const std::string long_name(limits::kModelNameBytesMax + 1, 'm');
  for (const Row& row :
       std::vector<Row>{{"{", "", "The request body"},
                        {"[]", "", "The request body must be a JSON object, or empty."},
                        {"null", "", "a JSON object"},
                        {"7", "", "a JSON object"},
                        {R"({"model":7})", "model", "model must be a string, not 7."},
                        {R"({"model":["a"]})", "model", "model must be a string, not an array."},
                        {R"({"model":")" + long_name + "\"}", "model", "model must not exceed"},
                        {R"({"unused":"yes"})", "unused",
                         "unused must be true or false, not the string \"yes\"."},
                        {R"({"unused":1})", "unused", "unused must be true or false, not 1."}}) {
    const auto call = Parse("clear", "", row.body);
    ASSERT_FALSE(call) << row.body;
    EXPECT_EQ(call.error().code, ErrorCode::invalid_request) << row.body;
    EXPECT_EQ(call.error().param, row.param) << row.body;
    EXPECT_THAT(call.error().message, HasSubstr(row.message)) << row.body;
  }
}

}  // namespace
}  // namespace perdure::frontend
