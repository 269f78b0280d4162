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

TEST(Table, TextOfAMember) {
  const Json object{{"text", "x"}, {"empty", ""}, {"null", nullptr}, {"number", 3}};
  EXPECT_EQ(TextOf(object, "text"), "x");
  EXPECT_EQ(TextOf(object, "number"), "3");
  for (const char* key : {"empty", "null", "missing"}) EXPECT_EQ(TextOf(object, key), "-");
  EXPECT_EQ(TextOf(Json(), "x"), "-");
}

}  // namespace
}  // namespace perdure::cli
