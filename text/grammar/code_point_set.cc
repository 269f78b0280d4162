#include "text/grammar/code_point_set.h"

#include <algorithm>
#include <string>

#include "text/utf8.h"

namespace perdure::text {
namespace {

constexpr uint32_t kLast = 0x10FFFF;
constexpr uint32_t kSurrogateFirst = 0xD800;
constexpr uint32_t kSurrogateLast = 0xDFFF;

std::string Utf8Of(uint32_t code_point) {
  std::string text;
  AppendUtf8(static_cast<char32_t>(code_point), &text);
  return text;
}

}  // namespace

CodePointSet CodePointSet::All() {
  CodePointSet set;
  set.Add(0, kLast);
  return set;
}

void CodePointSet::Add(uint32_t first, uint32_t last) {
  last = std::min(last, kLast);
  if (first < kSurrogateFirst && last >= kSurrogateFirst) {
    Add(first, kSurrogateFirst - 1);
    first = kSurrogateFirst;
  }
  if (first >= kSurrogateFirst && first <= kSurrogateLast) first = kSurrogateLast + 1;
  if (first > last) return;
  // The two sides of the surrogates do not touch: no sequence of bytes spans them.
  const auto touches = [](uint32_t left, uint32_t right) {
    return left + 1 >= right && !(left == kSurrogateFirst - 1 && right == kSurrogateLast + 1);
  };
  auto begin = ranges_.begin();
  while (begin != ranges_.end() && begin->second < first && !touches(begin->second, first)) ++begin;
  auto end = begin;
  while (end != ranges_.end() && (end->first <= last || touches(last, end->first))) {
    first = std::min(first, end->first);
    last = std::max(last, end->second);
    ++end;
  }
  begin = ranges_.erase(begin, end);
  ranges_.insert(begin, {first, last});
}

void CodePointSet::Add(const CodePointSet& other) {
  for (const auto& [first, last] : other.ranges_) Add(first, last);
}

CodePointSet CodePointSet::Complement() const {
  CodePointSet result;
  uint32_t next = 0;
  for (const auto& [first, last] : ranges_) {
    if (first > next) result.Add(next, first - 1);
    next = last + 1;
  }
  if (next <= kLast) result.Add(next, kLast);
  return result;
}

CodePointSet CodePointSet::Without(uint32_t first, uint32_t last) const {
  CodePointSet result;
  for (const auto& [low, high] : ranges_) {
    if (high < first || low > last) {
      result.Add(low, high);
      continue;
    }
    if (low < first) result.Add(low, first - 1);
    if (high > last) result.Add(last + 1, high);
  }
  return result;
}

bool CodePointSet::Has(uint32_t code_point) const {
  for (const auto& [first, last] : ranges_)
    if (code_point >= first && code_point <= last) return true;
  return false;
}

void ForEachUtf8Sequence(uint32_t first, uint32_t last,
                         const std::function<void(std::span<const ByteRange>)>& sequence) {
  // Cut where the number of bytes changes …
  for (const uint32_t bound : {0x7Fu, 0x7FFu, 0xFFFFu}) {
    if (first <= bound && last > bound) {
      ForEachUtf8Sequence(first, bound, sequence);
      ForEachUtf8Sequence(bound + 1, last, sequence);
      return;
    }
  }
  // … and where a leading byte changes before those behind it have gone through all their values.
  for (int shift = 6; shift <= 18; shift += 6) {
    const uint32_t mask = (uint32_t{1} << shift) - 1;
    if ((first & ~mask) == (last & ~mask)) continue;
    if ((first & mask) != 0) {
      ForEachUtf8Sequence(first, first | mask, sequence);
      ForEachUtf8Sequence((first | mask) + 1, last, sequence);
      return;
    }
    if ((last & mask) != mask) {
      ForEachUtf8Sequence(first, (last & ~mask) - 1, sequence);
      ForEachUtf8Sequence(last & ~mask, last, sequence);
      return;
    }
  }
  const std::string low = Utf8Of(first), high = Utf8Of(last);
  std::vector<ByteRange> ranges;
  for (size_t i = 0; i < low.size(); ++i)
    ranges.push_back({static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i])});
  sequence(ranges);
}

}  // namespace perdure::text
