#include "frontend/keep_alive.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace perdure::frontend {
namespace {

std::optional<int32_t> Read(Json value) {
  const auto seconds = ReadKeepAlive(Json{{"keep_alive", std::move(value)}});
  EXPECT_TRUE(seconds) << seconds.error().message;
  return seconds.value_or(std::nullopt);
}

TEST(KeepAlive, IsSecondsOrADuration) {
  EXPECT_EQ(*ReadKeepAlive(Json::object()), std::nullopt);
  EXPECT_EQ(Read(nullptr), std::nullopt);
  EXPECT_EQ(Read(0), 0);
  EXPECT_EQ(Read(300), 300);
  EXPECT_EQ(Read(0.5), 1);
  EXPECT_EQ(Read(-1), -1);
  EXPECT_EQ(Read(1e99), INT32_MAX);
  EXPECT_EQ(Read("300"), 300);
  EXPECT_EQ(Read("5m"), 300);
  EXPECT_EQ(Read("1h30m"), 5400);
  EXPECT_EQ(Read("1.5h"), 5400);
  EXPECT_EQ(Read("500ms"), 1);
  EXPECT_EQ(Read("-1"), -1);
  EXPECT_EQ(Read("-5m"), -1);
  for (const char* text : {"", "-", "soon", "5 m", "5d", "5m3", "m", "0x10", "nan", "inf", "1e3"})
    EXPECT_FALSE(ReadKeepAlive(Json{{"keep_alive", text}})) << text;
  for (const Json& value : {Json(true), Json::array(), Json::object()})
    EXPECT_FALSE(ReadKeepAlive(Json{{"keep_alive", value}})) << value;
}

}  // namespace
}  // namespace perdure::frontend
