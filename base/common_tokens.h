#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/token.h"

namespace perdure {

// How many tokens both begin with.
inline size_t CommonTokens(std::span<const TokenId> a, std::span<const TokenId> b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace perdure
