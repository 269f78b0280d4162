// Sets of Unicode scalar values, and the byte sequences of UTF-8 that spell a range of them.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace perdure::text {

// A value.
class CodePointSet {
 public:
  using Range = std::pair<uint32_t, uint32_t>;  // first, last

  static CodePointSet All();
  // Surrogates are left out: no text has them.
  void Add(uint32_t first, uint32_t last);
  void Add(const CodePointSet& other);
  CodePointSet Complement() const;
  CodePointSet Without(uint32_t first, uint32_t last) const;
  bool Has(uint32_t code_point) const;
  bool empty() const { return ranges_.empty(); }
  // Sorted, neither touching nor overlapping.
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

struct ByteRange {
  uint8_t first;
  uint8_t last;
};

// Calls `sequence` with one to four ranges of bytes, whose product is exactly a part of the UTF-8
// of [first, last], which has no surrogates; the parts together are all of it.
void ForEachUtf8Sequence(uint32_t first, uint32_t last,
                         const std::function<void(std::span<const ByteRange>)>& sequence);

}  // namespace perdure::text
