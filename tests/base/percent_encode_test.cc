#include "base/percent_encode.h"

#include <gtest/gtest.h>

namespace perdure {
namespace {

using namespace std::string_literals;

TEST(Percent, Decodes) {
  EXPECT_EQ(PercentDecode(""), "");
  EXPECT_EQ(PercentDecode("nano"), "nano");
  EXPECT_EQ(PercentDecode("org%2Fname"), "org/name");
  EXPECT_EQ(PercentDecode("%2f%2F"), "//");
  EXPECT_EQ(PercentDecode("%e2%9C%93"), "✓");
  EXPECT_EQ(PercentDecode("%00"), "\0"s);
  EXPECT_EQ(PercentDecode("%ff"), "\xff");
  EXPECT_EQ(PercentDecode("a+b"), "a+b") << "a plus is no blank in a path";
}

TEST(Percent, DecodesOnce) { EXPECT_EQ(PercentDecode("%252F"), "%2F"); }

TEST(Percent, RefusesTornEscapes) {
  for (const char* text :
       {"%", "%2", "a%", "a%2", "%%", "%%25", "%2g", "%g2", "%G2", "% 2", "%-1", "%0x", "ok%2F%"})
    EXPECT_FALSE(PercentDecode(text)) << text;
}

}  // namespace
}  // namespace perdure
