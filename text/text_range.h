// Half-open byte ranges of a text.
#pragma once

#include <cstddef>

namespace perdure::text {

struct TextRange {
  size_t begin = 0;
  size_t end = 0;
  bool operator==(const TextRange&) const = default;
};

}  // namespace perdure::text
