// A set of bytes.
#pragma once

#include <bit>
#include <cstdint>

namespace perdure::text {

struct ByteSet {
  uint64_t words[4] = {};

  void Add(uint8_t byte) { words[byte >> 6] |= uint64_t{1} << (byte & 63); }
  void AddRange(uint8_t first, uint8_t last) {
    for (int byte = first; byte <= last; ++byte) Add(static_cast<uint8_t>(byte));
  }
  bool Has(uint8_t byte) const { return (words[byte >> 6] >> (byte & 63)) & 1; }
  void Merge(const ByteSet& other) {
    for (int i = 0; i < 4; ++i) words[i] |= other.words[i];
  }
  bool empty() const { return (words[0] | words[1] | words[2] | words[3]) == 0; }
  int size() const {
    int count = 0;
    for (const uint64_t word : words) count += std::popcount(word);
    return count;
  }
  // The smallest; the set is not empty.
  uint8_t first() const {
    int i = 0;
    while (words[i] == 0) ++i;
    return static_cast<uint8_t>(i * 64 + std::countr_zero(words[i]));
  }
  // How many members are smaller than `byte`.
  int Rank(uint8_t byte) const {
    const int word = byte >> 6;
    int rank = 0;
    for (int i = 0; i < word; ++i) rank += std::popcount(words[i]);
    return rank + std::popcount(words[word] & ((uint64_t{1} << (byte & 63)) - 1));
  }
  bool operator==(const ByteSet&) const = default;
};

}  // namespace perdure::text
