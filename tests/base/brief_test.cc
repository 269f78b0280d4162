#include "base/brief.h"

#include <gtest/gtest.h>

namespace perdure {
namespace {

TEST(Brief, CutsAtACharacter) {
  EXPECT_EQ(Brief("", 3), "");
  EXPECT_EQ(Brief("abc", 3), "abc");
  EXPECT_EQ(Brief("abcd", 3), "abc…");
  EXPECT_EQ(Brief("aüü", 3), "aü…");
  EXPECT_EQ(Brief("aüü", 4), "aü…");
  EXPECT_EQ(Brief("𝄞x", 3), "…");
  EXPECT_EQ(Brief("\x80\x80\x80", 2), "…");  // no UTF-8 at all
}

}  // namespace
}  // namespace perdure
