// Bytes of fields: what was written is read, and nothing else is.
#include "base/codec.h"

#include <gtest/gtest.h>

#include <string>

namespace perdure {
namespace {

struct Inner {
  bool flag = false;
  std::optional<int16_t> maybe;
  auto Fields() { return std::tie(flag, maybe); }
};

struct Outer {
  uint32_t number = 0;
  std::string text;
  std::vector<Inner> inner;
  auto Fields() { return std::tie(number, text, inner); }
};

Outer Full() { return {0x01020304, std::string("a\0b", 3), {{true, -2}, {false, std::nullopt}}}; }

TEST(Codec, BytesAreAsDescribed) {
  EXPECT_EQ(Encode(Full()), std::string("\4\3\2\1"
                                        "\3\0\0\0a\0b"
                                        "\2\0\0\0"
                                        "\1\1\xfe\xff"
                                        "\0\0",
                                        21));
}

TEST(Codec, DecodeExactlyReadsTheWhole) {
  const std::string bytes = Encode(Full());
  const auto read = DecodeExactly<Outer>(bytes);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(Encode(*read), bytes);
  EXPECT_EQ(read->inner[0].maybe, -2);
}

TEST(Codec, DecodeExactlyRefusesAllElse) {
  const std::string bytes = Encode(Full());
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(DecodeExactly<Outer>(bytes.substr(0, size)).has_value()) << size;
  EXPECT_FALSE(DecodeExactly<Outer>(bytes + '\0').has_value());
  std::string changed = bytes;
  changed[15] = 2;  // a boolean
  EXPECT_FALSE(DecodeExactly<Outer>(changed).has_value());
  changed = bytes;
  changed[11] = 100;  // a count that the rest cannot hold
  EXPECT_FALSE(DecodeExactly<Outer>(changed).has_value());
}

}  // namespace
}  // namespace perdure
