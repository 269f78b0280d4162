#include "cli/table.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace perdure::cli {
namespace {

TEST(Table, ColumnsLineUp) {
  EXPECT_EQ(Table({{"A", "B"}, {"longer", "x"}, {"ü", "y", "z"}}),
            "A       B\nlonger  x\nü       y  z\n");
  EXPECT_EQ(Table({}), "");
}

TEST(Table, Figures) {
  EXPECT_EQ(Bytes(0), "0 B");
  EXPECT_EQ(Bytes(1023), "1023 B");
  EXPECT_EQ(Bytes(1024), "1.0 KiB");
  EXPECT_EQ(Bytes(uint64_t{57} << 30), "57.0 GiB");
  EXPECT_EQ(Bytes(~uint64_t{0}), "16777216.0 TiB");
  EXPECT_EQ(Grouped(0), "0");
  EXPECT_EQ(Grouped(999), "999");
  EXPECT_EQ(Grouped(1000), "1,000");
  EXPECT_EQ(Grouped(30'532'122'624), "30,532,122,624");
}

TEST(Table, ATerminalObeysNothingOfAText) {
  EXPECT_EQ(Printable("plain, ü, 名前"), "plain, ü, 名前");
  EXPECT_EQ(Printable("\x1b]0;title\a\x7f"), "\uFFFD]0;title\uFFFD\uFFFD");
  EXPECT_EQ(Printable("a\u009bb"), "a\uFFFDb") << "a control sequence in one character";
  EXPECT_EQ(Printable("a\u00a0b"), "a\u00a0b");
  EXPECT_EQ(Printable("two\nlines\t."), "two\uFFFDlines\uFFFD.");
  EXPECT_EQ(Printable("two\r\nlines\t.", true), "two\uFFFD\nlines\t.");
  EXPECT_EQ(Printable("\xc2"), "\xc2") << "half a character at the end";
}

TEST(Table, TimeOfAMember) {
  const Json object{{"zero", 0}, {"text", "x"}, {"at", 1'700'000'000}};
  for (const char* key : {"zero", "text", "missing"}) EXPECT_EQ(TimeOf(object, key), "never");
  EXPECT_EQ(TimeOf(object, "at").substr(0, 9), "2023-11-1");
}

TEST(Table, TextOfAMember) {
  const Json object{{"text", "x"}, {"empty", ""}, {"null", nullptr}, {"number", 3}};
  EXPECT_EQ(TextOf(object, "text"), "x");
  EXPECT_EQ(TextOf(object, "number"), "3");
  for (const char* key : {"empty", "null", "missing"}) EXPECT_EQ(TextOf(object, key), "-");
  EXPECT_EQ(TextOf(Json(), "x"), "-");
}

}  // namespace
}  // namespace perdure::cli
