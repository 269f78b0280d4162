// Prompts and answers as token ids.
#pragma once

#include <cstddef>
#include <vector>

#include "base/token.h"

namespace perdure::worker {

using Ids = std::vector<TokenId>;

inline Ids operator+(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
inline Ids First(const Ids& ids, size_t count) {
  return {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count)};
}
inline Ids Row(size_t count, TokenId first) {
  Ids ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = first + static_cast<TokenId>(i % 50);
  return ids;
}
// Letters, different ones for each `seed`.
inline Ids Text(size_t count, int seed) {
  Ids ids(count);
  for (size_t i = 0; i < count; ++i)
    ids[i] = 'a' + static_cast<TokenId>((i * 7 + i * i * static_cast<size_t>(seed + 3)) % 25);
  if (!ids.empty()) ids[0] = 'A' + seed % 26;
  return ids;
}

}  // namespace perdure::worker
