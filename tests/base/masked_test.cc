#include "base/masked.h"

#include <gtest/gtest.h>

namespace perdure {
namespace {

TEST(MaskedTest, OwnIdsStandAsTheyAre) {
  for (const char* id :
       {"conv_0123456789abcdef", "conv_0123456789abcdef_1", "conv_0123456789abcdef_127"})
    EXPECT_EQ(Masked(id), id);
}

TEST(MaskedTest, OfAClientsIdNothingIsSaid) {
  for (const char* id :
       {"anna", "", "conv_", "conv_anna", "conv_0123456789abcde", "conv_0123456789abcdef_",
        "conv_0123456789abcdefanna", "conv_0123456789abcdef_anna", "conv_0123456789abcdef_1234",
        "conv_0123456789ABCDEF", "conv_0123456789abcdef\n"}) {
    const std::string masked = Masked(id);
    EXPECT_EQ(masked.size(), 17u) << id;
    EXPECT_EQ(masked.front(), '#');
    EXPECT_EQ(masked.find_first_not_of("0123456789abcdef", 1), std::string::npos);
  }
  EXPECT_NE(Masked("anna"), Masked("anne"));
  EXPECT_EQ(Masked("anna"), Masked("anna"));
}

}  // namespace
}  // namespace perdure
