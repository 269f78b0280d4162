#include "cli/ps.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace perdure::cli {
namespace {

TEST(Ps, ShowsProcessesAndReasons) {
  const Json ps = Json::parse(R"({
    "supervisor": {"pid": 10, "memory": {"rss_bytes": 5242880}},
    "frontend": {"pid": 11, "state": "ready", "deaths": 1, "url": "http://127.0.0.1:8000"},
    "models": [
      {"name": "nano", "state": "ready", "pid": 12, "deaths": 0, "running": 2, "waiting": 1,
       "memory": {"rss_bytes": 10485760}, "reason": ""},
      {"name": "broken", "state": "failed", "pid": null, "deaths": 5, "reason": "bad file"}]})");
  const std::string text = FormatPs(ps);
  EXPECT_NE(text.find("worker nano"), std::string::npos) << text;
  EXPECT_NE(text.find("10.0 MiB"), std::string::npos) << text;
  EXPECT_NE(text.find("frontend http://127.0.0.1:8000"), std::string::npos) << text;
  EXPECT_NE(text.find("broken: bad file"), std::string::npos) << text;
}

TEST(Ps, MissingFieldsAreDashes) {
  const std::string text = FormatPs(Json::object());
  EXPECT_NE(text.find("supervisor"), std::string::npos);
  EXPECT_NE(text.find(" -"), std::string::npos);
}

}  // namespace
}  // namespace perdure::cli
