#include "base/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace perdure {
namespace {

std::string ErrorOf(std::string_view text, int max_depth = 64) {
  const Result<Json> json = ParseJson(text, "the text", ErrorCode::invalid_request, max_depth);
  if (json) return "";
  EXPECT_EQ(json.error().code, ErrorCode::invalid_request);
  EXPECT_TRUE(json.error().message.starts_with("the text is not valid JSON"))
      << json.error().message;
  return json.error().message;
}

TEST(Json, KeepsTheOrderOfKeys) {
  const auto json =
      ParseJson(R"({"z":1,"a":[true,null,"x"],"m":{"y":2.5}})", "t", ErrorCode::io_error);
  ASSERT_TRUE(json);
  EXPECT_EQ(DumpJson(*json), R"({"z":1,"a":[true,null,"x"],"m":{"y":2.5}})");
}

TEST(Json, RefusesWhatIsNotJson) {
  for (const char* text : {"", " ", "{", "[1,]", "{\"a\":1,}", "nul", "NaN", "Infinity", "'a'",
                           "[1] 2", "{\"a\" 1}", "\"\\x\"", "\"\n\"", "01", "+1", "\"abc"}) {
    EXPECT_NE(ErrorOf(text), "") << text;
  }
}

TEST(Json, RefusesNumbersBeyondADouble) {
  EXPECT_NE(ErrorOf("1e999"), "");
  EXPECT_NE(ErrorOf("[-1e999]"), "");
  EXPECT_EQ(ErrorOf("1e308"), "");
}

TEST(Json, RefusesBrokenUnicode) {
  EXPECT_NE(ErrorOf("\"\\ud800\""), "");
  EXPECT_NE(ErrorOf("\"\\udc00\\ud800\""), "");
  EXPECT_NE(ErrorOf("\"\xc0\x80\""), "");
  EXPECT_NE(ErrorOf("\"\xff\""), "");
  EXPECT_EQ(ErrorOf("\"\\ud83d\\ude00\""), "");
}

TEST(Json, RefusesDuplicateKeys) {
  EXPECT_NE(ErrorOf(R"({"a":1,"a":2})").find("\"a\" stands twice"), std::string::npos);
  EXPECT_EQ(ErrorOf(R"({"a":{"a":1},"b":{"a":2}})"), "");
}

TEST(Json, BoundsDepth) {
  EXPECT_EQ(ErrorOf("[[[1]]]", 3), "");
  EXPECT_NE(ErrorOf("[[[[1]]]]", 3), "");
  EXPECT_NE(ErrorOf(std::string(100'000, '[')), "");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(ErrorOf(objects), "");
}

TEST(Json, ManyKeysTakeLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i) text += "\"k" + std::to_string(i) + "\":0,";
  text += "\"end\":1}";
  const auto json = ParseJson(text, "t", ErrorCode::io_error);
  ASSERT_TRUE(json);
  EXPECT_EQ(json->size(), 200'001u);
}

TEST(Json, SaysWhere) {
  const std::string message = ErrorOf("{\n  \"a\": tru\n}");
  EXPECT_NE(message.find("line 2"), std::string::npos) << message;
}

TEST(Json, ErrorsRepeatLittleOfTheText) {
  std::string umlauts;
  for (int i = 0; i < 100'000; ++i) umlauts += "ü";
  for (const std::string& text :
       {"\"" + umlauts, "{\"" + umlauts + "\":1,\"" + umlauts + "\":2}",
        std::string(100'000, '9') + "e9", "\"" + std::string(100'000, 'x') + "\n"}) {
    const std::string message = ErrorOf(text);
    EXPECT_LT(message.size(), 400u);
    EXPECT_EQ(DumpJson(Json(message)).find("\uFFFD"), std::string::npos) << "cut in a character";
  }
}

TEST(Json, DumpNeverThrows) { EXPECT_EQ(DumpJson(Json("a\xff")), "\"a\xef\xbf\xbd\""); }

}  // namespace
}  // namespace perdure
