// What tells pages apart beside their tokens and the page before them.
#pragma once

#include <compare>
#include <cstdint>

#include "shm/layout.h"

namespace perdure::shm {

struct PageKey {
  PageFormat format = PageFormat::kFloat16;
  uint64_t owner = 0;  // who may find it; 0: everybody
  uint64_t mask = 0;   // hash of what its positions see of their past; 0: all of it
  auto operator<=>(const PageKey&) const = default;
};

}  // namespace perdure::shm
