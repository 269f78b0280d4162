#include "engine/kernels/simd_scalar.h"
// After the lanes it is written over.
#include "engine/kernels/kernels_impl.h"

namespace perdure::engine {

const Kernels kKernelsScalar = MakeKernels(Isa::kScalar);

}  // namespace perdure::engine
