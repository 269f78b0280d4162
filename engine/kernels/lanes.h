// What the kernels are written with: each including file compiles them once for its instruction set
// and brings its `Simd` of 16 lanes. Everything over it has internal linkage and calls nothing
// inline from elsewhere: code that is compiled for one instruction set must not be merged with
// another file's.
#pragma once

#include "engine/kernels/kernels.h"

#define PERDURE_INLINE inline __attribute__((always_inline))

namespace perdure::engine {
namespace {

using F = Simd::F;

}  // namespace
}  // namespace perdure::engine
