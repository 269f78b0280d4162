#include "base/stream_copy.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <vector>

namespace perdure {
namespace {

TEST(StreamCopyTest, CopiesExactlyWhatItIsGivenFromAndToAnyAddress) {
  std::mt19937 random(1);
  std::vector<std::byte> source(4096);
  for (std::byte& byte : source) byte = static_cast<std::byte>(random() % 255);
  const std::byte untouched{255};
  for (const size_t bytes : {0, 1, 15, 63, 64, 65, 127, 128, 129, 191, 1000, 3000}) {
    for (size_t from = 0; from < 20; ++from) {
      for (size_t to = 0; to < 70; ++to) {
        std::vector<std::byte> target(4096, untouched);
        StreamCopy(std::span(source).subspan(from, bytes), target.data() + to);
        std::vector<std::byte> expected(4096, untouched);
        std::copy_n(source.begin() + static_cast<long>(from), bytes,
                    expected.begin() + static_cast<long>(to));
        ASSERT_EQ(target, expected) << bytes << " from " << from << " to " << to;
      }
    }
  }
}

}  // namespace
}  // namespace perdure
